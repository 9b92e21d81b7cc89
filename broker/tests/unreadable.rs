//! Messages whose properties client libraries cannot read, but RabbitMQ accepts.

#![allow(clippy::unwrap_used, reason = "in a test, that is how a failure is told")]

use std::time::Duration;

use broker::{
    Broker, BrokerUrl, ConnectOptions, Consumer, Delivery, ExchangeKind, Message, PublishError, QueueNames, Source,
    Target, Value,
};
use testbed::rabbitmq;
use testbed::raw_publisher::{RawPublisher, headers_and_id, nested_entry, short};

const SOON: Duration = Duration::from_secs(20);

/// Opens a session on the shared node, with a topic exchange and a queue of this name.
async fn connect(name: &str, binding: &str) -> Broker {
    let url: BrokerUrl = rabbitmq::shared().url().parse().unwrap();
    let options = ConnectOptions { name: "unreadable test".to_owned(), timeout: SOON };
    let broker = Broker::connect(&url, &options).await.unwrap();
    let source = Source {
        exchange: name.to_owned(),
        kind: ExchangeKind::Topic,
        names: QueueNames::new(name),
        bindings: vec![binding.to_owned()],
    };
    broker.declare_source(&source).await.unwrap();
    broker
}

async fn next(consumer: &mut Consumer) -> Delivery {
    tokio::time::timeout(SOON, consumer.next()).await.expect("something comes soon").unwrap().unwrap()
}

#[tokio::test]
async fn messages_that_a_client_library_cannot_read_are_handed_out_and_the_session_goes_on() {
    let broker = connect("unreadable", "#").await;
    let port = rabbitmq::shared().port();
    let publish = move || {
        let mut publisher = RawPublisher::connect(port);
        let latin_1 = [&short(b"na\xefve")[..], &[b't', 1]].concat();
        publisher.publish(b"unreadable", b"K\xf6ln", &headers_and_id(&latin_1, b"\xe4-1"), b"1");
        for levels in [2, 32, 33, 2_000, 26_000] {
            publisher.publish(b"unreadable", b"k", &headers_and_id(&nested_entry(b"deep", levels), b"2"), b"{}");
        }
        publisher.publish(b"unreadable", b"k", &[0, 0], b"last");
    };
    tokio::task::spawn_blocking(publish).await.unwrap();

    let mut consumer = broker.consume("unreadable", 10).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert_eq!((&*delivery.exchange, &*delivery.routing_key), ("unreadable", "Köln"));
    assert_eq!(delivery.message.properties.message_id.as_deref(), Some("ä-1"));
    assert_eq!(delivery.message.properties.headers["naïve"], Value::Bool(true));
    assert_eq!((&delivery.message.body[..], delivery.unreadable), (&b"1"[..], None));
    delivery.receipt.ack();
    for levels in [2, 32, 33, 2_000, 26_000] {
        let delivery = next(&mut consumer).await;
        let properties = &delivery.message.properties;
        assert_eq!(properties.message_id.as_deref(), Some("2"), "{levels}");
        assert_eq!(properties.headers.contains_key("deep"), levels <= 32, "{levels}");
        if let Some(unreadable) = &delivery.unreadable {
            assert!(levels > 32, "{levels}");
            assert_eq!(unreadable.problem, "its header \"deep\" cannot be read: it is nested deeper than 32 levels");
            assert_eq!(unreadable.properties, headers_and_id(&nested_entry(b"deep", levels), b"2"));
        } else {
            // A readable message can be passed on, and comes back unchanged.
            broker.publish(Target::Queue("unreadable"), &delivery.message).await.unwrap();
        }
        delivery.receipt.ack();
    }
    let last = next(&mut consumer).await;
    assert_eq!(&last.message.body[..], b"last");
    last.receipt.ack();
    for levels in [2, 32] {
        let delivery = next(&mut consumer).await;
        let expected = (0..levels).fold(Value::Void, |inner, _| Value::List(vec![inner]));
        assert_eq!(delivery.message.properties.headers["deep"], expected);
        delivery.receipt.ack();
    }
    consumer.close().await.unwrap();
}

#[tokio::test]
async fn a_returned_message_is_told_apart_whatever_its_text() {
    let broker = connect("returning", "taken").await;
    let mut message = Message::json("{}");
    message.properties.headers.insert("naïve".to_owned(), "Köln".into());
    message.properties.app_id = Some("Bücher".to_owned());
    for routing_key in ["nicht-genommen-ö", "taken"] {
        let published = broker.publish(Target::Exchange { exchange: "returning", routing_key }, &message).await;
        match published {
            Err(PublishError::Unroutable { .. }) => assert_ne!(routing_key, "taken"),
            other => assert_eq!((other.is_ok(), routing_key), (true, "taken")),
        }
    }
}
