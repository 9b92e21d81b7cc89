//! A message of any bytes is either handled or dead-lettered byte for byte.

use std::collections::BTreeMap;

use broker::{Message, Properties, Target, Value};

use crate::on_both_engines;

on_both_engines! {
    fn any_bytes_are_handled_or_dead_lettered_as_they_came(world: &World) {
        world.plug_logger();
        let host = world.host();
        let broker = world.broker();

        let mut wrong_headers = Message::json("{\"half\":");
        wrong_headers.properties.headers = BTreeMap::from([
            ("ce-specversion".to_owned(), Value::I32(7)),
            ("nothing".to_owned(), Value::Void),
            ("nested".to_owned(), Value::List(vec![Value::Bytes(vec![0, 255]), Value::F64(1.5_f64.to_bits())])),
        ]);
        let undecodable = [
            Message::default(),
            Message { body: vec![0xff, 0xfe, 0x00].into(), properties: Properties::default() },
            Message::json("{\"event\": \"Broken\""),
            Message::json("nonsense"),
            // Larger than one frame, and not JSON.
            Message { body: vec![b'x'; 16 << 20].into(), properties: Properties::default() },
            wrong_headers,
        ];
        let deep = format!("{{\"event\":\"Deep\",\"order_id\":\"deep\",\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let handled = [
            ("deep", Message::json(deep)),
            ("huge-number", Message::json("{\"event\":\"Huge\",\"order_id\":\"huge-number\",\"x\":1e999}")),
            ("twice", Message::json("{\"event\":\"A\",\"event\":\"B\",\"order_id\":\"twice\"}")),
        ];
        world.block_on(async {
            let target = Target::Exchange { exchange: &world.exchange, routing_key: "anything.at.all" };
            for message in undecodable.iter().chain(handled.iter().map(|(_, message)| message)) {
                broker.publish(target, message).await.unwrap();
            }
        });

        let letters = world.dead_letters(&broker, undecodable.len());
        for message in &undecodable {
            let letter = letters.iter().find(|letter| letter.message.body == message.body);
            let letter = letter.unwrap_or_else(|| panic!("no dead letter of {} bytes", message.body.len()));
            let headers = &letter.message.properties.headers;
            for (name, value) in &message.properties.headers {
                assert_eq!(headers.get(name), Some(value), "{name}");
            }
            assert!(headers.contains_key("x-notify-reason"), "{headers:?}");
            assert_eq!(headers.get("x-notify-routing-key"), Some(&Value::from("anything.at.all")));
        }
        for (order, _) in &handled {
            // The logger cannot parse the first two and logs them in another form. It only matters
            // that it received them.
            host.wait_for(order);
        }
        let id = world.order(&["create", "--user", "u", "--product", "p"]).remove(0);
        host.wait_for_order(&id);
        host.stop();
    }
}
