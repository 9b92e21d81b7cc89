//! `explain` gives the right answer for every path that an event can take.

use std::collections::BTreeSet;
use std::time::Duration;

use broker::{Message, Target};
use serde_json::Value;
use testbed::{ChildGuard, eventually, eventually_some};

use crate::journal::{ask, explained};
use crate::on_both_engines;
use crate::world::{SOON, World, built};

/// How much recent history a crash may cost. The journal is written every 200 ms.
const CRASH_COSTS: Duration = Duration::from_secs(2);

fn publish(world: &World, body: &str, id: Option<&str>) {
    let mut message = Message::json(body.to_owned());
    message.properties.message_id = id.map(str::to_owned);
    let broker = world.broker();
    let target = Target::Exchange { exchange: &world.exchange, routing_key: "order.created" };
    world.block_on(broker.publish(target, &message)).unwrap();
}

fn plugin(world: &World, arguments: &[&str]) {
    let output = world.plugin_command(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn plug_failing(world: &World, act: &str) {
    let toml = format!("[retry]\nattempts = 1\n[config]\nact = {act:?}\n");
    world.plug("failing", &built("NOTIFY_TEST_GUESTS", "misbehaver.wasm"), &toml);
}

on_both_engines! {
    fn what_a_plugin_logged_is_told_with_its_attempt(world: &World) {
        world.plug_misbehaver_with("twice", "");
        let host = world.host();
        publish(world, r#"{"event":"OrderCreated","order_id":"4711"}"#, Some("id-of-4711"));
        let text = explained(world, &["id-of-4711"], &["misbehaver-twice: done"]);
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        for (attempt, logged) in
            [("attempt 1 of 8", "call 1"), ("attempt 2 of 8", "call 2"), ("attempt 3 of 8", "success with")]
        {
            let at = lines.iter().position(|line| line.contains(attempt)).unwrap_or_else(|| panic!("{attempt}: {text}"));
            assert!(lines[at + 1].starts_with("| info  ") && lines[at + 1].contains(logged), "{attempt}: {text}");
        }
        let json: Value = serde_json::from_str(&ask(world, &["explain", "id-of-4711", "--json"]).unwrap()).unwrap();
        let attempts = json["records"].as_array().unwrap().iter().filter(|record| record["what"] == "attempted");
        let logged: Vec<_> = attempts.map(|attempt| attempt["log"][0]["message"].as_str().unwrap()).collect();
        assert_eq!(logged, ["call 1 for id-of-4711", "call 2 for id-of-4711", "success with id-of-4711"]);
        host.stop();
    }

    fn what_has_just_happened_is_known_to_who_asks_at_once(world: &World) {
        world.plug_logger();
        let host = world.host();
        for number in 0..5 {
            let id = format!("just-now-{number}");
            publish(world, r#"{"event":"OrderCreated","order_id":"4711"}"#, Some(&id));
            host.wait_for(&id);
            // Ask once, without polling until it succeeds.
            let text = ask(world, &["explain", &id]).unwrap();
            assert!(text.contains("logger: "), "{text}");
        }
        host.stop();
        let unknown = ask(world, &["explain", "never"]).unwrap_err();
        assert!(unknown.contains("no host of yours runs with this plugin folder now"), "{unknown}");
    }

    fn what_is_being_tried_is_known_before_that_ends(world: &World) {
        let acts = ["loop", "sleep"];
        for act in acts {
            let toml = format!("[limits]\ntime = \"30s\"\n[config]\nact = {act:?}\n");
            world.plug(act, &built("NOTIFY_TEST_GUESTS", "misbehaver.wasm"), &toml);
        }
        let host = world.host();
        publish(world, r#"{"event":"OrderCreated","order_id":"4711"}"#, Some("1"));
        let began = acts.map(|act| format!("{act}: its attempt began at"));
        let text = explained(world, &["1"], &["received from exchange", &began[0], &began[1]]);
        assert!(!text.contains("attempt 1"), "{text}");
        drop(host);
    }

    fn a_dead_letter_that_was_replayed_is_done_after_the_replay(world: &World) {
        plug_failing(world, "reject");
        let host = world.host();
        publish(world, r#"{"event":"OrderCreated","order_id":"4711"}"#, Some("1"));
        explained(world, &["1"], &["reject: told to reject; dead-lettered (rejected)", "failing: a dead letter since"]);
        plug_failing(world, "call-out");
        plugin(world, &["reload", "failing"]);
        let replay = world.host_command(&["dead-letters", "replay", "--yes", "--plugin", "failing"]).output().unwrap();
        assert!(replay.status.success());
        let text = explained(world, &["1"], &["failing: done at"]);
        assert!(text.contains("failing: attempt 1 of 1, ") && text.contains("attempt 1 of 1 after replay 1, "), "{text}");
        assert!(!text.contains("a dead letter since"), "{text}");
        host.stop();
    }

    fn what_waits_while_its_plugin_is_paused_says_so(world: &World) {
        world.plug_misbehaver("skip");
        let host = world.host();
        plugin(world, &["pause", "misbehaver-skip"]);
        publish(world, r#"{"event":"OrderCreated","order_id":"4711"}"#, Some("1"));
        let parts = ["misbehaver-skip: waits in its queue: it was paused", "misbehaver-skip: waits in its queue since"];
        let text = explained(world, &["1"], &parts);
        assert!(!text.contains("attempt 1"), "{text}");
        plugin(world, &["resume", "misbehaver-skip"]);
        explained(world, &["1"], &["it was paused", "attempt 1 of 1", "misbehaver-skip: skipped it at"]);
        host.stop();
    }

    fn what_comes_twice_and_what_is_no_event_are_explained(world: &World) {
        world.plug_logger();
        let host = world.host();
        let body = r#"{"event":"OrderCreated","order_id":"4711"}"#;
        publish(world, body, Some("1"));
        explained(world, &["1"], &["logger: done at"]);
        publish(world, body, Some("1"));
        let text = explained(world, &["1"], &["came again within the duplicates window: not delivered a second time"]);
        assert_eq!(text.matches("attempt 1 of 8").count(), 1, "{text}");
        assert!(text.contains("logger: done at"), "{text}");

        publish(world, "no json", None);
        let line = eventually_some(SOON, "it is told", || {
            ask(world, &["events", "--outcome", "undecodable", "--json"]).ok().filter(|lines| !lines.is_empty())
        });
        let event: Value = serde_json::from_str(&line).unwrap();
        let text = ask(world, &["explain", event["id"].as_str().unwrap()]).unwrap();
        assert!(text.contains("with routing key \"order.created\", 7 bytes"), "{text}");
        assert!(text.contains("dead-lettered as it came, for it is no event"), "{text}");
        host.stop();
    }
}

#[test]
fn a_kill_under_load_costs_the_journal_no_more_than_its_last_moments() {
    let world = World::on_sqlite();
    world.plug_logger();
    let host = world.host();
    let mut load = world.order_cli_command(&["load", "--mix", "created=100"]);
    load.args(["--count", "10000", "--rate", "200"]);
    let load = ChildGuard::spawn(load);
    let told = |least: Duration| {
        let said = host.said("logger");
        let (Some((first, _)), Some((last, _))) = (said.first(), said.last()) else { return Vec::new() };
        let long = last.duration_since(*first) >= least.try_into().unwrap();
        if long { said } else { Vec::new() }
    };
    eventually(SOON, "the host is at work", || !told(2 * CRASH_COSTS).is_empty());
    host.child_guard.kill();
    load.kill();
    let said = told(Duration::ZERO);
    let killed_at = said.last().unwrap().0;
    let written: BTreeSet<_> = said
        .iter()
        .filter(|(at, _)| killed_at.duration_since(*at) > CRASH_COSTS.try_into().unwrap())
        .map(|(_, text)| serde_json::from_str::<Value>(text).unwrap()["id"].as_str().unwrap().to_owned())
        .collect();
    assert!(written.len() > 100, "{}", written.len());
    let events =
        ask(&world, &["events", "--plugin", "logger", "--outcome", "done", "--since", "1h", "--json"]).unwrap();
    let known: BTreeSet<_> = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
        .collect();
    let missing: Vec<_> = written.difference(&known).collect();
    assert!(missing.is_empty(), "{} of {}: {missing:?}", missing.len(), written.len());

    // The next host continues in the same file.
    let host = world.host();
    publish(&world, r#"{"event":"OrderCreated","order_id":"afterwards"}"#, Some("afterwards"));
    explained(&world, &["afterwards"], &["logger: done at"]);
    host.stop();
    let earliest = written.first().unwrap();
    explained(&world, &[earliest], &["logger: done at"]);
}
