//! A load of order-cli reaches no plugin unless a host is pointed at it on purpose.

use std::collections::BTreeSet;
use std::process::Command;

use testbed::{eventually, rabbitmq};

use crate::world::{Host, SOON, World, built};

const COUNT: usize = 100;
const OWN: &str = "order-cli.load";

/// Returns the ids of a load that names no exchange, on a machine where everything else uses `orders`.
fn load(world: &World) -> BTreeSet<String> {
    let mut command = Command::new(built("NOTIFY_TEST_BIN", "order-cli"));
    command.args(["load", "--count", &COUNT.to_string(), "--mix", "created=1", "--ids"]);
    let output = command.env("NOTIFY_BROKER", &world.url).env("NOTIFY_EXCHANGE", &world.exchange).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().take(COUNT).map(str::to_owned).collect()
}

fn check(world: &World) {
    world.plug_logger();
    let host = world.host();
    load(world);
    // If the load had come to the same queue, its events would arrive before this order.
    let real = world.order(&["create", "--user", "u", "--product", "p"]).remove(0);
    host.wait_for_order(&real);
    assert_eq!(host.distinct_orders(), BTreeSet::from([real.clone()]));

    // As docs/operating.md describes.
    let mut command = world.host_command(&["run", "--log-format", "json", "--admin", "off"]);
    command.arg("--plugins").arg(world.plugins()).arg("--state").arg(world.path("measured-state"));
    command.env("NOTIFY_SOURCE_EXCHANGE", OWN).env("NOTIFY_SOURCE_QUEUE", OWN);
    let measured = Host { child_guard: testbed::ChildGuard::spawn(command) };
    eventually(SOON, "the second host is ready", || measured.logged("ready: "));
    let ids = load(world);
    eventually(SOON, "the second host has the whole load", || measured.distinct_orders() == ids);
    assert_eq!(host.distinct_orders(), BTreeSet::from([real]));
    measured.stop();
    host.stop();
}

#[test]
fn a_load_reaches_no_plugin_of_a_running_host_on_sqlite() {
    check(&World::on_sqlite());
}

/// The load's queue has a fixed name, so this needs a node of its own.
#[test]
fn a_load_reaches_no_plugin_of_a_running_host_on_rabbitmq() {
    let node = rabbitmq::Node::start();
    let folder = tempfile::tempdir().unwrap();
    check(&World::new(folder, node.url(), "orders".to_owned(), "notifications".to_owned()));
}
