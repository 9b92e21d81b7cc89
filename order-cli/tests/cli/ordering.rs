//! One order and its later events.

use uuid::Uuid;

use crate::bed::{Bed, bodies, json};

pub(crate) async fn an_order_arrives_as_flat_json_with_its_properties(bed: Bed) {
    let broker = bed.declare().await;
    let ran = bed.run(&["create", "--user", "user123", "--product", "iPhone 15"]).await;
    let [id] = ran.lines()[..] else { panic!("{}", ran.stdout) };
    Uuid::parse_str(id).unwrap();

    let deliveries = bed.take(&broker, 1).await;
    let body = format!(r#"{{"event":"OrderCreated","order_id":"{id}","user_id":"user123","product":"iPhone 15"}}"#);
    assert_eq!(bodies(&deliveries), [body]);
    let properties = &deliveries[0].message.properties;
    assert_eq!(properties.content_type.as_deref(), Some("application/json"));
    assert_eq!(properties.message_type.as_deref(), Some("OrderCreated"));
    assert_eq!(properties.app_id.as_deref(), Some("order-cli"));
    assert!(properties.timestamp.is_some());
    let message_id = Uuid::parse_str(properties.message_id.as_deref().unwrap()).unwrap();
    assert_eq!(message_id.get_version_num(), 7);
}

pub(crate) async fn each_status_has_its_own_event_and_routing_key(bed: Bed) {
    let broker = bed.declare().await;
    let commands = [
        ("create", "OrderCreated", "order.created"),
        ("pay", "OrderPaid", "order.paid"),
        ("ship", "OrderShipped", "order.shipped"),
        ("deliver", "OrderDelivered", "order.delivered"),
        ("cancel", "OrderCanceled", "order.canceled"),
        ("refund", "OrderRefunded", "order.refunded"),
    ];
    for (command, ..) in commands {
        let order: &[&str] = if command == "create" { &["--order-id", "4711"] } else { &["4711"] };
        let ran = bed.run(&[&[command, "--user", "u", "--product", "p"], order].concat()).await;
        assert_eq!(ran.lines(), ["4711"]);
    }
    let deliveries = bed.take(&broker, commands.len()).await;
    for (delivery, (_, event, routing_key)) in deliveries.iter().zip(commands) {
        assert_eq!(delivery.routing_key, routing_key);
        assert_eq!(json(&delivery.message.body)["event"], event);
    }
}

pub(crate) async fn the_demo_is_the_two_orders_of_the_tutorial(bed: Bed) {
    let broker = bed.declare().await;
    let ran = bed.run(&["demo"]).await;
    let ids = ran.lines();
    let orders: Vec<_> = bodies(&bed.take(&broker, 2).await).iter().map(json).collect();
    for (order, (id, user, product)) in
        orders.iter().zip([(ids[0], "user123", "iPhone 15"), (ids[1], "user456", "MacBook Pro")])
    {
        assert_eq!(order["event"], "OrderCreated");
        assert_eq!(
            (&order["order_id"], &order["user_id"], &order["product"]),
            (&id.into(), &user.into(), &product.into())
        );
    }
}

pub(crate) async fn json_output_says_what_was_published(bed: Bed) {
    let broker = bed.declare().await;
    let ran = bed.run(&["cancel", "4711", "--json"]).await;
    let shown = json(ran.lines()[0]);
    let deliveries = bed.take(&broker, 1).await;
    assert_eq!(shown["event"], "OrderCanceled");
    assert_eq!(shown["order_id"], "4711");
    assert_eq!(shown["routing_key"], "order.canceled");
    assert_eq!(shown["message_id"].as_str(), deliveries[0].message.properties.message_id.as_deref());
    assert_eq!(bed.run(&["cancel", "4711", "--quiet"]).await.lines(), Vec::<&str>::new());
}

pub(crate) async fn a_missing_exchange_is_one_sentence(bed: Bed) {
    let ran = bed.run(&["demo"]).await;
    let sentence = ran.sentence(1);
    assert!(sentence.contains(&format!("no exchange {:?}", bed.exchange)), "{sentence}");
    assert!(sentence.contains("notify-host"), "{sentence}");
    assert_eq!(ran.stdout, "");
}

pub(crate) async fn an_order_that_no_queue_takes_is_one_sentence(bed: Bed) {
    let broker = bed.declare_for("parcel.*").await;
    let ran = bed.run(&["pay", "4711"]).await;
    let sentence = ran.sentence(1);
    assert!(sentence.starts_with("no queue takes messages") && sentence.contains("\"order.paid\""), "{sentence}");
    bed.take(&broker, 0).await;
}
