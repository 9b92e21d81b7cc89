//! Events delayed by a rate limit or quiet hours wait in the plugin's queue, and none is lost.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use testbed::eventually;

use crate::on_both_engines;
use crate::world::{Host, SOON, World, built};

/// Tolerance between a call and the plugin's log line about it, on a busy machine.
const JITTER: Duration = Duration::from_millis(500);
const WITNESS: &str = "[config]\nlabel = \"it\"\n";

fn plug_witness(world: &World, pace: &str) {
    world.plug("witness", &built("NOTIFY_TEST_GUESTS", "witness.wasm"), &format!("{pace}\n{WITNESS}"));
}

fn load(world: &World, count: usize) {
    world.order(&["--quiet", "load", "--count", &count.to_string(), "--mix", "created=100"]);
}

/// Returns each call that a plugin logged, with its time and event.
fn calls(host: &Host, plugin: &str) -> Vec<(Timestamp, String)> {
    let log = host.child_guard.stderr();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter(|line| line["plugin"] == plugin)
        .filter(|line| {
            line["message"].as_str().is_some_and(|text| {
                text.starts_with("seen by") || text.starts_with("call ") || text.starts_with("success")
            })
        })
        .filter_map(|line| Some((line["timestamp"].as_str()?.parse().ok()?, line["event_id"].as_str()?.to_owned())))
        .collect()
}

fn events(host: &Host, plugin: &str) -> BTreeSet<String> {
    calls(host, plugin).into_iter().map(|(_, event)| event).collect()
}

/// Checks that no interval contains more calls than the rate allows.
fn check_rate(calls: &[(Timestamp, String)], interval: Duration) {
    for (first, (from, _)) in calls.iter().enumerate() {
        for (last, (to, _)) in calls.iter().enumerate().skip(first) {
            let took = Duration::try_from(to.duration_since(*from)).unwrap_or_default();
            let least = interval * u32::try_from(last - first).unwrap();
            assert!(took + JITTER >= least, "calls {first} to {last} took {took:?}, and at least {least:?} were due");
        }
    }
}

fn listed(world: &World, plugin: &str) -> Value {
    let output = world.plugin_command(&["list", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.find(|line| line["name"] == plugin).unwrap_or_else(|| panic!("{plugin} in {text}"))
}

/// Returns quiet hours from an hour ago until `end`, like `22:00:00-23:00:05 UTC`.
fn quiet_until(end: Timestamp) -> String {
    let time = |time: Timestamp| time.strftime("%H:%M:%S").to_string();
    format!("{}-{} UTC", time(Timestamp::now() - SignedDuration::from_hours(1)), time(end))
}

fn in_seconds(seconds: i64) -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second() + seconds).unwrap()
}

on_both_engines! {
    fn a_rate_holds_up_neither_the_source_nor_other_plugins(world: &World) {
        world.plug_logger();
        plug_witness(world, "rate = \"10/s\"");
        let host = world.host();
        let count = 40;
        load(world, count);
        eventually(SOON, "the logger gets everything", || host.distinct_orders().len() == count);
        let broker = world.broker();
        eventually(SOON, "the source's queue is empty", || world.queue_state(&broker, &world.queue).ready == 0);
        let seen = calls(&host, "witness").len();
        assert!(seen < count / 2, "the logger waited for the other one, which saw {seen}");
        eventually(SOON, "the witness gets everything", || events(&host, "witness").len() == count);
        host.stop();
        let calls = calls(&host, "witness");
        assert_eq!(calls.len(), count, "once each");
        check_rate(&calls, Duration::from_millis(100));
        assert_eq!(host.child_guard.stderr().matches("over its rate of 10/s").count(), 1, "said once");
        let state = world.queue_state(&broker, &world.names().plugin("witness"));
        assert_eq!((state.ready, state.delayed), (0, 0));
        assert_eq!(world.queue_state(&broker, &world.names().dead()).ready, 0);
    }

    fn what_waits_for_its_turn_goes_before_what_comes_later(world: &World) {
        world.plug_logger();
        plug_witness(world, "rate = \"5/s\"");
        let host = world.host();
        load(world, 15);
        host.wait_for("over its rate of 5/s");
        // Three times as fast as the rate limit allows.
        world.order(&["--quiet", "load", "--count", "45", "--rate", "15", "--mix", "created=100"]);
        eventually(SOON, "the witness gets everything", || calls(&host, "witness").len() == 60);
        host.stop();
        let mut first: Vec<_> = calls(&host, "witness").into_iter().map(|(_, event)| event).collect();
        // Sorted ids are in publishing order, because ids are made that way.
        let mut published = first.clone();
        published.sort();
        first.truncate(20);
        let early = first.iter().filter(|event| published[..25].contains(event)).count();
        assert!(early >= 18, "of the first 20 that it saw, only {early} are of the first that there were");
    }

    fn waiting_for_a_turn_is_no_attempt(world: &World) {
        // Each event needs all of its three attempts. At five calls a second, only one goes through at once.
        world.plug_misbehaver_with("twice", "rate = \"5/s\"\n[breaker]\ncalls = 1000\n[retry]\nattempts = 3\npause-max = \"1s\"\n");
        let host = world.host();
        let count = 8;
        load(world, count);
        let successes = || host.said("misbehaver-twice").iter().filter(|(_, line)| line.starts_with("success")).count();
        eventually(SOON, "all get through", || successes() == count);
        host.stop();
        let calls = calls(&host, "misbehaver-twice");
        assert_eq!(calls.len(), 3 * count);
        check_rate(&calls, Duration::from_millis(200));
        assert_eq!(world.queue_state(&world.broker(), &world.names().dead()).ready, 0);
    }

    fn a_host_that_is_killed_while_events_wait_for_their_turn_loses_none(world: &World) {
        plug_witness(world, "rate = { limit = \"5/s\", burst = 2 }");
        let count = 24;
        let mut hosts = vec![world.host()];
        load(world, count);
        for _ in 0..3 {
            let host = hosts.last().unwrap();
            eventually(SOON, "some are done", || calls(host, "witness").len() >= 3);
            host.child_guard.kill();
            hosts.push(world.host());
        }
        let all = || hosts.iter().flat_map(|host| events(host, "witness")).collect::<BTreeSet<_>>();
        eventually(SOON, "the witness gets everything", || all().len() == count);
        hosts.last().unwrap().stop();
        for host in &hosts {
            check_rate(&calls(host, "witness"), Duration::from_millis(200));
        }
        let broker = world.broker();
        for queue in [world.queue.clone(), world.names().plugin("witness"), world.names().dead()] {
            assert_eq!(world.queue_state(&broker, &queue).ready, 0, "{queue}");
        }
    }

    fn while_the_next_turn_is_far_nothing_is_held_and_a_new_rate_takes_effect_at_once(world: &World) {
        world.plug_logger();
        plug_witness(world, "rate = \"1/h\"");
        let host = world.host();
        let count = 10;
        load(world, count);
        eventually(SOON, "one is called", || calls(&host, "witness").len() == 1);
        let (broker, queue) = (world.broker(), world.names().plugin("witness"));
        eventually(SOON, "all others wait in the queue", || {
            let state = world.queue_state(&broker, &queue);
            (state.ready, state.consumers) == (count as u64 - 1, 0)
        });
        let plugin = listed(world, "witness");
        assert_eq!(plugin["state"], "rate-limited");
        assert!(plugin["waits_for"].as_str().unwrap().starts_with("over its rate of 1/h; "), "{plugin}");
        let until: Timestamp = plugin["waits_until"].as_str().unwrap().parse().unwrap();
        assert!((50..=60).contains(&((until.as_second() - Timestamp::now().as_second()) / 60)), "{until}");

        fs::write(world.plugins().join("witness.toml"), format!("rate = \"20/s\"\n{WITNESS}")).unwrap();
        eventually(SOON, "the witness gets everything", || events(&host, "witness").len() == count);
        eventually(SOON, "it is as any other again", || listed(world, "witness")["state"] == "running");
        host.stop();
        assert_eq!(calls(&host, "witness").len(), count);
    }

    fn in_quiet_hours_events_wait_over_a_kill_and_go_on_at_the_end(world: &World) {
        world.plug_logger();
        // Start the host before quiet hours begin, so that some events are in flight when they do.
        plug_witness(world, "rate = \"20/s\"");
        let first = world.host();
        load(world, 1);
        eventually(SOON, "it gets what comes before", || calls(&first, "witness").len() == 1);
        let toml = world.plugins().join("witness.toml");
        let quiet = |end| format!("rate = \"20/s\"\nquiet-hours = {:?}\n{WITNESS}", quiet_until(end));
        fs::write(&toml, quiet(in_seconds(3600))).unwrap();
        first.wait_for("quiet hours until ");
        let count = 20;
        load(world, count);
        eventually(SOON, "the logger gets everything", || first.distinct_orders().len() == count + 1);
        let (broker, queue) = (world.broker(), world.names().plugin("witness"));
        let waits = || {
            let state = world.queue_state(&broker, &queue);
            (state.ready, state.consumers) == (count as u64, 0)
        };
        eventually(SOON, "all wait in its queue, and nobody takes from it", waits);
        let plugin = listed(world, "witness");
        assert_eq!(plugin["state"], "quiet");
        assert!(plugin["waits_for"].as_str().unwrap().starts_with("quiet hours until "), "{plugin}");
        let table = String::from_utf8(world.plugin_command(&["list"]).stdout).unwrap();
        assert!(table.contains("\n  quiet hours until "), "{table}");
        assert_eq!(first.child_guard.stderr().matches("quiet hours until ").count(), 1, "said once, and not for each event");
        first.child_guard.kill();

        let second = world.host();
        second.wait_for("quiet hours until ");
        eventually(SOON, "they still wait", waits);
        let end = in_seconds(4);
        fs::write(&toml, quiet(end)).unwrap();
        second.wait_for("its quiet hours are over");
        eventually(SOON, "the witness gets everything", || events(&second, "witness").len() == count);
        second.stop();
        let seen = calls(&second, "witness");
        assert_eq!((seen.len(), calls(&first, "witness").len()), (count, 1), "once each");
        assert!(seen[0].0 >= end, "the first was called at {}, before {end}", seen[0].0);
        check_rate(&seen, Duration::from_millis(50));
        assert_eq!(world.queue_state(&broker, &world.names().dead()).ready, 0);
    }
}

#[test]
fn a_plugin_for_which_nothing_waits_is_not_said_to_be_over_its_rate() {
    let world = World::on_sqlite();
    plug_witness(&world, "rate = \"1/h\"");
    let host = world.host();
    load(&world, 1);
    eventually(SOON, "it is called", || calls(&host, "witness").len() == 1);
    eventually(SOON, "its consumer is gone", || {
        world.queue_state(&world.broker(), &world.names().plugin("witness")).consumers == 0
    });
    assert_eq!(listed(&world, "witness")["state"], "running");
    assert!(!host.logged("over its rate"), "{}", host.child_guard.stderr());
    load(&world, 1);
    host.wait_for("over its rate of 1/h");
    assert_eq!(listed(&world, "witness")["state"], "rate-limited");
    host.stop();
}

#[test]
fn what_is_in_hand_when_quiet_hours_begin_goes_back_to_the_queue() {
    let world = World::on_rabbitmq();
    // Two seconds between calls, so that some events are in flight.
    plug_witness(&world, "rate = \"30/min\"");
    let host = world.host();
    load(&world, 8);
    eventually(SOON, "one is called", || calls(&host, "witness").len() == 1);
    let (broker, queue) = (world.broker(), world.names().plugin("witness"));
    eventually(SOON, "some are in hand", || world.queue_state(&broker, &queue).ready < 7);
    let toml = format!("rate = \"30/min\"\nquiet-hours = {:?}\n{WITNESS}", quiet_until(in_seconds(3600)));
    fs::write(world.plugins().join("witness.toml"), toml).unwrap();
    host.wait_for("quiet hours until ");
    eventually(SOON, "all are in the queue", || {
        let state = world.queue_state(&broker, &queue);
        let seen = calls(&host, "witness").len() as u64;
        (state.ready, state.consumers) == (8 - seen, 0)
    });
    host.stop();
    assert!(host.logged("everything that was begun is done"), "{}", host.child_guard.stderr());
}

#[test]
fn a_stop_does_not_wait_for_the_turns_of_what_is_in_hand() {
    let world = World::on_rabbitmq();
    plug_witness(&world, "rate = \"30/min\"");
    let host = world.host();
    load(&world, 6);
    eventually(SOON, "one is called", || calls(&host, "witness").len() == 1);
    let (broker, queue) = (world.broker(), world.names().plugin("witness"));
    eventually(SOON, "some are in hand", || world.queue_state(&broker, &queue).ready < 5);
    host.stop();
    assert!(host.logged("everything that was begun is done"), "{}", host.child_guard.stderr());
    let seen = calls(&host, "witness").len();
    assert!(seen < 5, "it went on at its rate, and saw {seen}");
    assert_eq!(world.queue_state(&broker, &queue).ready, 6 - seen as u64, "the others are in the queue");
}
