//! Only the plugin that failed gets the event again, later, across restarts of host and broker.

use std::time::Duration;

use broker::RetryTier;
use testbed::eventually;
use testbed::rabbitmq::{Node, let_new_queues_settle};

use crate::on_both_engines;
use crate::world::{SOON, World};

/// Maximum delay of a due message on a busy machine.
const HAND_OUT: Duration = Duration::from_secs(3);

on_both_engines! {
    fn only_the_plugin_that_failed_is_tried_again(world: &World) {
        world.plug_logger();
        world.plug_misbehaver("skip");
        world.plug_misbehaver_with("twice", "");
        let host = world.host();
        let ids = world.order(&["demo"]);
        let twice = |what: &str| {
            host.said("misbehaver-twice").iter().filter(|(_, line)| line.starts_with(what)).count()
        };
        eventually(SOON, "both succeed", || twice("success") == ids.len());
        host.stop();
        assert_eq!(twice("call"), 2 * ids.len(), "two failures each");
        assert_eq!(twice("success"), ids.len());
        let mut orders = host.orders();
        orders.sort();
        let mut expected = ids.clone();
        expected.sort();
        assert_eq!(orders, expected, "the logger was called once for each");
        let broker = world.broker();
        for queue in [world.queue.clone(), world.names().plugin("misbehaver-twice"), world.names().dead()] {
            let state = world.queue_state(&broker, &queue);
            assert_eq!((state.ready, state.delayed), (0, 0), "{queue}");
        }
    }

    fn what_is_used_up_is_a_dead_letter_with_its_history(world: &World) {
        world.plug_misbehaver_with("retry", "[retry]\nattempts = 2\n");
        let host = world.host();
        world.order(&["create", "--user", "u", "--product", "p"]);
        let broker = world.broker();
        let letter = world.dead_letters(&broker, 1).remove(0);
        let headers = &letter.message.properties.headers;
        let header = |name: &str| headers.get(name).and_then(broker::Value::to_text).unwrap_or_default();
        assert_eq!(header("x-notify-attempts"), "2");
        assert_eq!(header("x-notify-given-up"), "attempts-used-up");
        assert_eq!(header("x-notify-reason"), "told to try again");
        assert_eq!(header("x-notify-routing-key"), "order.created");
        let at = |name: &str| header(name).parse::<i64>().unwrap();
        assert!(at("x-notify-last-at") >= at("x-notify-first-at") + 1000, "a second was waited");
        assert!(!headers.contains_key("x-death"), "our own queues leave no trace");
        host.stop();
    }
}

#[test]
fn on_a_file_a_wait_survives_the_host() {
    let world = World::on_sqlite();
    a_wait_survives(&world, || {});
}

#[test]
fn on_rabbitmq_a_wait_survives_host_and_broker() {
    let node = Node::start();
    let world = World::new(tempfile::tempdir().unwrap(), node.url(), "orders".to_owned(), "notifications".to_owned());
    a_wait_survives(&world, || {
        let_new_queues_settle();
        node.kill();
        node.start_again();
    });
}

/// Checks that an event fails once, waits across the restart, and is tried again at its time.
fn a_wait_survives(world: &World, restart: impl Fn()) {
    let wait = Duration::from_secs(20);
    world.plug_misbehaver_with("twice", "[retry]\npause-min = \"20s\"\n");
    let attempts = |host: &crate::world::Host| {
        let mut said = host.said("misbehaver-twice");
        said.retain(|(_, line)| line.starts_with("call "));
        said
    };
    let first = world.host();
    world.order(&["create", "--user", "u", "--product", "p"]);
    eventually(SOON, "the first attempt", || attempts(&first).len() == 1);
    first.wait_for("attempt 1 of 8 failed");
    let (failed_at, _) = attempts(&first).remove(0);
    first.stop();
    restart();
    let second = world.host();
    eventually(SOON, "the second attempt", || !attempts(&second).is_empty());
    let (at, line) = attempts(&second).remove(0);
    assert!(line.starts_with("call 2"), "{line}");
    let waited = Duration::try_from(at.duration_since(failed_at)).unwrap();
    // Jitter may add half of the wait.
    let latest = RetryTier::for_delay(wait * 3 / 2).delay() + HAND_OUT;
    assert!(waited >= wait, "too early: {waited:?}");
    assert!(waited <= latest, "too late: {waited:?}");
    second.stop();
}
