//! Routing: subscriptions, filters, and the report of `notify-host route`.

use std::fs;
use std::process::{Command, Output};

use testbed::eventually;

use crate::on_both_engines;
use crate::world::{SOON, World, built};

const FILTER: &str = "filter = 'data.total > 100 && data.country == \"DE\"'\n";
/// Events, and whether the filter lets them through.
const EVENTS: [(&str, &str, bool); 6] = [
    ("big", r#"{"event":"OrderCreated","order_id":"big","total":100.5,"country":"DE"}"#, true),
    ("small", r#"{"event":"OrderCreated","order_id":"small","total":100,"country":"DE"}"#, false),
    ("abroad", r#"{"event":"OrderCreated","order_id":"abroad","total":500,"country":"AT"}"#, false),
    ("nowhere", r#"{"event":"OrderCreated","order_id":"nowhere","total":500}"#, false),
    ("text", r#"{"event":"OrderCreated","order_id":"text","total":"500","country":"DE"}"#, false),
    ("unread", r#"{"event":"OrderCreated","order_id":"unread","total":500,"country":"DE","x":1e999}"#, true),
];

fn plug_logger_as(world: &World, name: &str, toml: &str) {
    let toml = format!("{toml}[config]\nformat = \"json\"\n");
    world.plug(name, &built("NOTIFY_TEST_PLUGINS", "logger.wasm"), &toml);
}

fn send(world: &World, events: &[&str]) {
    let file = world.path("events.jsonl");
    fs::write(&file, events.join("\n")).unwrap();
    let output = world.order_cli(&["send", file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn route(world: &World, event: &str, arguments: &[&str]) -> Output {
    let file = world.path("event.json");
    fs::write(&file, event).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_notify-host"));
    command.arg("route").arg("--event").arg(file).arg("--plugins").arg(world.plugins());
    if !arguments.contains(&"--config") {
        command.arg("--config").arg(world.path("host.toml"));
    }
    command.args(arguments).output().unwrap()
}

/// Returns `route`'s result for each plugin.
fn ways(world: &World, event: &str) -> Vec<serde_json::Value> {
    let output = route(world, event, &["--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

on_both_engines! {
    fn a_plugin_gets_what_its_filter_matches_and_route_says_so(world: &World) {
        plug_logger_as(world, "all", "");
        plug_logger_as(world, "logger", FILTER);
        let host = world.host();
        send(world, &EVENTS.map(|(_, event, _)| event));
        // "all" gets every event; matching events reach "logger" at the same time.
        eventually(SOON, "every event arrived", || host.said("all").len() == EVENTS.len());
        host.stop();
        let got = host.said("logger");
        for (name, _, wanted) in EVENTS {
            let subject = format!("\"subject\":\"{name}\"");
            let times = got.iter().filter(|(_, said)| said.contains(&subject)).count();
            assert_eq!(times, usize::from(wanted), "{name}: {}", host.child_guard.stderr());
        }
        assert_eq!(host.child_guard.stderr().matches("its filter does not fit this event").count(), 1);
        assert_eq!(host.child_guard.stderr().matches("its filter could not be asked, and it gets the event").count(), 1);
        for (name, event, wanted) in EVENTS {
            let ways = ways(world, event);
            assert_eq!((ways[0]["plugin"].as_str(), ways[0]["gets"].as_bool()), (Some("all"), Some(true)));
            assert_eq!((ways[1]["rule"].as_str(), ways[1]["gets"].as_bool()), (Some("filter"), Some(wanted)), "{name}");
        }
    }
}

#[test]
fn what_a_filter_does_not_fit_is_warned_of_once() {
    let world = World::on_sqlite();
    plug_logger_as(&world, "all", "");
    plug_logger_as(&world, "logger", FILTER);
    let host = world.host();
    for count in 1..=3 {
        let event = format!(r#"{{"event":"OrderCreated","order_id":"{count}","total":"much","country":"DE"}}"#);
        send(&world, &[&event]);
        eventually(SOON, "the event arrived", || host.said("all").len() == count);
    }
    host.stop();
    let log = host.child_guard.stderr();
    assert_eq!(log.matches("its filter does not fit this event").count(), 1, "{log}");
    assert_eq!(host.orders(), Vec::<String>::new());
}

#[test]
fn a_wrong_filter_is_told_with_line_and_column_and_leaves_the_others_running() {
    let world = World::on_sqlite();
    plug_logger_as(&world, "logger", "");
    plug_logger_as(&world, "wrong", "# by Ann\nfilter = 'data.total > 100 && cuntry == \"DE\"'\n");
    let host = world.host();
    assert!(
        host.logged("wrong.toml:2:31: filter: there is no \\\"cuntry\\\"; there are type,"),
        "{}",
        host.child_guard.stderr()
    );
    for id in world.order(&["demo"]) {
        host.wait_for_order(&id);
    }
    host.stop();
    let ways = ways(&world, EVENTS[0].1);
    assert_eq!(ways[1]["rule"], "not-loaded");
    assert!(ways[1]["because"].as_str().unwrap().contains("wrong.toml:2:31: filter: "), "{}", ways[1]);
}

#[test]
fn route_names_the_rule_for_every_plugin() {
    let world = World::on_sqlite();
    let asker = built("NOTIFY_TEST_GUESTS", "asker.wasm");
    let config = "[config]\nrecipients = [\"a@example.com\"]\n";
    world.plug("asks", &asker, config);
    world.plug("listens", &asker, &format!("[[subscriptions]]\nevent-type = \"#\"\nsource = \"shop\"\n{config}"));
    plug_logger_as(&world, "off", "enabled = false\n");
    plug_logger_as(&world, "with-all", "");
    plug_logger_as(&world, "with-some", FILTER);
    let event = r#"{"specversion":"1.0","id":"1","source":"bank","type":"OrderCreated","data":{"total":500}}"#;
    let output = route(&world, event, &[]);
    assert_eq!(
        String::from_utf8(output.stdout).unwrap().lines().collect::<Vec<_>>(),
        [
            "PLUGIN     GETS IT  BECAUSE",
            "asks       yes      subscription \"OrderCreated\" of the plugin itself",
            "listens    no       its toml subscribes it to other events: \"#\" with source \"shop\"",
            "off        no       its toml switches it off",
            "with-all   yes      it has no subscription, and gets every event",
            "with-some  no       filter data.total > 100 && data.country == \"DE\" does not match: it has no \"country\"",
        ]
    );
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("2 of 5 plugins would get event \"1\" of type \"OrderCreated\""), "{said}");
}

#[test]
fn route_reads_plain_json_by_the_hosts_rules() {
    let world = World::on_sqlite();
    plug_logger_as(&world, "logger", "[[subscriptions]]\nevent-type = \"order.*\"\nsource = \"shop\"\n");
    let event = r#"{"kind":"order.paid"}"#;
    let output = route(&world, event, &[]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("says nowhere what type of event it is") && said.contains("--routing-key"), "{said}");
    let output = route(&world, event, &["--routing-key", "order.created", "--exchange", "shop", "--json"]);
    let way: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&way["gets"], &way["subscription"]["event_type"]), (&true.into(), &"order.*".into()));
    fs::write(
        world.path("rules.toml"),
        "state = \"state\"\n[source]\nexchange = \"shop\"\n[decode]\ntype = [\"/kind\"]\n",
    )
    .unwrap();
    let output = route(&world, event, &["--config", world.path("rules.toml").to_str().unwrap(), "--json"]);
    let way: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(way["because"], "subscription \"order.*\" with source \"shop\" of its toml");
}
