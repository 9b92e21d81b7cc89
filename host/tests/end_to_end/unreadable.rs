//! Messages with properties that no client library can read. RabbitMQ accepts them from any publisher.

use std::fs;

use broker::{Target, Value};
use serde_json::json;
use testbed::rabbitmq::{self, Node};
use testbed::raw_publisher::{RawPublisher, headers_and_id, nested_entry, short};
use testbed::receiver::Authority;
use testbed::{ChildGuard, eventually};

use crate::world::{Host, SOON, World};

fn order(id: &str) -> String {
    json!({"event": "OrderCreated", "order_id": id}).to_string()
}

/// Returns the dead letters as JSON.
fn letters(world: &World) -> Vec<serde_json::Value> {
    let output = world.host_command(&["dead-letters", "list", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn show(world: &World, id: &str) -> serde_json::Value {
    let output = world.host_command(&["dead-letters", "show", id, "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_message_that_cannot_be_read_is_a_dead_letter_and_all_others_are_handled() {
    let world = World::on_rabbitmq();
    world.plug_logger();
    let host = world.host();
    let mut publisher = RawPublisher::connect(rabbitmq::shared().port());
    let mut publish = |routing_key: &[u8], properties: &[u8], body: &str| {
        publisher.publish(world.exchange.as_bytes(), routing_key, properties, body.as_bytes());
    };
    // A publisher that encodes text as Latin-1.
    let latin_1 = [&short(b"gr\xfc\xdfe")[..], b"V"].concat();
    publish(b"order.\xe4", &headers_and_id(&latin_1, b"K\xf6ln-1"), &order("latin-1"));
    for (levels, id) in [(2_000, &b"deep-1"[..]), (26_000, b"deep-2")] {
        let entries = [&short(b"good")[..], b"t\x01", &nested_entry(b"deep", levels)].concat();
        publish(b"order.created", &headers_and_id(&entries, id), &order("deep"));
    }
    publish(b"order.created", &[0, 0], &order("plain"));
    host.wait_for_order("plain");
    host.wait_for_order("latin-1");
    assert!(host.logged("Köln-1"), "its id is mended");

    eventually(SOON, "both are dead", || letters(&world).len() == 3);
    assert!(!host.logged("connecting again"), "{}", host.child_guard.stderr());
    let find = |code: &str, bytes: usize| {
        let all = letters(&world);
        let found = all.iter().find(|letter| letter["code"] == code && letter["bytes"] == bytes);
        found.unwrap_or_else(|| panic!("no {code} of {bytes} bytes in {all:?}"))["id"].as_str().unwrap().to_owned()
    };
    let large = headers_and_id(&[&short(b"good")[..], b"t\x01", &nested_entry(b"deep", 26_000)].concat(), b"deep-2");
    let raw = show(&world, &find("raw-properties", large.len()));
    for letter in letters(&world).iter().filter(|letter| letter["code"] == "unreadable-properties") {
        let shown = show(&world, letter["id"].as_str().unwrap());
        assert_eq!(shown["data"], json!({"event": "OrderCreated", "order_id": "deep"}));
        assert_eq!((&shown["headers"]["good"], shown["headers"].get("deep")), (&json!(true), None));
        assert_eq!(shown["letter"]["reason"], "its header \"deep\" cannot be read: it is nested deeper than 32 levels");
        if shown["properties"]["message_id"] == "deep-1" {
            assert!(shown["raw_properties_base64"].as_str().unwrap().len() > 10_000, "{shown}");
        } else {
            assert_eq!(shown["properties"]["message_id"], "deep-2");
            assert_eq!(shown["raw_properties_sha256"], raw["raw_properties_sha256"]);
        }
    }
    let bytes: Vec<u8> = serde_json::from_value(raw["bytes"].clone()).unwrap();
    assert_eq!(bytes, large, "byte for byte");
    let explained = world.journal_command(&["explain", "deep-2"]);
    let explained = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(explained.contains("nested deeper than 32 levels"), "{explained}");

    // A replayed dead letter is an ordinary event, without the unreadable properties. The raw
    // properties hold no event.
    let replay = |code: &str| {
        world.host_command(&["dead-letters", "replay", "--reason", code, "--yes", "--json"]).output().unwrap()
    };
    let replayed = replay("unreadable-properties");
    assert!(replayed.status.success(), "{}", String::from_utf8_lossy(&replayed.stderr));
    eventually(SOON, "both are handled", || host.orders().iter().filter(|order| *order == "deep").count() == 2);
    assert!(!replay("raw-properties").status.success(), "there is no event in it");
    assert_eq!(letters(&world).len(), 1);
    host.stop();
}

#[test]
fn a_message_that_cannot_be_read_stops_no_backlog_and_no_look_at_the_dead_letters() {
    let world = World::on_rabbitmq();
    world.plug_logger();
    let host = world.host();
    let (backlog, dead) = (world.names().plugin("logger"), world.names().dead());
    let mut publisher = RawPublisher::connect(rabbitmq::shared().port());
    // Publish straight to the queues, which no publisher should do.
    let deep = headers_and_id(&nested_entry(b"deep", 5_000), b"\xff");
    publisher.publish(b"", backlog.as_bytes(), &deep, order("deep").as_bytes());
    publisher.publish(b"", dead.as_bytes(), &deep, order("dead").as_bytes());
    publisher.publish(b"", backlog.as_bytes(), &headers_and_id(b"", b"\xe4"), order("readable").as_bytes());
    host.wait_for_order("readable");
    eventually(SOON, "both are there to be seen", || letters(&world).len() == 2);
    host.stop();

    // Other clients can read everything that the host wrote.
    let broker = world.broker();
    let letters = world.dead_letters(&broker, 2);
    let written =
        letters.iter().find(|letter| letter.message.properties.headers.contains_key("x-notify-code")).unwrap();
    assert_eq!(written.unreadable, None);
    assert_eq!(written.message.properties.message_id.as_deref(), Some("ÿ"));
    assert_eq!(written.message.properties.headers["x-notify-raw-properties"], Value::Bytes(deep));
    world.block_on(broker.publish(Target::Queue(&dead), &written.message)).unwrap();
}

#[test]
fn the_guard_sits_above_tls() {
    let authority = Authority::new();
    let (node, port) = Node::start_with_tls(&authority.issue("localhost"));
    let folder = tempfile::tempdir().unwrap();
    let url = format!("amqps://guest:guest@localhost:{port}");
    let mut world = World::new(folder, node.url(), "orders".to_owned(), "notifications".to_owned());
    world.host_url = url;
    world.plug_logger();
    fs::write(world.path("authority.pem"), authority.pem()).unwrap();
    let mut command = world.host_command(&["run", "--log-format", "json"]);
    command.arg("--plugins").arg(world.plugins()).env("SSL_CERT_FILE", world.path("authority.pem"));
    let host = Host { child_guard: ChildGuard::spawn(command) };
    host.wait_for("ready: ");
    let mut publisher = RawPublisher::connect(node.port());
    publisher.publish(b"orders", b"order.\xff", &headers_and_id(b"", b"\xe4"), order("latin-1").as_bytes());
    publisher.publish(b"orders", b"order.created", &headers_and_id(&nested_entry(b"deep", 9_000), b"2"), b"{}");
    publisher.publish(b"orders", b"order.created", &[0, 0], order("plain").as_bytes());
    host.wait_for_order("latin-1");
    host.wait_for_order("plain");
    let broker = world.broker();
    eventually(SOON, "one is dead", || world.queue_state(&broker, &world.names().dead()).ready == 1);
    host.stop();
}
