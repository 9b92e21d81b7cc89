//! An event that is published twice is delivered once, unless deduplication is switched off.

use std::fs;

use broker::{Message, Target};
use testbed::eventually;

use crate::on_both_engines;
use crate::world::{SOON, World};

fn publish_twice(world: &World, message: &Message) {
    let broker = world.broker();
    let target = Target::Exchange { exchange: &world.exchange, routing_key: "order.created" };
    for _ in 0..2 {
        world.block_on(broker.publish(target, message)).unwrap();
    }
}

fn order(id: &str) -> Message {
    Message::json(format!(r#"{{"event":"OrderCreated","order_id":"{id}"}}"#))
}

on_both_engines! {
    fn an_event_that_comes_twice_is_delivered_once(world: &World) {
        world.plug_logger();
        let host = world.host();
        let mut with_id = order("with-id");
        with_id.properties.message_id = Some("1".to_owned());
        publish_twice(world, &with_id);
        // Without an id the two may be separate events.
        publish_twice(world, &order("without-id"));
        eventually(SOON, "all are handled", || host.orders().len() == 3);
        host.stop();
        let mut orders = host.orders();
        orders.sort();
        assert_eq!(orders, ["with-id", "without-id", "without-id"]);
        assert!(host.logged("events that came twice were delivered once"));
    }

    fn the_suppression_of_duplicates_can_be_switched_off(world: &World) {
        world.plug_logger();
        let config = fs::read_to_string(world.path("host.toml")).unwrap();
        fs::write(world.path("host.toml"), format!("duplicates-window = \"0s\"\n{config}")).unwrap();
        let host = world.host();
        let mut message = order("again");
        message.properties.message_id = Some("1".to_owned());
        publish_twice(world, &message);
        eventually(SOON, "both are handled", || host.orders() == ["again", "again"]);
        host.stop();
    }
}
