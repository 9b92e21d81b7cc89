//! The operator's commands for dead letters, on a thousand of them.

use std::collections::BTreeSet;
use std::process::Output;
use std::time::{SystemTime, UNIX_EPOCH};

use broker::{Broker, ExchangeKind, Message, Source, Target, Value};
use serde_json::json;
use testbed::{ChildGuard, eventually};

use crate::on_both_engines;
use crate::world::{SOON, World, built};

const DAY: i64 = 86_400_000;
/// Dead letters of each plugin.
const ALPHA: usize = 600;
const BETA: usize = 250;
const GAMMA: usize = 150;
const ALL: usize = ALPHA + BETA + GAMMA;
/// Letters left of BETA and GAMMA once every second letter is gone.
const HALF: usize = 200;

fn letter(plugin: &str, number: usize, age: i64) -> Message {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    let mut message = Message::json(format!(r#"{{"event":"OrderCreated","order_id":"{plugin}-{number}"}}"#));
    message.properties.message_id = Some(format!("event-{plugin}-{number}"));
    let headers = [
        ("x-notify-plugin", plugin.into()),
        ("x-notify-event-id", format!("event-{plugin}-{number}").as_str().into()),
        ("x-notify-event-type", "OrderCreated".into()),
        ("x-notify-idempotency-key", "key".into()),
        ("x-notify-attempts", Value::I64(8)),
        ("x-notify-code", if plugin == "gamma" { "timed-out" } else { "retry" }.into()),
        ("x-notify-reason", "the server is away".into()),
        ("x-notify-given-up", "attempts-used-up".into()),
        ("x-notify-first-at", Value::I64(now - age)),
        ("x-notify-last-at", Value::I64(now - age)),
        ("x-notify-exchange", "orders".into()),
        ("x-notify-routing-key", "order.created".into()),
        ("x-foreign", "kept".into()),
    ];
    message.properties.headers.extend(headers.map(|(name, value): (&str, Value)| (name.to_owned(), value)));
    message
}

/// Fills the dead-letter queue. Every second letter is two days old.
fn fill(world: &World, broker: &Broker) {
    let source = Source {
        exchange: world.exchange.clone(),
        kind: ExchangeKind::Topic,
        names: world.names(),
        bindings: vec!["#".to_owned()],
    };
    let dead = world.names().dead();
    world.block_on(async {
        broker.declare_source(&source).await.unwrap();
        let letters = [("alpha", ALPHA), ("beta", BETA), ("gamma", GAMMA)].into_iter().flat_map(|(plugin, count)| {
            (0..count).map(move |number| letter(plugin, number, if number % 2 == 0 { 2 * DAY } else { 0 }))
        });
        let publish = |letter: Message| {
            let dead = &dead;
            async move { broker.publish(Target::Queue(dead), &letter).await.unwrap() }
        };
        futures_util::future::join_all(letters.map(publish)).await;
    });
}

fn command(world: &World, arguments: &[&str]) -> Output {
    world.host_command(&[&["dead-letters"], arguments].concat()).output().unwrap()
}

fn succeed(world: &World, arguments: &[&str]) -> String {
    let output = command(world, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn listed(world: &World, arguments: &[&str]) -> Vec<serde_json::Value> {
    let lines = succeed(world, &[&["list", "--json"], arguments].concat());
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

on_both_engines! {
    fn a_thousand_letters_are_listed_filtered_replayed_and_purged(world: &World) {
        let broker = world.broker();
        fill(world, &broker);
        let dead = || world.queue_state(&broker, &world.names().dead()).ready;
        assert_eq!(listed(world, &[]).len(), ALL);
        assert_eq!(listed(world, &["--plugin", "beta"]).len(), BETA);
        assert_eq!(listed(world, &["--event-type", "Order*"]).len(), 0, "a star stands for a whole word");
        assert_eq!(listed(world, &["--event-type", "*", "--reason", "timed-out"]).len(), GAMMA);
        assert_eq!(listed(world, &["--older-than", "1d"]).len(), ALL / 2);
        let one = listed(world, &["--id", "event-beta-7"]).remove(0);
        let shown = succeed(world, &["show", one["id"].as_str().unwrap()]);
        for text in ["beta-7", "the server is away", "attempts-used-up", "x-foreign: kept", "\"order_id\": \"beta-7\""] {
            assert!(shown.contains(text), "{text} in {shown}");
        }

        // Nothing happens without a selection, or without confirmation.
        assert_eq!(command(world, &["purge", "--yes"]).status.code(), Some(2));
        assert_eq!(command(world, &["purge", "--all"]).status.code(), Some(1), "there is no terminal to ask on");
        succeed(world, &["purge", "--all", "--dry-run"]);
        eventually(SOON, "all are still there", || dead() == ALL as u64);

        world.plug("alpha", &built("NOTIFY_TEST_PLUGINS", "logger.wasm"), "[config]\nformat = \"json\"\n");
        world.plug("beta", &built("NOTIFY_TEST_PLUGINS", "logger.wasm"), "[config]\nformat = \"json\"\n");
        let host = world.host();
        assert_eq!(succeed(world, &["replay", "--plugin", "alpha", "--yes", "--json"]).trim(), json!({"replayed": ALPHA}).to_string());
        eventually(SOON, "all are handled", || host.said("alpha").len() == ALPHA);
        host.stop();
        let orders: BTreeSet<_> = host.said("alpha").into_iter().map(|(_, line)| line).collect();
        assert_eq!(orders.len(), ALPHA, "each once");
        assert!(host.said("beta").is_empty(), "only the plugin that failed");
        assert_eq!(listed(world, &["--plugin", "alpha"]).len(), 0);

        succeed(world, &["purge", "--older-than", "1d", "--yes"]);
        assert_eq!(listed(world, &[]).len(), HALF);
        assert_eq!(dead(), HALF as u64);
    }

    fn a_replay_that_is_killed_loses_nothing(world: &World) {
        let broker = world.broker();
        fill(world, &broker);
        let names = world.names();
        let ready = |queue: &str| world.block_on(broker.inspect(queue)).unwrap().map_or(0, |state| state.ready);
        let replay = ["dead-letters", "replay", "--plugin", "alpha", "--yes"];
        let first = ChildGuard::spawn(world.host_command(&replay));
        let replayed = || ready(&names.plugin("alpha"));
        eventually(SOON, "it is in the middle of it", || replayed() > 0);
        first.kill();
        let missing = || (ALL as u64).saturating_sub(replayed() + ready(&names.dead()));
        eventually(SOON, "each letter is in one queue at least", || missing() == 0);
        println!("killed after {} of {ALPHA}, {} of them twice", replayed(), replayed() + ready(&names.dead()) - ALL as u64);

        succeed(world, &["replay", "--plugin", "alpha", "--yes"]);
        assert_eq!(ready(&names.dead()), (BETA + GAMMA) as u64);
        world.plug("alpha", &built("NOTIFY_TEST_PLUGINS", "logger.wasm"), "[config]\nformat = \"json\"\n");
        let host = world.host();
        let orders = || host.said("alpha").into_iter().map(|(_, line)| line).collect::<BTreeSet<_>>();
        eventually(SOON, "every one is handled", || orders().len() == ALPHA);
        host.stop();
    }

    fn what_is_named_badly_is_left_alone(world: &World) {
        let broker = world.broker();
        fill(world, &broker);
        for (arguments, code) in [
            // An empty variable in a script would produce this.
            (["purge", "--yes", "--id", ""], 2),
            (["purge", "--yes", "--reason", ""], 2),
            (["replay", "--yes", "--limit", "5"], 2),
            // About sixty of a thousand ids begin with this digit.
            (["purge", "--yes", "--id", "a"], 1),
        ] {
            let output = command(world, &arguments);
            assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        assert_eq!(listed(world, &[]).len(), ALL);
        let one = listed(world, &["--limit", "1", "--plugin", "beta"]).remove(0);
        let (id, event) = (one["id"].as_str().unwrap(), one["event_id"].as_str().unwrap());
        succeed(world, &["purge", "--yes", "--id", id]);
        assert_eq!(listed(world, &["--id", event]).len(), 0);
        assert_eq!(listed(world, &[]).len(), ALL - 1);
    }

    fn two_replays_at_once_share_the_letters(world: &World) {
        let broker = world.broker();
        fill(world, &broker);
        let names = world.names();
        let replay = || ChildGuard::spawn(world.host_command(&["dead-letters", "replay", "--plugin", "alpha", "--yes"]));
        for command in [replay(), replay()] {
            let status = command.wait_timeout(SOON).expect("it ends");
            assert!(status.success(), "{}", command.stderr());
        }
        let ready = |queue: &str| world.block_on(broker.inspect(queue)).unwrap().map_or(0, |state| state.ready);
        let alpha = || ready(&names.plugin("alpha"));
        eventually(SOON, "what one of them held is back", || alpha() + ready(&names.dead()) == ALL as u64);
        // Each replay takes the number of letters that it counted. Letters that the other gave back
        // later need another run.
        succeed(world, &["replay", "--plugin", "alpha", "--yes"]);
        assert_eq!((alpha(), ready(&names.dead())), (ALPHA as u64, (BETA + GAMMA) as u64), "each once");
    }

    fn what_was_no_event_is_replayed_only_if_it_is_one_now(world: &World) {
        let broker = world.broker();
        world.plug_logger();
        let host = world.host();
        let dead = world.names().dead();
        let undecodable = |body: &'static str, routing_key: &str| {
            let mut message = Message::json(body);
            let headers = [
                ("x-notify-code", "no-type".into()),
                ("x-notify-first-at", Value::I64(1)),
                ("x-notify-exchange", "orders".into()),
                ("x-notify-routing-key", routing_key.into()),
            ];
            message.properties.headers.extend(headers.map(|(name, value): (&str, Value)| (name.to_owned(), value)));
            world.block_on(broker.publish(Target::Queue(&dead), &message)).unwrap();
        };
        undecodable(r#"{"event":"OrderCreated","order_id":"readable"}"#, "");
        undecodable(r#"{"order_id":"nothing"}"#, "");
        // The message comes by the queue's name, which must not become its type.
        undecodable(r#"{"order_id":"by-its-key"}"#, "order.created");
        assert_eq!(command(world, &["replay", "--all", "--yes"]).status.code(), Some(1));
        host.wait_for("readable");
        let left: BTreeSet<_> = listed(world, &[]).iter().map(|letter| letter["routing_key"].to_string()).collect();
        assert_eq!(left, BTreeSet::from([json!("").to_string(), json!("order.created").to_string()]));
        host.stop();
        assert_eq!(host.orders(), ["readable"]);
    }

    fn a_letter_keeps_its_history_over_replays(world: &World) {
        world.plug_misbehaver("reject");
        let host = world.host();
        world.order(&["create", "--user", "u", "--product", "p"]);
        let letters = || listed(world, &[]);
        eventually(SOON, "it dies", || letters().len() == 1);
        succeed(world, &["replay", "--all", "--yes"]);
        eventually(SOON, "it dies again", || letters().first().is_some_and(|letter| letter["round"] == 2));
        let letter = letters().remove(0);
        assert_eq!(letter["attempts"], 1);
        assert_eq!(letter["history"], json!(["1: told-to (attempts: 1): told to reject"]));
        host.stop();
    }

    fn an_edited_event_is_a_new_one(world: &World) {
        let broker = world.broker();
        fill(world, &broker);
        let edit = |script: &str| {
            let mut command = world.host_command(&["dead-letters", "edit", "event-alpha-5"]);
            command.env_remove("VISUAL").env("EDITOR", script).output().unwrap()
        };
        assert!(!edit("echo no JSON >").status.success());
        assert!(edit("true").status.success(), "nothing was changed");
        assert_eq!(listed(world, &["--id", "event-alpha-5"]).len(), 1);
        let output = edit("sed -i s/alpha-5/corrected/");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(listed(world, &["--id", "event-alpha-5"]).len(), 0);
        world.plug("alpha", &built("NOTIFY_TEST_PLUGINS", "logger.wasm"), "[config]\nformat = \"json\"\n");
        let host = world.host();
        host.wait_for("corrected");
        host.stop();
        let (_, line) = host.said("alpha").remove(0);
        assert!(!line.contains("event-alpha-5"), "a new id: {line}");
    }
}
