//! Runs each command of README.md, docs/operating.md and docs/configuration.md in a shell, as written, beside a
//! running host. The commands of docs/writing-a-plugin.md have tests of their own.

use std::fs;
use std::process::Command;
use std::time::Duration;

use testbed::rabbitmq::Node;
use testbed::{ChildGuard, eventually, eventually_some, free_port};

use crate::shipped::{READY, shipped};
use crate::world::{SOON, World, built};

const DOCUMENTS: [&str; 3] = ["README.md", "docs/operating.md", "docs/configuration.md"];
/// Commands that are not run here, and why.
const NOT_HERE: [(&str, &str); 8] = [
    ("cargo run ", "the programs that it builds are run by the other commands"),
    ("cargo xtask ", "it runs these tests, or takes as long"),
    ("docker ", "there need be no container engine; see `compose.rs`"),
    ("sudo ", "it changes the machine; see `debian_package.rs`"),
    ("systemctl ", "there need be no systemd; see `debian_package.rs`"),
    ("# ", "what an editor is to write"),
    ("notify-host run --broker amqp://", "it runs until it is stopped; another host has this broker here"),
    ("NOTIFY_SOURCE_EXCHANGE=", "it runs until it is stopped; see `load.rs`"),
];
/// Commands that ask for confirmation. A script passes this option instead.
const ASK: [&str; 2] = ["notify-host dead-letters replay", "notify-host plugin grant"];
const LIMIT: Duration = Duration::from_mins(2);

/// Returns the commands of a document without their comments.
fn commands(document: &str) -> Vec<String> {
    let mut within = false;
    let mut commands = Vec::new();
    for line in document.lines() {
        if let Some(kind) = line.strip_prefix("```") {
            within = !within && kind == "sh";
        } else if within && !line.trim().is_empty() {
            let command = if line.starts_with('#') { line } else { line.split(" #").next().unwrap() };
            commands.push(command.trim_end().to_owned());
        }
    }
    commands
}

/// A host with the plugins and events that the documents mention.
struct Place {
    world: World,
    node: Node,
    host: ChildGuard,
    admin_port: u16,
}

impl Place {
    fn new() -> Self {
        let node = Node::start();
        let folder = tempfile::tempdir().unwrap();
        let world = World::new(folder, node.url(), "orders".to_owned(), "notifications".to_owned());
        world.plug("slack", &built("NOTIFY_TEST_PLUGINS", "logger.wasm"), "");
        let rejects = "[retry]\nattempts = 1\n[config]\nact = \"reject\"\n";
        world.plug("email", &built("NOTIFY_TEST_GUESTS", "misbehaver.wasm"), rejects);
        // Failing calls give the commands that follow events something to show.
        let fails = "[retry]\npause-min = \"1s\"\npause-max = \"1s\"\nattempts = 1000\n[breaker]\ncalls = 10000\n";
        world.plug_misbehaver_with("retry", fails);
        for (file, content) in [
            ("order.json", r#"{"event":"OrderCreated","order_id":"4711","product":"p"}"#),
            ("events.jsonl", r#"{"event":"OrderCreated","order_id":"4711","product":"p"}"#),
            ("other.toml", "[config]\nformat = \"json\"\n"),
        ] {
            fs::write(world.path(file), content).unwrap();
        }
        fs::copy(built("NOTIFY_TEST_PLUGINS", "logger.wasm"), world.path("slack.wasm")).unwrap();
        let admin_port = free_port();
        let host = ChildGuard::spawn(shell(&world, admin_port, "exec notify-host run --log-format json"));
        eventually(READY, "the host is ready", || host.stderr().contains("ready: "));
        let place = Self { world, node, host, admin_port };
        // Create order 4711.
        place.dead_letter();
        place
    }

    /// Returns the id of a dead letter.
    fn dead_letter(&self) -> String {
        self.world.order(&["send", &self.world.path("events.jsonl").display().to_string()]);
        let broker = self.world.broker();
        eventually(SOON, "there is a dead letter", || {
            self.world.queue_state(&broker, &self.world.names().dead()).ready > 0
        });
        let listed = self.shell("notify-host dead-letters list --json").output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let first: serde_json::Value = serde_json::from_str(listed.lines().next().unwrap()).unwrap();
        first["id"].as_str().unwrap_or_else(|| panic!("{listed}")).to_owned()
    }

    fn shell(&self, line: &str) -> Command {
        shell(&self.world, self.admin_port, line)
    }

    /// Returns the command adapted to this test.
    fn prepared(&self, command: &str) -> String {
        let mut line = command
            .replace("localhost:5672", &format!("127.0.0.1:{}", self.node.port()))
            .replace("--plugin NAME", "--plugin slack")
            .replace("ORDER_ID", "4711")
            // Shorter loads.
            .replace("--count 10000", "--count 100")
            .replace("--count 20000", "--count 100");
        if line.ends_with(" ID") {
            line.truncate(line.len() - 2);
            line.push_str(&self.dead_letter());
        }
        if ASK.iter().any(|asks| line.starts_with(asks)) {
            line.push_str(" --yes");
        }
        line
    }
}

/// Returns a shell with both programs in its path and with a home and settings of its own.
fn shell(world: &World, admin_port: u16, line: &str) -> Command {
    let mut bash = World::clean("bash");
    let programs = [env!("CARGO_BIN_EXE_notify-host").into(), built("NOTIFY_TEST_BIN", "order-cli")];
    let folders = programs.map(|program: std::path::PathBuf| program.parent().unwrap().display().to_string());
    bash.args(["-c", line])
        .current_dir(world.path(""))
        .env("HOME", world.path(""))
        .env("EDITOR", "sed -i s/OrderCreated/Mended/");
    bash.env("PATH", format!("{}:{}", folders.join(":"), std::env::var("PATH").unwrap_or_default()));
    bash.env("NOTIFY_BROKER", &world.url).env("NOTIFY_STATE", world.path("state"));
    bash.env("NOTIFY_PLUGINS", world.plugins()).env("NOTIFY_ADMIN", format!("127.0.0.1:{admin_port}"));
    bash.env("NOTIFY_ADMIN_URL", format!("http://127.0.0.1:{admin_port}"));
    bash
}

#[test]
fn the_commands_in_the_documents_work() {
    let place = Place::new();
    let mut failed = Vec::new();
    let mut ran = 0;
    for document in DOCUMENTS {
        for command in commands(&shipped(document)) {
            // `top` needs a terminal; see `top.rs`.
            if command == "notify-host top" || NOT_HERE.iter().any(|(begins, _)| command.starts_with(begins)) {
                continue;
            }
            let line = place.prepared(&command);
            let process = ChildGuard::spawn(place.shell(&line));
            ran += 1;
            if is_endless(&command) {
                // A wrong option would end the command at once; this waits for either.
                let shown = eventually_some(SOON, &format!("{line} shows something"), || {
                    let ended = process.wait_timeout(Duration::ZERO);
                    (ended.is_some() || !process.stdout().is_empty()).then_some(ended)
                });
                failed.extend(shown.map(|status| format!("{document}: {line}: {status}: {}", process.stderr())));
                continue;
            }
            let status = process.wait_timeout(LIMIT);
            // Exit code 3 reports a risk of losing messages, which is a finding and not a failure.
            let finds = command.starts_with("notify-host topology check");
            let is_well = status.is_some_and(|status| status.success() || (finds && status.code() == Some(3)));
            if !is_well {
                failed.push(format!("{document}: {line}: {status:?}: {}", process.stderr()));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(ran > 40, "{ran}");
    assert!(place.host.wait_timeout(Duration::ZERO).is_none(), "{}", place.host.stderr());
}

fn is_endless(command: &str) -> bool {
    command.starts_with("notify-host events --follow")
}
