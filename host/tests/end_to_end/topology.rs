//! `notify-host topology` and the host's own reports about exchanges and queues.

use std::process::Output;

use testbed::rabbitmq::{Node, shared};

use crate::on_both_engines;
use crate::world::{World, built};

const ALL_THERE: i32 = 0;
const DIFFERS: i32 = 3;

fn topology(world: &World, arguments: &[&str]) -> Output {
    let mut command = world.host_command(&["topology"]);
    command.args(arguments).arg("--plugins").arg(world.plugins()).output().unwrap()
}

/// Returns the exit code, standard output as JSON, and standard error.
fn json(world: &World, arguments: &[&str]) -> (i32, Vec<serde_json::Value>, String) {
    let output = topology(world, &[arguments, &["--json"]].concat());
    let lines = String::from_utf8(output.stdout).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (output.status.code().unwrap(), lines, String::from_utf8(output.stderr).unwrap())
}

on_both_engines! {
    fn what_is_missing_is_told_and_made_and_serves_a_host(world: &World) {
        world.plug_logger();
        world.plug("switched-off", &built("NOTIFY_TEST_PLUGINS", "logger.wasm"), "enabled = false\n");
        let (code, missing, said) = json(world, &["check"]);
        assert_eq!(code, DIFFERS, "{said}");
        assert!(said.contains("`notify-host topology apply` makes what is missing"), "{said}");
        let names: Vec<_> = missing.iter().map(|part| part["name"].as_str().unwrap()).collect();
        for name in [world.queue.clone(), world.names().plugin("logger"), world.names().dead()] {
            assert!(names.contains(&&*name), "{name} of {names:?}");
        }
        assert!(!names.iter().any(|name| name.contains("switched-off")), "{names:?}");

        let (code, would, _) = json(world, &["apply", "--dry-run"]);
        assert_eq!((code, would), (ALL_THERE, missing.clone()), "and nothing is made yet");
        let (code, made, said) = json(world, &["apply"]);
        assert_eq!((code, made.len()), (ALL_THERE, missing.len()), "{said}");
        assert_eq!(json(world, &["check"]).0, ALL_THERE);
        assert_eq!(json(world, &["apply"]).1, Vec::<serde_json::Value>::new());

        // Published before any host has run.
        let ids = world.order(&["demo"]);
        let (_, parts, _) = json(world, &["show"]);
        let source = parts.iter().find(|part| part["kind"] == "queue" && part["role"] == "source").unwrap();
        assert_eq!(source["name"], *world.queue);
        let host = world.host();
        for id in &ids {
            host.wait_for_order(id);
        }
        assert_eq!(json(world, &["check"]).0, ALL_THERE);
        host.stop();
        let text = String::from_utf8(topology(world, &["show"]).stdout).unwrap();
        assert!(text.starts_with("KIND      NAME"), "{text}");
    }
}

#[test]
fn what_loses_messages_in_somebody_elses_queue_is_told() {
    let world = World::on_rabbitmq();
    let eval = format!(
        "rabbit_amqqueue:declare(rabbit_misc:r(<<\"/\">>, queue, <<\"{}\">>), false, false, [], none, <<\"test\">>).",
        world.queue
    );
    shared().ctl(&["eval", &eval]);
    topology(&world, &["apply"]);
    let output = topology(&world, &["check"]);
    assert_eq!(output.status.code(), Some(DIFFERS));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(
        text.contains(&format!("  warning: queue {:?} is not durable: a restart of RabbitMQ", world.queue)),
        "{text}"
    );
    assert!(text.contains("  note: "), "{text}");
}

#[test]
fn a_user_without_the_right_to_make_queues_is_told_who_could() {
    let node = Node::start();
    node.ctl(&["add_user", "worker", "worker"]);
    node.ctl(&["set_permissions", "-p", "/", "worker", "^$", ".*", ".*"]);
    let mut world =
        World::new(tempfile::tempdir().unwrap(), node.url(), "orders".to_owned(), "notifications".to_owned());
    world.plug_logger();
    world.host_url = node.url().replace("guest:guest", "worker:worker");
    let host = world.host_with(&[]);
    host.wait_for("run `notify-host topology apply` as a user that may configure, read and write");
    world.host_url = node.url();
    assert_eq!(topology(&world, &["apply"]).status.code(), Some(0));
    host.wait_for("ready: ");
    for id in world.order(&["demo"]) {
        host.wait_for_order(&id);
    }
    host.stop();
}
