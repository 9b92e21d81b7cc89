//! The journal knows the fate of an event, whatever happened to it.

use std::process::Command;

use broker::{Message, Target};
use serde_json::Value;
use testbed::{eventually, eventually_some};

use crate::on_both_engines;
use crate::world::{SOON, World, built};

/// Runs `notify-host COMMAND`. Returns its output on success, its error message otherwise.
pub(crate) fn ask(world: &World, arguments: &[&str]) -> Result<String, String> {
    ask_in(world, arguments, "state")
}

fn ask_in(world: &World, arguments: &[&str], state: &str) -> Result<String, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_notify-host"));
    command.args(arguments).arg("--plugins").arg(world.plugins()).arg("--state").arg(world.path(state));
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    if output.status.success() { Ok(String::from_utf8(output.stdout).unwrap()) } else { Err(said) }
}

/// Asks about an order until the answer contains all of these parts.
pub(crate) fn explained(world: &World, about: &[&str], parts: &[&str]) -> String {
    let arguments = [&["explain"], about].concat();
    eventually_some(SOON, &format!("{about:?} is explained with {parts:?}; now: {:?}", ask(world, &arguments)), || {
        let text = ask(world, &arguments).ok()?;
        parts.iter().all(|part| text.contains(part)).then_some(text)
    })
}

on_both_engines! {
    fn an_event_is_explained_whatever_became_of_it(world: &World) {
        world.plug_logger();
        world.plug("picky", &built("NOTIFY_TEST_PLUGINS", "logger.wasm"), "filter = 'data.product == \"yacht\"'\n");
        let created = "[[subscriptions]]\nevent-type = \"OrderCreated\"\n";
        world.plug("narrow", &built("NOTIFY_TEST_PLUGINS", "logger.wasm"), created);
        world.plug_misbehaver("skip");
        world.plug_misbehaver_with("retry", "[retry]\nattempts = 2\n");
        world.plug_misbehaver_with("twice", "");
        let host = world.host();
        let order = world.order(&["create", "--user", "u", "--product", "p"]).remove(0);
        let text = explained(world, &["--subject", &order], &["misbehaver-retry: a dead letter", "misbehaver-twice: done"]);
        for part in [
            "received from exchange",
            "with routing key \"order.created\"",
            "picky: filtered: filter data.product == \"yacht\" does not match",
            "picky: does not get it",
            "narrow: matched: subscription \"OrderCreated\" of its toml",
            "logger: attempt 1 of 8",
            "misbehaver-skip: skipped it",
            "misbehaver-retry: attempt 1 of 2",
            "retry: told to try again; next not before",
            "misbehaver-retry: attempt 2 of 2",
            "dead-lettered (attempts-used-up)",
            "misbehaver-twice: attempt 3 of 8",
            "after 3 attempts",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(ask(world, &["explain", &order]).as_deref(), Ok(&*text), "an order's id will do");

        let mut replay = world.host_command(&["dead-letters", "replay", "--yes", "--plugin", "misbehaver-retry"]);
        assert!(replay.output().unwrap().status.success());
        explained(world, &[&order], &["misbehaver-retry: attempt 2 of 2 after replay 1"]);

        let json: Value = serde_json::from_str(&ask(world, &["explain", &order, "--json"]).unwrap()).unwrap();
        assert_eq!(json["plugins"]["misbehaver-twice"]["attempts"], 3);
        assert_eq!(json["plugins"]["picky"]["state"], "filtered");
        let id = json["id"].as_str().unwrap();
        explained(world, &[id], &["misbehaver-twice: done"]);

        let paid = world.path("paid.jsonl");
        std::fs::write(&paid, r#"{"event":"OrderPaid","order_id":"paid"}"#).unwrap();
        world.order(&["send", &paid.display().to_string()]);
        explained(world, &["paid"], &["1 plugin not subscribed to it"]);

        let broker = world.broker();
        let target = Target::Queue(&world.queue);
        world.block_on(broker.publish(target, &Message::json("no json"))).unwrap();
        let outcome = |outcome: &str| ask(world, &["events", "--outcome", outcome]).unwrap();
        eventually(SOON, "what is no event is told", || outcome("undecodable").contains("no event, dead-lettered"));
        let letters = outcome("dead-letter");
        assert_eq!(letters.lines().filter(|line| line.contains(&order)).count(), 2, "{letters}");
        let of_one = ask(world, &["events", "--plugin", "misbehaver-twice", "--since", "1h", "--json"]).unwrap();
        let outcomes: Vec<_> = of_one
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|line| line["subject"] == *order)
            .map(|line| line["outcome"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(outcomes, ["retry", "retry", "done"]);
        host.stop();
    }

    fn what_nobody_wants_and_what_another_host_did_is_said(world: &World) {
        let created = "[[subscriptions]]\nevent-type = \"OrderCreated\"\n";
        world.plug("logger", &built("NOTIFY_TEST_PLUGINS", "logger.wasm"), created);
        world.plug_misbehaver_with("twice", &format!("{created}[retry]\npause-min = \"3s\"\n"));
        let host = world.host();
        let events = world.path("events.jsonl");
        std::fs::write(&events, r#"{"event":"OrderPaid","order_id":"unwanted"}"#).unwrap();
        world.order(&["send", &events.display().to_string()]);
        let text = explained(world, &["unwanted"], &["no plugin wanted it", "2 plugins not subscribed to it"]);
        assert!(!text.contains("attempt"), "{text}");
        let unmatched = ask(world, &["events", "--outcome", "unmatched"]).unwrap();
        assert!(unmatched.contains("unwanted  no plugin wanted it"), "{unmatched}");

        let order = world.order(&["create", "--user", "u", "--product", "p"]).remove(0);
        let text = explained(world, &[&order], &["misbehaver-twice: waits for its next attempt"]);
        host.stop();
        let id = text.split_whitespace().nth(1).unwrap();
        // A second host on the same queue, with its own state folder.
        std::fs::create_dir(world.path("elsewhere")).unwrap();
        std::os::unix::fs::symlink(world.path("state/compiled"), world.path("elsewhere/compiled")).unwrap();
        let elsewhere = world.path("elsewhere").display().to_string();
        let other = world.host_with(&["--state", &elsewhere]);
        let asked = || ask_in(world, &["explain", id], "elsewhere");
        let text = eventually_some(SOON, "the other one makes the attempt", || {
            asked().ok().filter(|text| text.contains("misbehaver-twice: done"))
        });
        assert!(text.contains("another host received it"), "{text}");
        assert!(text.contains("attempt 2 of 8") && !text.contains("attempt 1 of 8"), "{text}");
        let unknown = ask_in(world, &["explain", "unwanted"], "elsewhere").unwrap_err();
        assert!(unknown.contains("knows nothing of event unwanted: another host may have handled it"), "{unknown}");
        other.stop();
    }
}

#[test]
fn a_journal_outlives_kill_and_can_be_switched_off() {
    let world = World::on_sqlite();
    world.plug_logger();
    let host = world.host();
    let order = world.order(&["create", "--user", "u", "--product", "p"]).remove(0);
    explained(&world, &[&order], &["logger: done"]);
    host.child_guard.kill();
    explained(&world, &[&order], &["logger: done"]);

    let toml = std::fs::read_to_string(world.path("host.toml")).unwrap();
    std::fs::write(world.path("host.toml"), format!("{toml}[journal]\nenabled = false\n")).unwrap();
    let host = world.host();
    let unknown = world.order(&["create", "--user", "u", "--product", "p"]).remove(0);
    host.wait_for_order(&unknown);
    host.stop();
    assert!(ask(&world, &["explain", &unknown]).unwrap_err().contains("knows nothing"));
    explained(&world, &[&order], &["logger: done"]);
}

#[test]
fn a_running_host_switches_its_journal_on_and_off() {
    let world = World::on_sqlite();
    world.plug_logger();
    let toml = std::fs::read_to_string(world.path("host.toml")).unwrap();
    let switch = |enabled| {
        std::fs::write(world.path("host.toml"), format!("{toml}[journal]\nenabled = {enabled}\n")).unwrap();
    };
    switch(false);
    let host = world.host();
    let mut orders = Vec::new();
    for enabled in [false, true, false, true] {
        switch(enabled);
        ask(&world, &["reload"]).unwrap();
        let order = world.order(&["create", "--user", "u", "--product", "p"]).remove(0);
        host.wait_for_order(&order);
        orders.push((order, enabled));
    }
    host.stop();
    for (order, is_known) in &orders {
        let answer = ask(&world, &["explain", order]);
        assert_eq!(answer.is_ok_and(|text| text.contains("logger: done")), *is_known, "{orders:?}");
    }
}
