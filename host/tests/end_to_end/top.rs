//! `notify-host top`, in a real terminal and without one.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use testbed::{ChildGuard, eventually, free_port};

use crate::admin::client::Client;
use crate::on_both_engines;
use crate::world::{SOON, World};

fn top(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_notify-host"));
    for name in ["NOTIFY_ADMIN_URL", "NOTIFY_ADMIN_TOKEN", "NOTIFY_ADMIN_TOKEN_FILE"] {
        command.env_remove(name);
    }
    command.arg("top").args(arguments);
    command
}

fn once(arguments: &[&str]) -> Output {
    top(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A terminal of 150 columns and 40 rows, provided by `script`.
struct Terminal {
    child_guard: ChildGuard,
    keys: File,
    screen: PathBuf,
    process: PathBuf,
}

impl Terminal {
    fn open(world: &World, admin: &Client) -> Self {
        let [keys, screen, process] = ["keys", "screen", "process"].map(|name| world.path(name));
        assert!(Command::new("mkfifo").arg(&keys).status().unwrap().success());
        let run = r#"stty rows 40 cols 150; echo $$ >"$TOP_PROCESS"; exec "$TOP" top --url "$TOP_URL""#;
        let mut command = Command::new("sh");
        command.args(["-c", r#"exec script -qfec "$1" "$2" <"$3""#, "sh", run]).arg(&screen).arg(&keys);
        command.env("TOP", env!("CARGO_BIN_EXE_notify-host")).env("TOP_URL", format!("http://{}", admin.at));
        command.env("TOP_PROCESS", &process).env("TERM", "xterm-256color").env("SHELL", "/bin/sh");
        let child_guard = ChildGuard::spawn(command);
        // Opening blocks until the shell opens the other end, which waits for this one.
        let keys = OpenOptions::new().write(true).open(keys).unwrap();
        Self { child_guard, keys, screen, process }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Returns everything that was ever written to the terminal.
    fn written(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.screen).unwrap_or_default()).into_owned()
    }

    fn wait_for(&self, text: &str) {
        eventually(SOON, &format!("{text:?} on the screen"), || self.written().contains(text));
    }

    /// Checks that `top` has exited successfully and restored the terminal.
    fn has_ended(&self) {
        let status = self.child_guard.wait_timeout(SOON).expect("it ends");
        let written = self.written();
        assert!(status.success(), "{status}: {written}");
        let (_, end) = written.rsplit_once("\u{1b}[?1049l").expect("it leaves the alternate screen");
        assert!(end.contains("\u{1b}[?25h"), "and shows the cursor: {end:?}");
    }
}

fn state(admin: &Client, name: &str) -> String {
    let plugins = admin.json("/api/v1/plugins");
    let plugin = plugins["plugins"].as_array().unwrap().iter().find(|plugin| plugin["name"] == name);
    plugin.unwrap()["state"].as_str().unwrap().to_owned()
}

on_both_engines! {
    fn a_plugin_is_seen_and_paused_by_a_key(world: &World) {
        world.plug_logger();
        world.plug_misbehaver("reject");
        let (host, admin) = world.host_with_admin(&[]);
        host.wait_for("ready: ");
        let mut terminal = Terminal::open(world, &admin);
        terminal.wait_for("logger");
        terminal.wait_for("misbehaver-reject");
        terminal.wait_for("running");
        let order = world.order(&["create", "--user", "u", "--product", "p"]).remove(0);
        terminal.wait_for(&order);
        terminal.wait_for("told to reject");
        // Move down, and answer "no" to the first question.
        terminal.press("\u{1b}[B");
        terminal.press("p");
        terminal.wait_for("pause logger? its events wait in its queue.");
        terminal.press("n");
        terminal.wait_for("logger: left as it is");
        assert_eq!(state(&admin, "logger"), "running");
        terminal.press("py");
        eventually(SOON, "it is paused", || state(&admin, "logger") == "paused");
        terminal.wait_for("paused");
        terminal.press("ry");
        eventually(SOON, "it goes on", || state(&admin, "logger") == "running");
        assert_eq!(state(&admin, "misbehaver-reject"), "running");
        terminal.press("?");
        terminal.wait_for("HELP");
        terminal.press("qq");
        terminal.has_ended();
        host.stop();
    }
}

#[test]
fn a_host_that_goes_away_is_said_to_and_a_signal_puts_the_terminal_back() {
    let world = World::on_sqlite();
    world.plug_logger();
    let (host, admin) = world.host_with_admin(&[]);
    host.wait_for("ready: ");
    let terminal = Terminal::open(&world, &admin);
    terminal.wait_for("logger");
    host.child_guard.kill();
    terminal.wait_for("cannot reach a host at http://127.0.0.1:");
    let process = fs::read_to_string(&terminal.process).unwrap();
    assert!(Command::new("kill").args(["-TERM", process.trim()]).status().unwrap().success());
    terminal.has_ended();
}

#[test]
fn without_a_terminal_it_prints_how_the_host_is_and_ends() {
    let world = World::on_sqlite();
    world.plug_logger();
    let token = world.path("token");
    fs::write(&token, "0123456789abcdef0123456789abcdef\n").unwrap();
    let token = token.to_str().unwrap();
    let (host, admin) = world.host_with_admin(&["--admin-token-file", token]);
    host.wait_for("ready: ");
    let url = format!("http://{}", admin.at);
    let refused = once(&["--url", &url]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("name the file with its token by --token-file"), "{}", said(&refused));
    assert!(!said(&refused).contains("0123456789"));

    let order = world.order(&["create", "--user", "u", "--product", "p"]).remove(0);
    host.wait_for_order(&order);
    let text = || {
        let output = once(&["--url", &url, "--token-file", token]);
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    eventually(SOON, "the order is among the events", || text().contains(&format!(" {order} logger: done")));
    let text = text();
    assert!(text.starts_with("notify-host ") && text.contains(": ready\n"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("logger") && line.contains("running")), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");

    let json = once(&["--url", &url, "--token-file", token, "--json"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["plugins"][0]["name"], "logger");
    assert!(json["plugins"][0]["attempts_per_second"].is_number(), "{json}");
    assert_eq!(json["host"]["ready"], true);
    host.stop();
}

#[test]
fn a_host_that_cannot_be_asked_is_told_with_the_flag_that_names_another() {
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let output = once(&["--url", &nobody]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains(&format!("cannot reach a host at {nobody}/")), "{}", said(&output));
    assert!(said(&output).contains("name another address by --url"), "{}", said(&output));

    let other = testbed::receiver::Receiver::answering(200);
    let output = once(&["--url", &other.origin()]);
    assert!(said(&output).contains("is no notify-host"), "{}", said(&output));

    let silent = testbed::receiver::Receiver::start(|_| testbed::receiver::Reply::Hang);
    let output = once(&["--url", &silent.origin()]);
    assert!(said(&output).contains("it did not answer within 5 s"), "{}", said(&output));

    let output = once(&["--url", "https://localhost"]);
    assert!(said(&output).contains("begins with http://"), "{}", said(&output));
}
