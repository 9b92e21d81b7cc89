//! The meaning of a publish that has returned.

use std::time::Duration;

use broker::{BrokerError, ExchangeKind, Headers, Message, Properties, PublishError, QueueNames, Target, Value};
use futures_util::future::join_all;

use crate::bed::{Bed, bodies, body, eventually, next, stays_quiet, take, text};

pub(crate) async fn a_message_arrives_once_and_is_gone_after_its_ack(bed: Bed) {
    let broker = bed.open().await;
    bed.publish(&broker, "one").await;
    let mut consumer = bed.consume(&broker, 10).await;
    let delivery = next(&mut consumer).await;
    assert_eq!(body(&delivery), "one");
    assert_eq!((delivery.exchange.as_str(), delivery.routing_key.as_str()), (bed.name.as_str(), "order.created"));
    assert!(!delivery.redelivered);
    delivery.receipt.ack();
    stays_quiet(&mut consumer).await;
    consumer.close().await.unwrap();
    assert_eq!(bed.state(&broker).await.ready, 0);
}

pub(crate) async fn every_property_header_and_byte_arrives_as_it_was_sent(bed: Bed) {
    let broker = bed.open().await;
    let headers: Headers = [
        ("void", Value::Void),
        ("bool", Value::Bool(true)),
        ("i8", Value::I8(i8::MIN)),
        ("u8", Value::U8(u8::MAX)),
        ("i16", Value::I16(i16::MIN)),
        ("u16", Value::U16(u16::MAX)),
        ("i32", Value::I32(i32::MIN)),
        ("u32", Value::U32(u32::MAX)),
        ("i64", Value::I64(i64::MIN)),
        ("f32", Value::F32(1.5_f32.to_bits())),
        ("f64", Value::F64((-0.0_f64).to_bits())),
        ("decimal", Value::Decimal(2, 314)),
        ("text", Value::Text("Заказ".to_owned())),
        ("not utf-8", Value::LongString(vec![0xff, 0x00])),
        ("bytes", Value::Bytes(vec![0, 1, 255])),
        ("timestamp", Value::Timestamp(1_700_000_000)),
        ("list", Value::List(vec![Value::Void, Value::Table([("deep".to_owned(), Value::List(vec![]))].into())])),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let properties = Properties {
        content_type: Some("application/json".to_owned()),
        content_encoding: Some("identity".to_owned()),
        headers,
        priority: Some(4),
        correlation_id: Some("correlation".to_owned()),
        reply_to: Some("reply".to_owned()),
        expiration: Some("3600000".to_owned()),
        message_id: Some("id".repeat(127)),
        timestamp: Some(1_700_000_001),
        message_type: Some("OrderCreated".to_owned()),
        user_id: Some("guest".to_owned()),
        app_id: Some("shop".to_owned()),
        cluster_id: Some("cluster".to_owned()),
    };
    let mebibyte: Vec<u8> = (0..1_u32 << 20).map(|at| at.wrapping_mul(31).to_le_bytes()[0]).collect();
    let messages = [
        Message { body: "{}".into(), properties },
        Message::default(),
        Message { body: mebibyte.into(), ..Message::default() },
        Message { body: vec![0xff, 0x00, 0xfe].into(), ..Message::default() },
        Message { body: vec![b'x'; 3 << 20].into(), ..Message::default() },
    ];
    let mut consumer = bed.consume(&broker, 10).await;
    for message in messages {
        let target = Target::Exchange { exchange: &bed.name, routing_key: "order.created" };
        broker.publish(target, &message).await.unwrap();
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.message.properties, message.properties);
        assert!(delivery.message.body == message.body, "a body of {} bytes changed", message.body.len());
        delivery.receipt.ack();
    }
}

pub(crate) async fn messages_arrive_in_the_order_in_which_they_were_published(bed: Bed) {
    let broker = bed.open().await;
    let sent: Vec<_> = (0..200).map(|number| number.to_string()).collect();
    for body in &sent {
        bed.publish(&broker, body.as_str()).await;
    }
    let mut consumer = bed.consume(&broker, 300).await;
    assert_eq!(bodies(&take(&mut consumer, sent.len()).await), sent);
}

pub(crate) async fn messages_that_are_published_at_once_arrive_in_the_order_in_which_that_began(bed: Bed) {
    let broker = bed.open().await;
    let sent: Vec<_> = (0..2000).map(|number| number.to_string()).collect();
    join_all(sent.iter().map(|body| bed.publish(&broker, body.as_str()))).await;
    let mut consumer = bed.consume(&broker, 3000).await;
    assert_eq!(bodies(&take(&mut consumer, sent.len()).await), sent);
}

pub(crate) async fn what_no_queue_takes_is_an_error(bed: Bed) {
    let broker = bed.connect().await;
    broker.declare_source(&bed.source(ExchangeKind::Topic, &["order.*"])).await.unwrap();
    let target = Target::Exchange { exchange: &bed.name, routing_key: "invoice.created" };
    let error = broker.publish(target, &text("{}")).await.unwrap_err();
    assert!(
        matches!(&error, PublishError::Unroutable { exchange, routing_key }
            if *exchange == bed.name && routing_key == "invoice.created"),
        "{error}"
    );
    bed.publish(&broker, "this one is fine").await;
}

pub(crate) async fn a_missing_exchange_or_queue_is_an_error(bed: Bed) {
    let broker = bed.open().await;
    let names = QueueNames::new("absent");
    for (target, expected) in [
        (Target::Exchange { exchange: "absent", routing_key: "order.created" }, ("exchange", "absent")),
        (Target::Queue("absent"), ("queue", "absent")),
        (Target::Exchange { exchange: "", routing_key: "absent" }, ("queue", "absent")),
    ] {
        let error = broker.publish(target, &text("{}")).await.unwrap_err();
        let PublishError::NotFound { what, name } = &error else { panic!("{error}") };
        assert_eq!((*what, name.as_str()), expected);
    }
    let later = Target::PluginLater { names: &names, plugin: "logger", delay: Duration::from_secs(1) };
    let error = broker.publish(later, &text("{}")).await.unwrap_err();
    assert!(matches!(error, PublishError::NotFound { .. }), "{error}");
    bed.publish(&broker, "this one is fine").await;
}

pub(crate) async fn a_name_that_is_too_long_is_refused(bed: Bed) {
    let broker = bed.open().await;
    let long = "k".repeat(256);
    let error = broker.publish(Target::Exchange { exchange: &bed.name, routing_key: &long }, &text("{}")).await;
    let error = error.unwrap_err();
    assert!(matches!(error, PublishError::Refused(_)), "{error}");
    let error = error.to_string();
    assert!(error.contains("routing key has 256 bytes, and may have 255"), "{error}");
    let longest = &long[1..];
    broker.publish(Target::Exchange { exchange: &bed.name, routing_key: longest }, &text("{}")).await.unwrap();
}

pub(crate) async fn a_bad_publish_among_many_fails_alone(bed: Bed) {
    const COUNT: usize = 3000;
    let broker = bed.connect().await;
    broker.declare_source(&bed.source(ExchangeKind::Topic, &["order.*"])).await.unwrap();
    let publishes = (0..COUNT).map(|number| {
        let (broker, bed) = (&broker, &bed);
        async move {
            let target = match number % 7 {
                0 => Target::Exchange { exchange: &bed.name, routing_key: "invoice" },
                1 if number % 100 == 1 => Target::Exchange { exchange: "absent", routing_key: "order.created" },
                _ => Target::Exchange { exchange: &bed.name, routing_key: "order.created" },
            };
            (number, broker.publish(target, &text(number.to_string())).await)
        }
    });
    let mut expected = Vec::new();
    for (number, result) in join_all(publishes).await {
        match number % 7 {
            0 => assert!(matches!(result, Err(PublishError::Unroutable { .. })), "{number}: {result:?}"),
            1 if number % 100 == 1 => {
                assert!(matches!(result, Err(PublishError::NotFound { .. })), "{number}: {result:?}");
            }
            _ => {
                result.unwrap_or_else(|error| panic!("{number}: {error}"));
                expected.push(number.to_string());
            }
        }
    }
    let mut consumer = bed.consume(&broker, 5000).await;
    let mut arrived = bodies(&take(&mut consumer, expected.len()).await);
    stays_quiet(&mut consumer).await;
    arrived.sort_unstable();
    expected.sort_unstable();
    assert_eq!(arrived, expected);
}

pub(crate) async fn what_was_confirmed_survives_a_restart(bed: Bed) {
    let bed = bed.alone();
    let broker = bed.open().await;
    for number in 0..50 {
        bed.publish(&broker, number.to_string()).await;
    }
    let mut consumer = bed.consume(&broker, 100).await;
    for delivery in take(&mut consumer, 20).await {
        delivery.receipt.ack();
    }
    consumer.close().await.unwrap();
    drop(broker);
    bed.restart().await;

    let broker = bed.connect().await;
    let mut consumer = bed.consume(&broker, 100).await;
    let expected: Vec<_> = (20..50).map(|number| number.to_string()).collect();
    assert_eq!(bodies(&take(&mut consumer, 30).await), expected);
    stays_quiet(&mut consumer).await;
}

pub(crate) async fn after_the_close_nothing_is_published(bed: Bed) {
    let broker = bed.open().await;
    bed.publish(&broker, "before").await;
    broker.clone().close().await;
    let target = Target::Exchange { exchange: &bed.name, routing_key: "order.created" };
    let error = broker.publish(target, &text("after")).await.unwrap_err();
    assert!(matches!(error, PublishError::Unconfirmed(BrokerError::Lost(_))), "{error}");

    let broker = bed.connect().await;
    eventually("one message is there", async || bed.state(&broker).await.ready == 1).await;
}
