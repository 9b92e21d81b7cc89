//! A broken or misbehaving plugin harms neither its neighbours nor the host.

use std::fs;
use std::os::unix::fs::symlink;

use broker::Value;
use testbed::eventually;

use crate::on_both_engines;
use crate::world::{SOON, World};

const ACTS: [(&str, &str); 5] = [
    ("loop", "timed-out"),
    ("memory", "out-of-memory"),
    ("panic", "trapped"),
    ("reject", "told-to"),
    ("retry", "retry"),
];

on_both_engines! {
    fn misbehaving_plugins_leave_their_neighbours_running(world: &World) {
        world.plug_logger();
        world.plug_misbehaver("skip");
        world.plug_misbehaver("call-out");
        for (act, _) in ACTS {
            world.plug_misbehaver(act);
        }
        let host = world.host();
        let id = world.order(&["create", "--user", "u", "--product", "p"]).remove(0);
        host.wait_for_order(&id);

        // One dead letter for each plugin that failed, and none for the others.
        let broker = world.broker();
        let mut found: Vec<_> = world
            .dead_letters(&broker, ACTS.len())
            .iter()
            .map(|letter| {
                let header = |name: &str| letter.message.properties.headers.get(name).and_then(Value::to_text).unwrap();
                assert!(!header("x-notify-reason").is_empty());
                assert_eq!(header("x-notify-routing-key"), "order.created");
                (header("x-notify-plugin"), header("x-notify-code"))
            })
            .collect();
        found.sort();
        assert_eq!(found, ACTS.map(|(act, code)| (format!("misbehaver-{act}"), code.to_owned())));

        eventually(SOON, "the message is acknowledged", || world.queue_state(&broker, &world.queue).ready == 0);
        let next = world.order(&["create", "--user", "u", "--product", "p"]).remove(0);
        host.wait_for_order(&next);
        host.stop();
        assert_eq!(host.orders(), [id, next], "the logger was called once for each");
    }
}

#[test]
fn a_host_without_plugins_leaves_the_events_in_the_queue() {
    let world = World::on_sqlite();
    let idle = world.host_with(&[]);
    idle.wait_for("events stay in the queue");
    let ids = world.order(&["demo"]);
    idle.stop();
    assert_eq!(world.queue_state(&world.broker(), &world.queue).ready, 2);
    world.plug_logger();
    let host = world.host();
    for id in &ids {
        host.wait_for_order(id);
    }
    host.stop();
}

#[test]
fn a_broken_plugin_is_reported_and_left_out() {
    let world = World::on_sqlite();
    world.plug_logger();
    for (name, content) in
        [("elf.wasm", &b"\x7fELF"[..]), ("text.wasm", b"hello"), ("Bad_Name.wasm", b""), ("cut.wasm", b"\0as")]
    {
        fs::write(world.plugins().join(name), content).unwrap();
    }
    world.plug_misbehaver("skip");
    fs::write(world.plugins().join("misbehaver-skip.toml"), "[limit]\n").unwrap();
    let host = world.host();
    for text in [
        "elf.wasm: it is a program for this machine, not WebAssembly",
        "text.wasm: it is not WebAssembly",
        "cut.wasm: it is not WebAssembly",
        "Bad_Name.wasm: a plugin's file name is made of a-z, 0-9 and -",
        "misbehaver-skip.toml:1: unknown key \\\"limit\\\"; did you mean \\\"limits\\\"?",
        "with 1 plugin: logger",
    ] {
        assert!(host.logged(text), "{text} in:\n{}", host.child_guard.stderr());
    }
    let id = world.order(&["create", "--user", "u", "--product", "p"]).remove(0);
    host.wait_for_order(&id);
    host.stop();
}

#[test]
fn what_is_no_file_is_reported_and_neither_waited_for_nor_read() {
    let world = World::on_sqlite();
    world.plug_logger();
    world.plug_misbehaver("skip");
    world.plug_fifo("early.wasm");
    let host = world.host();
    world.plug_fifo("late.wasm");
    fs::remove_file(world.plugins().join("misbehaver-skip.toml")).unwrap();
    world.plug_fifo("misbehaver-skip.toml");
    symlink("/dev/zero", world.plugins().join("endless.wasm")).unwrap();
    fs::write(world.plugins().join("elsewhere.toml"), "wasm = \"/dev/zero\"\n").unwrap();
    for text in [
        "early.wasm: cannot read it: it is a FIFO: put a regular file in its place, or remove it; it is left out",
        "late.wasm: cannot read it: it is a FIFO: ",
        "misbehaver-skip.toml: it is a FIFO: put a regular file in its place, or remove it; version 0.1.0 goes on running",
        "endless.wasm: cannot read it: it is a device: ",
        "elsewhere.toml:1: wasm: expected a .wasm file in the plugin folder",
    ] {
        host.wait_for(text);
    }
    for arguments in [&["list"][..], &["reload", "late"], &["disable", "misbehaver-skip"], &["rollback", "endless"]] {
        let done = world.plugin_command(arguments);
        assert_eq!(done.status.success(), arguments == ["list"], "{done:?}");
    }
    let id = world.order(&["create", "--user", "u", "--product", "p"]).remove(0);
    host.wait_for_order(&id);
    host.stop();
}
