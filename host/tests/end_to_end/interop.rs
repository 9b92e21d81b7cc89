//! Exchanges messages with the tutorial's Python scripts (pika), in both directions.

use std::process::Command;

use testbed::{ChildGuard, eventually, rabbitmq};

use crate::world::{SOON, World};

fn script(name: &str, arguments: &[&str]) -> Command {
    let python = std::env::var_os("NOTIFY_TEST_PYTHON");
    let python = python.expect("NOTIFY_TEST_PYTHON is not set: run the tests by `cargo xtask test`");
    let mut command = Command::new(python);
    command.arg(format!("{}/tests/interop/{name}", env!("CARGO_MANIFEST_DIR"))).args(arguments);
    command
}

/// The tutorial's names are `orders` and `notifications`, so this needs a node of its own.
#[test]
fn the_tutorials_scripts_understand_us_and_we_them() {
    let node = rabbitmq::Node::start();
    let world = World::new(tempfile::tempdir().unwrap(), node.url(), "orders".to_owned(), "notifications".to_owned());
    world.plug_logger();
    let port = node.port().to_string();

    // The publisher declares a non-durable fanout exchange and queue, and sends plain JSON without properties.
    let published = script("publisher.py", &["--port", &port, "--count", "3"]).output().unwrap();
    assert!(published.status.success(), "{}", String::from_utf8_lossy(&published.stderr));
    let host = world.host();
    eventually(SOON, "the publisher's orders are handled", || host.orders().len() == 3);
    assert!(host.logged("do not survive") || host.logged("not durable"), "{}", host.child_guard.stderr());
    host.stop();

    let consumer = ChildGuard::spawn(script("consumer.py", &["--port", &port, "--count", "2"]));
    let ids = world.order(&["demo"]);
    let status = consumer.wait_timeout(SOON).expect("the consumer gets its two orders");
    assert!(status.success(), "{}", consumer.stderr());
    for text in [ids[0].as_str(), &ids[1], "OrderCreated", "user123", "iPhone 15", "user456", "MacBook Pro"] {
        assert!(consumer.stdout().contains(text), "{text} in:\n{}", consumer.stdout());
    }
}
