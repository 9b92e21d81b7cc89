//! The dashboard in a real Chromium, which views a real host under load and does an operator's work. The steps are in
//! `dashboard/drive.mjs`.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use testbed::{ChildGuard, eventually, eventually_some};

use crate::admin::client::Client;
use crate::on_both_engines;
use crate::world::{SOON, World, built};

/// Maximum time for all steps of a scenario, on a busy machine.
const SCENARIO_TIME_MAX: Duration = Duration::from_mins(8);
/// Orders that `shop` rejects before the browser starts.
const LETTERS: usize = 6;

/// A browser that goes through a scenario.
struct Operator(ChildGuard);

impl Operator {
    /// Starts a scenario. `settings` come in addition to those that every scenario gets.
    fn begin(scenario: &str, engine: &str, admin: &Client, mut settings: Value) -> Self {
        let packages = env::var_os("NOTIFY_TEST_BROWSER")
            .expect("NOTIFY_TEST_BROWSER is not set: run the tests by `cargo xtask test`");
        // Screenshots for people to look at, so they are kept.
        let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard").join(engine);
        fs::create_dir_all(&pictures).unwrap();
        settings["at"] = json!(format!("http://{}/", admin.at));
        settings["packages"] = json!(packages.to_str().unwrap());
        settings["pictures"] = json!(pictures);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/dashboard/drive.mjs");
        let mut command = Command::new("node");
        command.arg(script).arg(scenario).arg(settings.to_string());
        Self(ChildGuard::spawn(command))
    }

    fn wait_for(&self, line: &str) {
        eventually_some(SOON, &format!("{line:?} is asked for: {}{}", self.0.stdout(), self.0.stderr()), || {
            (self.0.stdout().contains(line) || self.0.wait_timeout(Duration::ZERO).is_some()).then_some(())
        });
        assert!(self.0.stdout().contains(line), "{}{}", self.0.stdout(), self.0.stderr());
    }

    fn succeeds(&self) {
        let status = self.0.wait_timeout(SCENARIO_TIME_MAX);
        let told = format!("{}{}", self.0.stdout(), self.0.stderr());
        assert!(status.is_some_and(|status| status.success()), "{status:?}: {told}");
        println!("{told}");
    }
}

fn engine(world: &World) -> &str {
    world.url.split(':').next().unwrap_or_default()
}

on_both_engines! {
    fn an_operator_works_with_a_host_under_load_in_a_browser(world: &World) {
        world.plug_logger();
        let misbehaver = built("NOTIFY_TEST_GUESTS", "misbehaver.wasm");
        world.plug("shop", &misbehaver, "filter = 'type == \"OrderCanceled\"'\n[config]\nact = \"reject\"\n");
        let moody = "filter = 'type == \"OrderPaid\"'\n[breaker]\ncalls = 3\npause-min = \"10m\"\npause-max = \"10m\"\n[retry]\nattempts = 100\n\
                     [config]\nact = \"retry\"\n";
        world.plug("moody", &misbehaver, moody);
        fs::write(world.plugins().join("newcomer.wasm"), "no plugin").unwrap();
        let (host, admin) = world.host_with_admin(&[]);
        host.wait_for("ready: ");
        let count = LETTERS.to_string();
        world.order(&["--quiet", "load", "--count", &count, "--mix", "canceled=100"]);
        let load = ChildGuard::spawn(world.order_cli_command(&[
            "--quiet", "load", "--count", "1000000", "--rate", "150", "--mix", "created=85,paid=15",
        ]));
        let operator = Operator::begin("operate", engine(world), &admin, json!({
            "plugins": world.plugins(),
            "mended": built("NOTIFY_TEST_PLUGINS", "logger.wasm"),
            "mendedToml": "filter = 'type == \"OrderCanceled\"'\n[config]\nformat = \"json\"\n",
            "letters": LETTERS,
        }));
        operator.succeeds();
        assert!(load.wait_timeout(Duration::ZERO).is_none(), "the load went on: {}", load.stderr());
        drop(load);
        let mended: Vec<_> = host.said("shop").into_iter().filter(|(_, line)| line.contains("mended by hand")).collect();
        assert_eq!(mended.len(), 1, "what was edited has arrived, once: {mended:?}");
        let broker = world.broker();
        assert_eq!(world.queue_state(&broker, &world.names().dead()).ready, 0, "nothing is left of the dead letters");
        host.stop();
    }
}

#[test]
fn a_host_without_a_plugin_says_what_to_do_in_a_browser() {
    let world = World::on_sqlite();
    let (host, admin) = world.host_with_admin(&[]);
    Operator::begin("empty", engine(&world), &admin, json!({ "plugins": world.plugins() })).succeeds();
    host.stop();
}

#[test]
fn a_host_with_a_token_asks_for_it_in_a_browser() {
    let world = World::on_sqlite();
    world.plug_logger();
    fs::write(world.path("token"), "correct-horse-battery\n").unwrap();
    let (host, admin) = world.host_with_admin(&["--admin-token-file", world.path("token").to_str().unwrap()]);
    Operator::begin("locked", engine(&world), &admin, json!({ "token": "correct-horse-battery" })).succeeds();
    host.stop();
}

#[test]
fn a_host_that_goes_and_comes_again_is_noticed_in_a_browser() {
    let world = World::on_sqlite();
    world.plug_logger();
    let (host, admin) = world.host_with_admin(&[]);
    let operator = Operator::begin("away", engine(&world), &admin, json!({}));
    operator.wait_for("stop the host");
    host.stop();
    operator.wait_for("start the host");
    let host = world.host_with(&["--admin", &admin.at]);
    eventually(SOON, "it is ready", || host.logged("ready: "));
    operator.succeeds();
    host.stop();
}

#[test]
fn the_page_writes_values_as_they_are() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/dashboard/words.mjs");
    let output = Command::new("node").arg(script).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
