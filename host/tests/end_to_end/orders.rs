//! The main job: an order reaches the plugins on either broker.

use std::time::Duration;

use testbed::eventually;

use crate::on_both_engines;
use crate::world::{SOON, World, built};

on_both_engines! {
    fn the_tutorials_orders_reach_the_logger(world: &World) {
        let template = include_str!("../../../plugins/logger/examples/tutorial.toml");
        world.plug("logger", &built("NOTIFY_TEST_PLUGINS", "logger.wasm"), template);
        let host = world.host();
        let ids = world.order(&["demo"]);
        assert_eq!(ids.len(), 2);
        for (id, user, product) in [(&ids[0], "user123", "iPhone 15"), (&ids[1], "user456", "MacBook Pro")] {
            // JSON escapes the line ends.
            host.wait_for(&format!(
                "[Notification Service] Получено событие: OrderCreated\\nЗаказ #{id} от пользователя {user}\\n\
                 Товар: {product}\\nОтправляем email-уведомление..."
            ));
        }
        host.stop();
    }

    fn every_status_of_an_order_is_an_event_of_its_own(world: &World) {
        world.plug_logger();
        let host = world.host();
        let id = world.order(&["create", "--user", "u", "--product", "p"]).remove(0);
        world.order(&["pay", &id]);
        world.order(&["ship", &id]);
        world.order(&["cancel", &id]);
        eventually(SOON, "all four events", || host.orders().len() == 4);
        for event in ["OrderCreated", "OrderPaid", "OrderShipped", "OrderCanceled"] {
            assert!(host.logged(event), "{event}");
        }
        host.stop();
    }

    fn two_hosts_on_one_queue_share_the_work(world: &World) {
        const COUNT: usize = 400;
        world.plug_logger();
        let hosts = [world.host(), world.host()];
        world.order(&["--quiet", "load", "--count", &COUNT.to_string(), "--rate", "400", "--mix", "created=100"]);
        eventually(SOON, "every order is handled", || hosts.iter().map(|host| host.orders().len()).sum::<usize>() >= COUNT);
        for host in &hosts {
            host.stop();
        }
        let (one, two) = (hosts[0].distinct_orders(), hosts[1].distinct_orders());
        assert_eq!(hosts[0].orders().len() + hosts[1].orders().len(), COUNT, "each is handled once");
        assert!(one.is_disjoint(&two));
        assert!(!one.is_empty() && !two.is_empty(), "{} and {}", one.len(), two.len());
    }

    fn what_was_published_while_no_host_ran_is_handled_when_one_starts(world: &World) {
        world.plug_logger();
        world.host().stop();
        let ids = world.order(&["demo"]);
        let host = world.host();
        for id in &ids {
            host.wait_for_order(id);
        }
        host.stop();
        let state = world.queue_state(&world.broker(), &world.queue);
        assert_eq!((state.ready, state.consumers), (0, 0), "acknowledged, and nobody left behind");
    }
}

#[test]
fn a_core_module_is_a_plugin_too() {
    let world = World::on_sqlite();
    world.plug("logger", &built("NOTIFY_TEST_PLUGINS_CORE", "logger.wasm"), "");
    let host = world.host();
    let ids = world.order(&["demo"]);
    host.wait_for(&format!("OrderCreated {}: product iPhone 15, user_id user123", ids[0]));
    host.stop();
}

#[test]
fn a_host_waits_for_its_broker_and_gives_up_only_if_told_to() {
    let port = testbed::free_port();
    let world = World::new(
        tempfile::tempdir().unwrap(),
        format!("amqp://guest:secret@127.0.0.1:{port}/"),
        "orders".to_owned(),
        "notifications".to_owned(),
    );
    let patient = world.host_with(&[]);
    let hasty = world.host_with(&["--broker-timeout", "1s"]);
    let status = hasty.child_guard.wait_timeout(SOON).expect("it gives up");
    assert_eq!(status.code(), Some(1));
    assert!(
        hasty.logged(&format!("cannot reach the broker at amqp://guest:***@127.0.0.1:{port}")),
        "{}",
        hasty.child_guard.stderr()
    );
    assert!(!hasty.logged("secret"));
    patient.wait_for("trying again until it works");
    assert!(patient.child_guard.wait_timeout(Duration::ZERO).is_none(), "it goes on");
    patient.stop();
}
