//! Tests for RabbitMQ only: topology of other programs, and a server that refuses or goes away.

#![allow(clippy::unwrap_used, reason = "in a test, that is how a failure is told")]

use std::net::TcpListener;
use std::time::{Duration, Instant};

use broker::{
    Broker, BrokerError, BrokerUrl, ConnectError, ConnectOptions, Consumer, ExchangeKind, Message, Properties,
    PublishError, QueueNames, Source, Target, Value,
};
use futures_util::future::join_all;
use lapin::options::{BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use testbed::free_port;
use testbed::proxy::{Mode, Proxy};
use testbed::rabbitmq::{self, Node, let_new_queues_settle};

const SOON: Duration = Duration::from_secs(20);

async fn try_connect(url: &str, timeout: Duration) -> Result<Broker, ConnectError> {
    let url: BrokerUrl = url.parse().unwrap();
    Broker::connect(&url, &ConnectOptions { name: "rabbitmq test".to_owned(), timeout }).await
}

async fn connect(node: &Node) -> Broker {
    try_connect(&node.url(), SOON).await.unwrap()
}

/// Connects as another program, in whatever language.
async fn stranger(node: &Node) -> (Connection, Channel) {
    let connection = Connection::connect(&node.url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

fn source(exchange: &str, queue: &str, kind: ExchangeKind, bindings: &[&str]) -> Source {
    Source {
        exchange: exchange.to_owned(),
        kind,
        names: QueueNames::new(queue),
        bindings: bindings.iter().map(|&key| key.to_owned()).collect(),
    }
}

async fn next(consumer: &mut Consumer) -> Option<Result<broker::Delivery, BrokerError>> {
    tokio::time::timeout(SOON, consumer.next()).await.expect("something comes soon")
}

fn warnings_text(warnings: &[broker::Warning]) -> String {
    warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn the_topology_of_the_tutorial_is_used_as_it_is_and_warned_about() {
    let node = rabbitmq::shared();
    let (_connection, tutorial) = stranger(node).await;
    // As a few lines of Python declare it: nothing durable, no arguments.
    let (transient, empty) = (ExchangeDeclareOptions::default(), FieldTable::default());
    tutorial.exchange_declare("orders".into(), lapin::ExchangeKind::Fanout, transient, empty.clone()).await.unwrap();
    tutorial.queue_declare("notifications".into(), QueueDeclareOptions::default(), empty.clone()).await.unwrap();
    tutorial
        .queue_bind("notifications".into(), "orders".into(), "".into(), QueueBindOptions::default(), empty.clone())
        .await
        .unwrap();

    let broker = connect(node).await;
    let source = source("orders", "notifications", ExchangeKind::Topic, &["order.*"]);
    let warnings = broker.declare_source(&source).await.unwrap();
    let text = warnings_text(&warnings);
    assert_eq!(warnings.len(), 2, "{text}");
    assert!(text.contains("exchange \"orders\" is not durable"), "{text}");
    assert!(text.contains("queue \"notifications\" is not durable"), "{text}");

    let mut consumer = broker.consume("notifications", 10).await.unwrap();
    let body = br#"{"event":"OrderCreated"}"#;
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    tutorial.basic_publish("orders".into(), "".into(), options, body, properties).await.unwrap();
    let delivery = next(&mut consumer).await.unwrap().unwrap();
    assert_eq!(delivery.message, Message { body: body.as_slice().into(), properties: Properties::default() });
    delivery.receipt.ack();
    consumer.close().await.unwrap();

    // Nothing has changed: the tutorial's own declarations still match.
    tutorial.exchange_declare("orders".into(), lapin::ExchangeKind::Fanout, transient, empty.clone()).await.unwrap();
    tutorial.queue_declare("notifications".into(), QueueDeclareOptions::default(), empty).await.unwrap();
}

#[tokio::test]
async fn what_loses_messages_in_an_existing_queue_is_warned_about() {
    let node = rabbitmq::shared();
    let (_connection, operator) = stranger(node).await;
    let long = |value: i64| AMQPValue::LongLongInt(value);
    let text = |value: &str| AMQPValue::LongString(value.into());
    for (queue, options, arguments, expected) in [
        ("durable-classic", QueueDeclareOptions::durable(), vec![], vec![]),
        (
            "limited-classic",
            QueueDeclareOptions::durable(),
            vec![("x-message-ttl", long(60_000)), ("x-max-length", long(10)), ("x-expires", long(3_600_000))],
            vec!["x-expires 3600000", "x-message-ttl 60000", "x-max-length 10"],
        ),
        (
            "limited-quorum",
            QueueDeclareOptions::durable(),
            vec![("x-queue-type", text("quorum")), ("x-max-length-bytes", long(1 << 20))],
            vec!["x-max-length-bytes 1048576", "came back 20 times"],
        ),
        (
            "impatient-quorum",
            QueueDeclareOptions::durable(),
            vec![("x-queue-type", text("quorum")), ("x-delivery-limit", long(3))],
            vec!["came back 3 times is dropped"],
        ),
        (
            "auto-delete",
            QueueDeclareOptions::durable().auto_delete(),
            vec![("x-message-ttl", long(5000))],
            vec!["auto-delete", "x-message-ttl 5000"],
        ),
    ] {
        let arguments: std::collections::BTreeMap<_, _> =
            arguments.into_iter().map(|(name, value)| (name.into(), value)).collect();
        operator.queue_declare(queue.into(), options, arguments.into()).await.unwrap();
        let broker = connect(node).await;
        let source = source("warned-about", queue, ExchangeKind::Topic, &["#"]);
        let warnings = broker.declare_source(&source).await.unwrap();
        let text = warnings_text(&warnings);
        assert_eq!(warnings.len(), expected.len(), "{queue}: {text}");
        for (warning, expected) in warnings.iter().zip(expected) {
            assert!(warning.0.contains(queue) && warning.0.contains(expected), "{queue}: {warning}");
        }
        broker.publish(Target::Queue(queue), &Message::json("{}")).await.unwrap();
    }
}

#[tokio::test]
async fn what_somebody_made_in_our_name_is_told_by_what_differs() {
    let node = rabbitmq::shared();
    let (_connection, operator) = stranger(node).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(1000));
    operator.queue_declare("meddled.retry.5s".into(), QueueDeclareOptions::durable(), arguments).await.unwrap();
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let kind = lapin::ExchangeKind::Topic;
    operator.exchange_declare("meddled.deliver".into(), kind, options, FieldTable::default()).await.unwrap();

    let broker = connect(node).await;
    let names = QueueNames::new("meddled");
    let text = warnings_text(&broker.declare_plugins(&names, &[]).await.unwrap());
    assert!(text.contains("exchange \"meddled.deliver\" is not as this host makes it"), "{text}");
    assert!(text.contains("queue \"meddled.retry.5s\" is not as this host makes it"), "{text}");
    let findings = broker.inspect_topology(&names.plugins_items(&[])).await.unwrap();
    let text = findings.iter().map(|finding| warnings_text(&finding.warnings)).collect::<String>();
    for difference in
        ["type is topic, and should be \"direct\"", "x-message-ttl is 1000, and should be 5000", "x-queue-type is"]
    {
        assert!(text.contains(difference), "{text}");
    }
}

#[tokio::test]
async fn a_user_that_may_not_configure_is_served_once_everything_is_there() {
    let node = rabbitmq::shared();
    node.ctl(&["add_user", "worker", "worker"]);
    node.ctl(&["set_permissions", "-p", "/", "worker", "^$", ".*", ".*"]);
    let worker = try_connect(&node.url().replace("guest:guest", "worker:worker"), SOON).await.unwrap();
    let source = source("guarded", "guarded", ExchangeKind::Topic, &["#"]);
    let error = worker.declare_source(&source).await.unwrap_err().to_string();
    assert!(error.contains("there is no queue \"guarded.dead\", and this user may not make it"), "{error}");
    assert!(error.contains("notify-host topology apply"), "{error}");

    let operator = connect(node).await;
    operator.declare_source(&source).await.unwrap();
    operator.declare_plugins(&source.names, &["mail"]).await.unwrap();
    assert_eq!(worker.declare_source(&source).await.unwrap(), []);
    assert_eq!(worker.declare_plugins(&source.names, &["mail"]).await.unwrap(), []);
    let target = Target::PluginLater { names: &source.names, plugin: "mail", delay: Duration::from_secs(1) };
    worker.publish(target, &Message::json("{}")).await.unwrap();
    let mut consumer = worker.consume(&source.names.plugin("mail"), 1).await.unwrap();
    next(&mut consumer).await.unwrap().unwrap().receipt.ack();
    consumer.close().await.unwrap();
    // A user without configure permission sees no settings, and so does not vouch for them.
    let queues = |finding: &&broker::Finding| matches!(finding.item.object, broker::Object::Queue { .. });
    let parts = source.names.plugins_items(&["mail"]);
    assert!(worker.inspect_topology(&parts).await.unwrap().iter().filter(queues).all(|finding| !finding.seen));
    assert!(operator.inspect_topology(&parts).await.unwrap().iter().filter(queues).all(|finding| finding.seen));
}

#[tokio::test]
async fn of_several_nodes_one_that_can_be_used_is_used() {
    let node = rabbitmq::shared();
    let (good, closed) = (node.url(), free_port());
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().port();
    let bad = format!("amqp://guest:guest@127.0.0.1:{closed},amqp://guest:guest@127.0.0.1:{silent}");
    // Nodes are tried in random order, so connect several times.
    for _ in 0..3 {
        let broker = try_connect(&format!("{bad},{good}"), SOON).await.unwrap();
        assert_eq!(*broker.url(), good.parse().unwrap());
        broker.close().await;
    }
    let error = try_connect(&bad, Duration::from_secs(2)).await.unwrap_err().to_string();
    let nothing = format!("cannot reach the broker at amqp://guest:***@127.0.0.1:{closed}: nothing listens there");
    assert!(error.starts_with(&format!("no node of the cluster can be used: {nothing}")), "{error}");
    assert!(error.contains(&format!("; the broker at amqp://guest:***@127.0.0.1:{silent} did not answer")), "{error}");
}

#[tokio::test]
async fn what_keeps_a_session_from_opening_is_told_in_one_sentence() {
    let node = rabbitmq::shared();
    let (port, closed) = (node.port(), free_port());
    node.ctl(&["add_vhost", "staff only"]);
    for (url, expected) in [
        (
            format!("amqp://guest:guest@127.0.0.1:{closed}/%2F"),
            format!(
                "cannot reach the broker at amqp://guest:***@127.0.0.1:{closed}/%2F: \
                 nothing listens there (connection refused); is RabbitMQ running, and the port right?"
            ),
        ),
        (
            format!("amqp://guest:hunter2@127.0.0.1:{port}"),
            format!(
                "the broker at amqp://guest:***@127.0.0.1:{port} refused the login of user \"guest\": \
                 check the user and password in the URL"
            ),
        ),
        (
            format!("amqp://guest:guest@127.0.0.1:{port}/absent"),
            format!(
                "the broker at amqp://guest:***@127.0.0.1:{port}/absent has no virtual host \"absent\" for this user: \
                 create it, or correct the end of the URL"
            ),
        ),
        (
            format!("amqp://guest:guest@127.0.0.1:{port}/staff%20only"),
            format!(
                "the broker at amqp://guest:***@127.0.0.1:{port}/staff%20only has no virtual host \"staff only\" \
                 for this user: create it, or correct the end of the URL"
            ),
        ),
    ] {
        let error = try_connect(&url, SOON).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let error = try_connect("amqp://no-such-host.invalid", SOON).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("lookup"), "{error}");
    let error = try_connect(&format!("amqps://127.0.0.1:{port}"), SOON).await.unwrap_err();
    assert!(error.to_string().contains("by TLS"), "{error}");
}

#[tokio::test]
async fn a_peer_that_never_answers_costs_the_time_limit_and_nothing_after() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let started = Instant::now();
    let error = try_connect(&format!("amqp://127.0.0.1:{port}"), Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(error.to_string(), format!("the broker at amqp://127.0.0.1:{port} did not answer within 1 s"));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());

    // Otherwise a host that retries for days would collect sockets and threads.
    let (mut accepted, _) = silent.accept().unwrap();
    accepted.set_read_timeout(Some(SOON)).unwrap();
    let mut greeting = Vec::new();
    std::io::Read::read_to_end(&mut accepted, &mut greeting).expect("the socket is closed");
    assert_eq!(greeting, b"AMQP\x00\x00\x09\x01");
}

#[tokio::test]
async fn a_killed_server_ends_the_session_and_a_new_one_goes_on() {
    let node = Node::start();
    let broker = connect(&node).await;
    broker.declare_source(&source("orders", "notifications", ExchangeKind::Topic, &["#"])).await.unwrap();
    let target = Target::Exchange { exchange: "orders", routing_key: "order.created" };
    broker.publish(target, &Message::json("1")).await.unwrap();
    let mut consumer = broker.consume("notifications", 10).await.unwrap();
    let held = next(&mut consumer).await.unwrap().unwrap();
    tokio::task::spawn_blocking(let_new_queues_settle).await.unwrap();
    node.kill();

    let error = next(&mut consumer).await.unwrap().unwrap_err();
    assert!(matches!(error, BrokerError::Lost(_)), "{error}");
    assert!(error.to_string().contains("the connection broke"), "{error}");
    assert!(next(&mut consumer).await.is_none());
    held.receipt.ack();
    let error = tokio::time::timeout(SOON, consumer.close()).await.unwrap().unwrap_err();
    assert!(matches!(error, BrokerError::Lost(_)), "{error}");
    let error = tokio::time::timeout(SOON, broker.publish(target, &Message::json("2"))).await.unwrap().unwrap_err();
    assert!(matches!(error, PublishError::Unconfirmed(BrokerError::Lost(_))), "{error}");
    let error = tokio::time::timeout(SOON, broker.inspect("notifications")).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("the connection broke"), "{error}");
    tokio::time::timeout(SOON, broker.close()).await.unwrap();

    node.start_again();
    let broker = connect(&node).await;
    let mut consumer = broker.consume("notifications", 10).await.unwrap();
    let delivery = next(&mut consumer).await.unwrap().unwrap();
    assert_eq!(delivery.message.body, "1");
    assert!(delivery.redelivered);
}

#[tokio::test]
async fn a_session_that_loses_one_connection_does_not_wait_for_the_other() {
    let node = rabbitmq::shared();
    let proxy = Proxy::to(node.port());
    let broker =
        try_connect(&node.url().replace(&node.port().to_string(), &proxy.port().to_string()), SOON).await.unwrap();
    broker.declare_source(&source("severed", "severed", ExchangeKind::Topic, &["#"])).await.unwrap();
    let mut consumer = broker.consume("severed", 10).await.unwrap();
    // From now on nobody answers, and one connection ends before any heartbeat is missed.
    proxy.set(Mode::Stall);
    proxy.drop_oldest_connection();
    let error = next(&mut consumer).await.unwrap().unwrap_err();
    assert!(matches!(error, BrokerError::Lost(_)), "{error}");
}

#[tokio::test]
async fn publishes_in_flight_when_the_server_is_killed_are_unconfirmed_or_there() {
    let node = Node::start();
    let broker = connect(&node).await;
    broker.declare_source(&source("orders", "notifications", ExchangeKind::Topic, &["#"])).await.unwrap();
    tokio::task::spawn_blocking(let_new_queues_settle).await.unwrap();
    let (begun, has_begun) = std::sync::mpsc::channel();
    let publishes = (0..3000_u32).map(|number| {
        let (broker, begun) = (&broker, begun.clone());
        async move {
            let target = Target::Exchange { exchange: "orders", routing_key: "order.created" };
            let published = broker.publish(target, &Message::json(number.to_string())).await;
            if number == 300 && published.is_ok() {
                begun.send(()).unwrap();
            }
            (number, published)
        }
    });
    let killer = tokio::task::spawn_blocking({
        let node = std::sync::Arc::new(node);
        move || {
            has_begun.recv_timeout(SOON).unwrap();
            node.kill();
            node
        }
    });
    let results = tokio::time::timeout(SOON, join_all(publishes)).await.unwrap();
    let node = killer.await.unwrap();
    node.start_again();
    let mut confirmed: std::collections::BTreeSet<_> = results
        .into_iter()
        .filter_map(|(number, result)| match result {
            Ok(()) => Some(number.to_string()),
            Err(PublishError::Unconfirmed(BrokerError::Lost(_))) => None,
            Err(error) => panic!("{number}: {error}"),
        })
        .collect();
    let broker = connect(&node).await;
    let mut consumer = broker.consume("notifications", 4000).await.unwrap();
    while !confirmed.is_empty() {
        let delivery = next(&mut consumer).await.unwrap().unwrap();
        confirmed.remove(std::str::from_utf8(&delivery.message.body).unwrap());
    }
}

#[tokio::test]
async fn the_end_of_a_queue_ends_its_consumer_and_not_the_session() {
    let node = rabbitmq::shared();
    let (_connection, operator) = stranger(node).await;
    let broker = connect(node).await;
    broker.declare_source(&source("short-lived", "short-lived", ExchangeKind::Topic, &["#"])).await.unwrap();
    let mut consumer = broker.consume("short-lived", 10).await.unwrap();
    operator.queue_delete("short-lived".into(), lapin::options::QueueDeleteOptions::default()).await.unwrap();
    let error = next(&mut consumer).await.unwrap().unwrap_err();
    assert!(matches!(&error, BrokerError::ConsumerCancelled { queue, .. } if queue == "short-lived"), "{error}");
    assert!(next(&mut consumer).await.is_none());
    assert_eq!(broker.inspect("short-lived").await.unwrap(), None);
}

#[tokio::test]
async fn what_rabbitmq_refuses_fails_alone_and_with_its_words() {
    let node = rabbitmq::shared();
    let broker = connect(node).await;
    broker.declare_source(&source("picky", "picky", ExchangeKind::Topic, &["#"])).await.unwrap();
    let target = Target::Exchange { exchange: "picky", routing_key: "order.created" };
    let with = |properties| Message { body: "{}".into(), properties };
    let header = |value| Properties { headers: [("h".to_owned(), value)].into(), ..Properties::default() };
    let bad = [
        (with(Properties { user_id: Some("mallory".to_owned()), ..Properties::default() }), "user_id property"),
        (with(Properties { expiration: Some("soon".to_owned()), ..Properties::default() }), "invalid expiration"),
        (with(header(Value::F64(f64::NAN.to_bits()))), "NaN"),
        (with(header(Value::Bytes(vec![0; 200_000]))), "its headers have 200011 bytes, and may have 131040"),
    ];
    let publishes = (0..100).map(|number| {
        let (broker, bad) = (&broker, &bad);
        async move {
            let Some((message, problem)) = bad.get(number % 10) else {
                return broker.publish(target, &Message::json("{}")).await.unwrap();
            };
            let error = broker.publish(target, message).await.unwrap_err();
            let is_refused = matches!(error, PublishError::Refused(_));
            let is_too_much =
                matches!(error, PublishError::Inexpressible(_) | PublishError::HeadersTooLarge { bytes: 200_011, .. });
            assert!(if number % 10 < 2 { is_refused } else { is_too_much }, "{error}");
            assert!(error.to_string().contains(problem), "{error}");
        }
    });
    join_all(publishes).await;
    assert_eq!(broker.purge("picky").await.unwrap(), 60);
}

#[tokio::test]
async fn an_exchange_deleted_under_a_publisher_is_missed_and_others_go_on() {
    let node = rabbitmq::shared();
    let (_connection, operator) = stranger(node).await;
    let broker = connect(node).await;
    for name in ["staying", "leaving"] {
        broker.declare_source(&source(name, name, ExchangeKind::Topic, &["#"])).await.unwrap();
        let target = Target::Exchange { exchange: name, routing_key: "k" };
        broker.publish(target, &Message::json("{}")).await.unwrap();
    }
    operator.exchange_delete("leaving".into(), lapin::options::ExchangeDeleteOptions::default()).await.unwrap();
    let publishes = (0..200).map(|number| {
        let broker = &broker;
        async move {
            let exchange = if number % 20 == 7 { "leaving" } else { "staying" };
            let published = broker.publish(Target::Exchange { exchange, routing_key: "k" }, &Message::json("{}")).await;
            match published {
                Ok(()) => assert_eq!(exchange, "staying"),
                Err(PublishError::NotFound { what: "exchange", name }) => {
                    assert_eq!((&*name, exchange), ("leaving", "leaving"));
                }
                Err(error) => panic!("{exchange}: {error}"),
            }
        }
    });
    join_all(publishes).await;
    assert!(broker.purge("staying").await.unwrap() > 190);
}

#[tokio::test]
async fn a_full_queue_refuses_a_message() {
    let node = rabbitmq::shared();
    let (_connection, operator) = stranger(node).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(1));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    operator.queue_declare("full".into(), QueueDeclareOptions::durable(), arguments).await.unwrap();
    let broker = connect(node).await;
    broker.publish(Target::Queue("full"), &Message::json("1")).await.unwrap();
    let error = broker.publish(Target::Queue("full"), &Message::json("2")).await.unwrap_err();
    assert!(matches!(error, PublishError::Refused(_)), "{error}");
}

#[tokio::test]
async fn a_session_goes_on_when_the_numbers_of_its_channels_have_gone_round() {
    // Longer than a round of channel numbers: RabbitMQ's default for channel_max is 2047.
    const ROUND: usize = 2100;
    let node = rabbitmq::shared();
    let broker = connect(node).await;
    broker.declare_source(&source("round", "round", ExchangeKind::Topic, &["#"])).await.unwrap();
    for number in 0..ROUND {
        let queue = if number % 100 == 0 { "absent" } else { "round" };
        assert_eq!(broker.inspect(queue).await.unwrap().is_some(), queue == "round", "{number}");
    }
    let target = Target::Exchange { exchange: "round", routing_key: "k" };
    broker.publish(target, &Message::json("{}")).await.unwrap();
}

#[tokio::test]
async fn what_is_published_is_persistent_and_carries_the_name_of_the_session() {
    let node = rabbitmq::shared();
    let (_connection, reader) = stranger(node).await;
    let broker = connect(node).await;
    broker.declare_source(&source("persistent", "persistent", ExchangeKind::Topic, &["#"])).await.unwrap();
    broker.publish(Target::Queue("persistent"), &Message::json("{}")).await.unwrap();
    let message = reader.basic_get("persistent".into(), lapin::options::BasicGetOptions::default()).await.unwrap();
    assert_eq!(*message.unwrap().properties.delivery_mode(), Some(2));
    let connections = node.ctl(&["list_connections", "client_properties"]);
    assert!(connections.contains("rabbitmq test"), "{connections}");
}
