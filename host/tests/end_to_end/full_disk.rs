//! Commands that write to a full disk report it by their exit code, and none panics.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::process::{Command, Output, Stdio};

use testbed::eventually;

use crate::world::{SOON, World, built};

fn full() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

/// Checks that the command ends with this code, whether or not it can print the reason.
fn check(command: impl Fn() -> Command, code: i32) {
    let shown = format!("{:?}", command());
    let Output { status, stderr, .. } = command().stdin(Stdio::null()).stdout(full()).output().unwrap();
    let said = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(code), "{shown}: {said}");
    assert!(said.contains("cannot write to standard output: No space left on device"), "{shown}: {said}");
    let status = command().stdin(Stdio::null()).stdout(full()).stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(code), "{shown}: without a standard error");
}

#[test]
fn a_command_whose_output_is_lost_fails() {
    let world = World::on_sqlite();
    world.plug_logger();
    world.plug_misbehaver("reject");
    let host = world.host();
    let id = world.order(&["create", "--user", "u", "--product", "p"]).remove(0);
    host.wait_for_order(&id);
    host.wait_for("dead-lettered");
    // The journal is written with a delay.
    eventually(SOON, "the journal knows it", || world.journal_command(&["explain", &id]).status.success());
    let logger = built("NOTIFY_TEST_PLUGINS", "logger.wasm").display().to_string();
    let event = world.path("event.json");
    std::fs::write(&event, r#"{"event":"OrderCreated","order_id":"1"}"#).unwrap();
    let event = event.display().to_string();

    let by_broker: &[&[&str]] = &[
        &["dead-letters", "list"],
        &["dead-letters", "list", "--json"],
        &["topology", "show"],
        &["topology", "show", "--json"],
    ];
    for arguments in by_broker {
        check(|| world.host_command(arguments), 1);
    }
    let by_folder: &[&[&str]] = &[
        &["plugin", "list"],
        &["plugin", "list", "--json"],
        &["explain", &id],
        &["explain", &id, "--json"],
        &["events"],
        &["events", "--json"],
        &["route", "--event", &event],
    ];
    for arguments in by_folder {
        let command = || {
            let mut command = World::notify_host(arguments);
            command.arg("--config").arg(world.path("host.toml")).arg("--plugins").arg(world.plugins());
            command
        };
        check(command, 1);
    }
    let alone: &[&[&str]] = &[
        &["--help"],
        &["run", "--help"],
        &["--version"],
        &["completions", "bash"],
        &["config", "example"],
        &["config", "schema", "plugin"],
        &["plugin", "inspect", &logger],
        &["plugin", "test", &logger, "--event", &event],
    ];
    for arguments in alone {
        check(|| World::notify_host(arguments), 1);
    }
    let file = world.path("orders.jsonl");
    std::fs::write(&file, "{\"event\":\"OrderCreated\",\"order_id\":\"2\"}\n").unwrap();
    let file = file.display().to_string();
    let orders: &[&[&str]] = &[
        &["create", "--user", "u", "--product", "p"],
        &["--json", "create", "--user", "u", "--product", "p"],
        &["demo"],
        &["send", &file],
        &["load", "--count", "10"],
        &["load", "--count", "10", "--ids"],
        &["completions", "bash"],
        &["--help"],
    ];
    for arguments in orders {
        check(|| world.order_cli_command(arguments), 1);
    }
    host.stop();
}

#[test]
fn a_sentence_that_nobody_can_hear_is_no_panic() {
    let world = World::on_sqlite();
    let refused: &[(&[&str], i32)] = &[
        (&["run", "--prefetch"], 2),
        (&["explain", "nothing"], 1),
        (&["plugin", "inspect", "there-is-none.wasm"], 1),
        (&["run", "--config", "there-is-none.toml"], 78),
    ];
    for (arguments, code) in refused {
        let mut command = World::notify_host(arguments);
        let status =
            command.env("NOTIFY_STATE", world.path("state")).stdin(Stdio::null()).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(*code), "{arguments:?}");
    }
    let bad = world.path("bad.jsonl");
    std::fs::write(&bad, "no JSON\n").unwrap();
    let mut command = world.order_cli_command(&["send", &bad.display().to_string()]);
    assert_eq!(command.stderr(full()).status().unwrap().code(), Some(1));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    for arguments in [&["config", "example"][..], &["--help"]] {
        let (mut read, write) = std::io::pipe().unwrap();
        let mut child = World::notify_host(arguments).stdout(write).stderr(Stdio::piped()).spawn().unwrap();
        let mut some = [0; 10];
        read.read_exact(&mut some).unwrap();
        drop(read);
        let output = child.wait().unwrap();
        assert!(output.success(), "{arguments:?}: {output}");
    }
}
