//! Plugins come, change and go while the host runs. Every step works or reports its reason.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::thread;

use testbed::eventually;

use crate::on_both_engines;
use crate::world::{Host, SOON, World, built};

/// Returns a plugin that logs which events it saw, with its label.
fn witness() -> PathBuf {
    built("NOTIFY_TEST_GUESTS", "witness.wasm")
}

fn labelled(label: &str) -> String {
    format!("[config]\nlabel = {label:?}\n")
}

/// Returns the same plugin as another file. A custom section has no effect on a component
/// (<https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md>).
fn variant(wasm: &[u8], number: u8) -> Vec<u8> {
    [wasm, &[0, 3, 1, b'v', number]].concat()
}

impl World {
    fn order_one(&self) -> String {
        self.order(&["create", "--user", "u", "--product", "p"]).remove(0)
    }

    fn write_toml(&self, name: &str, text: &str) {
        fs::write(self.plugins().join(format!("{name}.toml")), text).unwrap();
    }
}

impl Host {
    fn saw(&self, plugin: &str, label: &str) -> usize {
        let line = format!("seen by {label}");
        self.said(plugin).iter().filter(|(_, said)| *said == line).count()
    }

    fn wait_until_seen(&self, plugin: &str, label: &str, count: usize) {
        eventually(SOON, &format!("{plugin} sees {count} events as {label}"), || self.saw(plugin, label) == count);
    }
}

on_both_engines! {
    fn plugins_come_change_and_go_while_the_host_runs(world: &World) {
        world.plug_logger();
        let host = world.host();
        world.order_one();

        world.plug("witness", &witness(), &labelled("one"));
        host.wait_for("Tells which events it saw");
        // Its own queue exists before it gets any event.
        let broker = world.broker();
        eventually(SOON, "its queue is there", || world.block_on(broker.inspect(&world.names().plugin("witness"))).unwrap().is_some());
        eventually(SOON, "it sees events", || { world.order_one(); host.saw("witness", "one") > 0 });

        world.write_toml("witness", &labelled("two"));
        host.wait_for("loaded anew");
        world.order_one();
        host.wait_until_seen("witness", "two", 1);

        for name in ["witness.wasm", "witness.toml"] {
            fs::rename(world.plugins().join(name), world.plugins().join(name.replace("witness", "other"))).unwrap();
        }
        host.wait_for("unloaded: its file is gone");
        let id = world.order_one();
        host.wait_until_seen("other", "two", 1);
        host.wait_for_order(&id);

        fs::remove_file(world.plugins().join("other.wasm")).unwrap();
        eventually(SOON, "it is unloaded", || host.child_guard.stderr().matches("unloaded: ").count() == 2);
        let id = world.order_one();
        host.wait_for_order(&id);
        host.stop();
        assert_eq!((host.saw("other", "two"), host.saw("witness", "two")), (1, 1));
    }

    fn other_subscriptions_count_for_types_that_came_before(world: &World) {
        let subscribed = |event_type: &str, label: &str| {
            format!("[[subscriptions]]\nevent-type = {event_type:?}\n{}", labelled(label))
        };
        world.plug_logger();
        world.plug("witness", &witness(), &subscribed("Never", "one"));
        let host = world.host();
        host.wait_for_order(&world.order_one());
        for (round, (event_type, label)) in [("OrderCreated", "two"), ("Never", "three")].into_iter().enumerate() {
            world.write_toml("witness", &subscribed(event_type, label));
            eventually(SOON, "it is loaded anew", || host.child_guard.stderr().matches("loaded anew").count() == round + 1);
            host.wait_for_order(&world.order_one());
            host.wait_until_seen("witness", "two", 1);
        }
        host.stop();
        assert_eq!((host.saw("witness", "one"), host.saw("witness", "two"), host.saw("witness", "three")), (0, 1, 0));
    }

    fn the_only_plugin_may_come_and_go_under_load_and_no_event_is_lost(world: &World) {
        world.plug_logger();
        let host = world.host();
        let count = 3000;
        let on = fs::read_to_string(world.plugins().join("logger.toml")).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| world.order(&["--quiet", "load", "--count", &count.to_string(), "--mix", "created=100"]));
            for round in 1..6 {
                eventually(SOON, "it has some", || host.orders().len() > round * 100);
                world.write_toml("logger", &format!("enabled = false\n{on}"));
                eventually(SOON, "it is off", || host.child_guard.stderr().matches("switched off by its toml").count() == round);
                world.write_toml("logger", &on);
                eventually(SOON, "it is on", || host.child_guard.stderr().matches("gets events from now on").count() == round);
            }
        });
        eventually(SOON, "every order is there", || host.distinct_orders().len() == count);
        host.stop();
    }

    fn what_waits_for_a_plugin_that_is_taken_away_is_there_when_it_comes_back(world: &World) {
        world.plug_logger();
        world.plug("witness", &witness(), &labelled("one"));
        let host = world.host();
        let paused = world.plugin_command(&["pause", "witness"]);
        assert!(paused.status.success(), "{paused:?}");
        let ids = world.order(&["demo"]);
        let broker = world.broker();
        let waiting = || world.queue_state(&broker, &world.names().plugin("witness")).ready;
        eventually(SOON, "both wait", || waiting() == ids.len() as u64);
        fs::remove_file(world.plugins().join("witness.wasm")).unwrap();
        host.wait_for("unloaded: ");
        world.plug("witness", &witness(), &labelled("two"));
        host.wait_for("paused by the operator: its events wait in its queue; ");
        assert_eq!(waiting(), 2);
        assert!(world.plugin_command(&["resume", "witness"]).status.success());
        host.wait_until_seen("witness", "two", 2);
        host.stop();
        assert_eq!(waiting(), 0);
    }

    fn a_host_takes_events_only_while_there_is_a_plugin(world: &World) {
        let host = world.host_with(&[]);
        host.wait_for("events stay in the queue");
        let first = world.order_one();
        world.plug_logger();
        host.wait_for_order(&first);
        fs::remove_file(world.plugins().join("logger.wasm")).unwrap();
        eventually(SOON, "it stops to take events", || host.child_guard.stderr().matches("events stay in the queue").count() == 2);
        let second = world.order_one();
        let broker = world.broker();
        assert_eq!(world.queue_state(&broker, &world.queue).ready, 1);
        world.plug_logger();
        host.wait_for_order(&second);
        host.stop();
        assert_eq!(host.orders(), [first, second]);
    }
}

#[test]
fn a_change_that_does_not_load_is_reported_once_and_the_old_version_goes_on() {
    let world = World::on_sqlite();
    world.plug_logger();
    world.plug("witness", &witness(), &labelled("one"));
    let host = world.host();
    let good = fs::read(witness()).unwrap();
    let file = world.plugins().join("witness.wasm");
    let mut seen = 0;
    for (content, problem) in [
        (&b"\x7fELF"[..], "witness.wasm: it is a program for this machine, not WebAssembly"),
        (&good[..good.len() / 2], "witness.wasm: "),
    ] {
        fs::write(&file, content).unwrap();
        let reported = || host.child_guard.stderr().matches(problem).count();
        eventually(SOON, problem, || reported() > 0);
        assert!(host.logged("version 0.1.0 goes on running"));
        for _ in 0..3 {
            world.order_one();
            seen += 1;
            host.wait_until_seen("witness", "one", seen);
        }
    }
    fs::write(&file, variant(&good, 1)).unwrap();
    host.wait_for("loaded anew");

    world.write_toml("witness", "[confg]\n");
    host.wait_for("witness.toml:1: unknown key \\\"confg\\\"; did you mean \\\"config\\\"?");
    let listed = world.plugin_command(&["list"]);
    let table = String::from_utf8(listed.stdout).unwrap();
    assert!(table.contains("running") && table.contains("unknown key \"confg\""), "{table}");
    world.order_one();
    host.wait_until_seen("witness", "one", seen + 1);

    // After a restart the last working version runs again, and the problem is reported again.
    host.stop();
    let host = world.host();
    assert!(host.logged("unknown key \\\"confg\\\"") && host.logged("version 0.1.0 goes on running"));
    world.order_one();
    host.wait_until_seen("witness", "one", 1);
    world.write_toml("witness", &labelled("two"));
    host.wait_for("loaded anew");
    world.order_one();
    host.wait_until_seen("witness", "two", 1);
    host.stop();
    assert_eq!(host.child_guard.stderr().matches("unknown key").count(), 1, "reported once");
}

#[test]
fn a_version_that_was_kept_and_cannot_be_read_is_missed_aloud() {
    let world = World::on_sqlite();
    world.plug_logger();
    world.plug("witness", &witness(), "");
    world.host().stop();
    let folder = fs::read_dir(world.path("state/folders")).unwrap().next().unwrap().unwrap().path();
    for kept in fs::read_dir(folder.join("versions")).unwrap().map(|entry| entry.unwrap().path()) {
        if kept.extension().is_some_and(|extension| extension == "wasm") {
            fs::remove_file(kept).unwrap();
        }
    }
    fs::write(world.plugins().join("witness.wasm"), "broken").unwrap();
    let host = world.host();
    assert!(host.logged("version 0.1.0, which worked last, cannot be read: "), "{}", host.child_guard.stderr());
    assert!(host.logged("witness.wasm: it is not WebAssembly"), "{}", host.child_guard.stderr());
    // The logger has loaded again, which stored its file anew.
    host.stop();
    fs::write(world.plugins().join("logger.wasm"), "broken").unwrap();
    let host = world.host();
    assert!(host.logged("version 0.1.0 goes on running"), "{}", host.child_guard.stderr());
    host.stop();
}

#[test]
fn a_file_that_is_copied_slowly_is_loaded_when_it_is_whole() {
    let world = World::on_sqlite();
    world.plug_logger();
    let host = world.host();
    world.write_toml("slow", &labelled("one"));
    let content = fs::read(witness()).unwrap();
    let mut file = File::create(world.plugins().join("slow.wasm")).unwrap();
    let pieces: Vec<_> = content.chunks(content.len() / 4 + 1).collect();
    for (at, piece) in pieces.iter().enumerate() {
        file.write_all(piece).unwrap();
        // Loading another plugin gives the host time to see each piece.
        let name = format!("meanwhile-{at}");
        world.plug(&name, &witness(), &labelled("other"));
        eventually(SOON, &name, || host.said_loaded(&name));
    }
    assert!(!host.logged("slow.wasm"), "{}", host.child_guard.stderr());
    drop(file);
    eventually(SOON, "it is loaded", || host.said_loaded("slow"));
    world.order_one();
    host.wait_until_seen("slow", "one", 1);
    host.stop();
    assert!(!host.logged("slow.wasm"), "{}", host.child_guard.stderr());
}

#[test]
fn calls_in_flight_end_on_the_version_that_they_began_on() {
    let world = World::on_sqlite();
    let slow = |label| format!("{}milliseconds = 1500\n", labelled(label));
    world.plug("witness", &witness(), &slow("old"));
    let host = world.host();
    world.order_one();
    host.wait_for("begun by old");
    world.write_toml("witness", &labelled("new"));
    host.wait_for("loaded anew");
    assert_eq!(host.saw("witness", "old"), 0, "it was swapped while the call ran");
    world.order_one();
    host.wait_until_seen("witness", "new", 1);
    host.wait_until_seen("witness", "old", 1);
    host.stop();
    assert_eq!((host.saw("witness", "old"), host.saw("witness", "new")), (1, 1));
}

#[test]
fn calls_of_the_old_version_say_nothing_of_the_new_one() {
    let world = World::on_sqlite();
    world.plug_logger();
    let misbehaver = built("NOTIFY_TEST_GUESTS", "misbehaver.wasm");
    let settings = "[breaker]\ncalls = 2\n[retry]\nattempts = 1\n";
    world.plug("moody", &misbehaver, &format!("{settings}[limits]\ntime = \"1500ms\"\n[config]\nact = \"sleep\"\n"));
    let host = world.host();
    world.order(&["--quiet", "load", "--count", "8", "--mix", "created=100"]);
    eventually(SOON, "the logger has all", || host.orders().len() == 8);
    world.write_toml("moody", &format!("{settings}[config]\nact = \"skip\"\n"));
    host.wait_for("loaded anew");
    // The old calls end now, and all of them fail.
    let failed = || host.child_guard.stderr().matches("dead-lettered: it passed its time limit").count();
    eventually(SOON, "the old calls have failed", || failed() == 8);
    host.stop();
    assert!(!host.logged("failing: it is left alone"), "{}", host.child_guard.stderr());
}

#[test]
fn one_file_serves_under_several_names_and_a_pin_keeps_out_what_is_another() {
    let world = World::on_sqlite();
    world.plug("witness", &witness(), "enabled = false\n");
    let host = world.host_with(&[]);
    host.wait_for("events stay in the queue");
    for label in ["sales", "ops"] {
        world.write_toml(&format!("witness-{label}"), &format!("wasm = \"witness.wasm\"\n{}", labelled(label)));
    }
    for label in ["sales", "ops"] {
        eventually(SOON, label, || host.said_loaded(&format!("witness-{label}")));
    }
    host.wait_for("ready: ");
    world.order_one();
    host.wait_until_seen("witness-sales", "sales", 1);
    host.wait_until_seen("witness-ops", "ops", 1);

    let sum = std::process::Command::new("sha256sum").arg(witness()).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap()[..64].to_owned();
    world.write_toml("witness-ops", &format!("wasm = \"witness.wasm\"\nsha256 = {sum:?}\n{}", labelled("pinned")));
    host.wait_for("loaded anew");
    fs::write(world.plugins().join("witness.wasm"), variant(&fs::read(witness()).unwrap(), 1)).unwrap();
    host.wait_for(&format!("and its toml demands {sum}"));
    world.order_one();
    host.wait_until_seen("witness-sales", "sales", 2);
    host.wait_until_seen("witness-ops", "pinned", 1);
    host.stop();
    assert_eq!(host.said("witness"), [], "it is switched off");
}

impl Host {
    fn said_loaded(&self, plugin: &str) -> bool {
        let name = format!("\"plugin\":{plugin:?}");
        self.child_guard.stderr().lines().any(|line| line.contains(&name) && line.contains("\"loaded"))
    }
}
