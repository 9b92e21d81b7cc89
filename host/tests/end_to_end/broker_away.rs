//! However RabbitMQ goes away, the host reports it once, reconnects by itself, and loses nothing.

use std::process::Command;
use std::time::Duration;

use testbed::proxy::{Mode, Proxy};
use testbed::rabbitmq::{self, Node};
use testbed::{ChildGuard, eventually};

use crate::world::{Host, SOON, World, built};

const COUNT: usize = 400;
const RATE: &str = "100";
const LOST: &str = "connecting again in";

/// Returns a world whose host connects through a proxy. order-cli connects directly.
fn world_through(proxy: &Proxy) -> World {
    let mut world = World::on_rabbitmq();
    world.host_url = format!("amqp://guest:guest@127.0.0.1:{}/%2F?heartbeat=2", proxy.port());
    world.plug_logger();
    world
}

fn load(world: &World) -> ChildGuard {
    let count = COUNT.to_string();
    ChildGuard::spawn(world.order_cli_command(&[
        "--quiet",
        "load",
        "--count",
        &count,
        "--rate",
        RATE,
        "--mix",
        "created=100",
    ]))
}

fn times(host: &Host, text: &str) -> usize {
    host.child_guard.stderr().lines().filter(|line| line.contains(text)).count()
}

/// Does `fault` in the middle of a load, and `heal` once the host has noticed.
fn survives(world: &World, fault: impl FnOnce(), heal: impl FnOnce()) -> Host {
    let host = world.host();
    let load = load(world);
    eventually(SOON, "it is in the middle of it", || host.orders().len() > COUNT / 10);
    fault();
    host.wait_for(LOST);
    heal();
    let status = load.wait_timeout(SOON).expect("the load ends");
    assert!(status.success(), "{}", load.stderr());
    eventually(SOON, "every order is handled", || host.distinct_orders().len() == COUNT);
    assert_eq!(times(&host, LOST), 1, "said once:\n{}", host.child_guard.stderr());
    assert_eq!(times(&host, "ready: "), 2);
    host.stop();
    assert_eq!(world.queue_state(&world.broker(), &world.queue).ready, 0);
    host
}

#[test]
fn a_connection_that_is_dropped() {
    let proxy = Proxy::to(rabbitmq::shared().port());
    survives(&world_through(&proxy), || proxy.drop_connections(), || {});
}

#[test]
fn a_connection_that_is_dropped_and_refused_for_a_while() {
    let proxy = Proxy::to(rabbitmq::shared().port());
    let world = world_through(&proxy);
    let fault = || {
        proxy.set(Mode::Refuse);
        proxy.drop_connections();
    };
    let host = survives(&world, fault, || {
        std::thread::sleep(Duration::from_secs(3));
        proxy.set(Mode::Forward);
    });
    assert_eq!(times(&host, "trying again until it works"), 1, "not at every try");
}

#[test]
fn a_connection_that_is_cut_in_the_middle_of_a_frame() {
    let proxy = Proxy::to(rabbitmq::shared().port());
    survives(&world_through(&proxy), || proxy.set(Mode::CutAfter(3)), || proxy.set(Mode::Forward));
}

#[test]
fn a_connection_that_is_silent() {
    let proxy = Proxy::to(rabbitmq::shared().port());
    survives(&world_through(&proxy), || proxy.set(Mode::Stall), || proxy.set(Mode::Forward));
}

#[test]
fn a_connection_that_is_half_open() {
    let proxy = Proxy::to(rabbitmq::shared().port());
    survives(&world_through(&proxy), || proxy.set(Mode::HalfOpen), || proxy.set(Mode::Forward));
}

#[test]
fn a_source_queue_that_is_deleted() {
    let world = World::on_rabbitmq();
    world.plug_logger();
    let host = world.host();
    world.order(&["demo"]);
    eventually(SOON, "it works", || host.orders().len() == 2);
    let node = rabbitmq::shared();
    node.ctl(&["delete_queue", &world.queue]);
    host.wait_for("the broker ended the consumer");
    eventually(SOON, "it is made anew", || times(&host, "ready: ") == 2);
    world.order(&["demo"]);
    eventually(SOON, "it goes on", || host.orders().len() == 4);
    host.stop();
}

#[test]
fn a_plugins_queue_that_is_deleted() {
    let world = World::on_rabbitmq();
    world.plug_misbehaver_with("twice", "");
    let host = world.host();
    rabbitmq::shared().ctl(&["delete_queue", &world.names().plugin("misbehaver-twice")]);
    host.wait_for("made it anew");
    world.order(&["demo"]);
    let successes = || host.said("misbehaver-twice").iter().filter(|(_, line)| line.starts_with("success")).count();
    eventually(SOON, "both get through", || successes() == 2);
    assert_eq!(times(&host, LOST), 0, "the others are not disturbed");
    host.stop();
}

#[test]
fn a_permission_that_is_revoked_and_given_back() {
    let node = Node::start();
    let world = World::new(tempfile::tempdir().unwrap(), node.url(), "orders".to_owned(), "notifications".to_owned());
    world.plug_logger();
    let host = world.host();
    node.ctl(&["clear_permissions", "-p", "/", "guest"]);
    node.ctl(&["close_all_connections", "for a test"]);
    host.wait_for("trying again until it works");
    node.ctl(&["set_permissions", "-p", "/", "guest", ".*", ".*", ".*"]);
    eventually(SOON, "it is back", || times(&host, "ready: ") == 2);
    for id in world.order(&["demo"]) {
        host.wait_for_order(&id);
    }
    host.stop();
}

#[test]
fn a_new_plugin_whose_queue_may_not_be_made() {
    let node = Node::start();
    let world = World::new(tempfile::tempdir().unwrap(), node.url(), "orders".to_owned(), "notifications".to_owned());
    world.plug_logger();
    let host = world.host();
    node.ctl(&["set_permissions", "-p", "/", "guest", "^$", ".*", ".*"]);
    world.plug("witness", &built("NOTIFY_TEST_GUESTS", "witness.wasm"), "[config]\nlabel = \"a\"\n");
    host.wait_for("it gets no events yet, for its queue cannot be made");
    // The next session also does without that queue.
    node.ctl(&["close_all_connections", "for a test"]);
    eventually(SOON, "it is back", || times(&host, "ready: ") == 2);
    for id in world.order(&["demo"]) {
        host.wait_for_order(&id);
    }
    let listed = String::from_utf8(world.plugin_command(&["list"]).stdout).unwrap();
    let state = |name: &str| listed.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(state("witness").contains(" waiting ") && state("logger").contains(" running "), "{listed}");
    node.ctl(&["set_permissions", "-p", "/", "guest", ".*", ".*", ".*"]);
    host.wait_for("gets events from now on");
    world.order(&["demo"]);
    eventually(SOON, "it sees both", || host.said("witness").len() == 2);
    host.stop();
}

#[test]
fn a_delivery_that_is_held_for_longer_than_the_broker_allows() {
    let node = Node::start();
    node.ctl(&["eval", "application:set_env(rabbit, consumer_timeout, 1000)."]);
    node.ctl(&["eval", "application:set_env(rabbit, channel_tick_interval, 1000)."]);
    let world = World::new(tempfile::tempdir().unwrap(), node.url(), "orders".to_owned(), "notifications".to_owned());
    world.plug_logger();
    let guest = built("NOTIFY_TEST_GUESTS", "misbehaver.wasm");
    // Only cancelled orders keep it busy.
    let toml = "[[subscriptions]]\nevent-type = \"OrderCanceled\"\n[retry]\nattempts = 1\n[limits]\ntime = \"6s\"\n[config]\nact = \"loop\"\n";
    world.plug("slow", &guest, toml);
    let host = world.host();
    let id = world.order(&["create", "--user", "u", "--product", "p"]).remove(0);
    host.wait_for_order(&id);
    world.order(&["cancel", &id]);
    host.wait_for(LOST);
    node.ctl(&["eval", "application:set_env(rabbit, consumer_timeout, 1800000)."]);
    eventually(SOON, "it is back", || times(&host, "ready: ") >= 2);
    let next = world.order(&["create", "--user", "u", "--product", "p"]).remove(0);
    host.wait_for_order(&next);
    // The event that was cut off is completed in a later session.
    world.dead_letters(&world.broker(), 1);
    host.stop();
}

#[test]
fn a_memory_alarm_holds_up_what_is_published_and_nothing_else() {
    let node = Node::start();
    let world = World::new(tempfile::tempdir().unwrap(), node.url(), "orders".to_owned(), "notifications".to_owned());
    world.plug_logger();
    // Every first attempt fails, so keep the breaker closed.
    world.plug_misbehaver_with("twice", "[breaker]\ncalls = 1000\n");
    // Publish while no host runs, so that events wait in the queue.
    world.host().stop();
    world.order(&["--quiet", "load", "--count", "20", "--mix", "created=100"]);
    node.ctl(&["set_vm_memory_high_watermark", "0.0000001"]);
    let host = world.host();
    eventually(SOON, "deliveries go on", || host.distinct_orders().len() == 20);
    host.wait_for("the broker takes no messages for now");
    let refused = world.order_cli(&["create", "--user", "u", "--product", "p", "--timeout", "2"]);
    assert_eq!(refused.status.code(), Some(1), "{}", String::from_utf8_lossy(&refused.stderr));
    assert!(refused.stdout.is_empty(), "nothing is reported as published");
    let successes = || host.said("misbehaver-twice").iter().filter(|(_, line)| line.starts_with("success")).count();
    assert_eq!(successes(), 0, "a retry must be published first");

    node.ctl(&["set_vm_memory_high_watermark", "0.4"]);
    host.wait_for("the broker takes messages again");
    eventually(SOON, "all get through", || successes() >= 20);
    assert_eq!(times(&host, LOST), 0);
    host.stop();
    assert_eq!(world.queue_state(&world.broker(), &world.queue).ready, 0);
}

#[test]
fn order_cli_reports_no_success_that_the_broker_did_not_confirm() {
    let proxy = Proxy::to(rabbitmq::shared().port());
    let world = world_through(&proxy);
    world.host().stop();
    let mut command = Command::new(built("NOTIFY_TEST_BIN", "order-cli"));
    command.args(["--broker", &world.host_url, "--exchange", &world.exchange, "--timeout", "3"]);
    command.args(["load", "--count", "100000", "--rate", "200", "--ids"]);
    let load = ChildGuard::spawn(command);
    // The report at the end is not an order id.
    let ids = || load.stdout().lines().filter(|line| uuid::Uuid::parse_str(line).is_ok()).count();
    eventually(SOON, "it is in the middle of it", || ids() > 50);
    proxy.set(Mode::Stall);
    let status = load.wait_timeout(SOON).expect("it gives up");
    assert_eq!(status.code(), Some(1), "{}", load.stderr());
    let broker = world.broker();
    let there = || world.queue_state(&broker, &world.queue).ready;
    eventually(SOON, "all that was reported is there", || there() >= ids() as u64);
}
