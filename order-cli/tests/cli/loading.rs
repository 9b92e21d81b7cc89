//! Measured loads.

use std::collections::HashSet;
use std::process::Command;
use std::time::{Duration, Instant};

use broker::{Message, Target};
use testbed::{ChildGuard, eventually, rabbitmq};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::bed::{Bed, SOON, bodies, finish, json};

pub(crate) async fn a_load_arrives_whole_and_is_measured(bed: Bed) {
    let broker = bed.declare().await;
    let load = ["load", "--exchange", &bed.exchange, "--count", "500", "--seed", "7", "--window", "32", "--json"];
    let ran = bed.run(&load).await;
    let [line] = ran.lines()[..] else { panic!("{}", ran.stdout) };
    let report = json(line);
    assert_eq!((&report["count"], &report["confirmed"]), (&500.into(), &500.into()));
    assert!(report["per_second"].as_f64().unwrap() > 0.0);
    let at = |quantile| report["latency_ms"][quantile].as_f64().unwrap();
    assert!(0.0 < at("p50") && at("p50") <= at("p95") && at("p95") <= at("p99") && at("p99") <= at("max"), "{line}");

    let deliveries = bed.take(&broker, 500).await;
    let ids: HashSet<_> = deliveries.iter().map(|delivery| &delivery.message.properties.message_id).collect();
    assert_eq!(ids.len(), 500, "each event has an id of its own");
    for event in ["OrderCreated", "OrderPaid", "OrderCanceled"] {
        let arrived = bodies(&deliveries).iter().filter(|body| json(body)["event"] == event).count();
        assert_eq!(report["events"][event], arrived, "{event}");
        assert!(arrived > 0, "{event}");
    }
}

pub(crate) async fn a_steady_rate_takes_its_time(bed: Bed) {
    let _broker = bed.declare().await;
    let started = Instant::now();
    let ran = bed.run(&["load", "--exchange", &bed.exchange, "--count", "51", "--rate", "100"]).await;
    assert!(started.elapsed() >= Duration::from_millis(500), "{:?}", started.elapsed());
    assert!(ran.lines()[0].starts_with("confirmed  51 of 51 in "), "{}", ran.stdout);
}

pub(crate) async fn an_interrupted_load_tells_how_far_it_came(bed: Bed) {
    let broker = bed.declare().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_order-cli"));
    command.args(["load", "--count", "1000000", "--rate", "200", "--ids", "--broker", &bed.url]);
    command.args(["--exchange", &bed.exchange]);
    let load = ChildGuard::spawn(command);
    eventually(SOON, "some orders are confirmed", || load.stdout().lines().count() > 20);
    let id = load.id().to_string();
    let sent = Command::new("sh").args(["-c", r#"kill -s INT "$1""#, "kill", &id]).status().unwrap();
    assert!(sent.success());

    let status = load.wait_timeout(SOON).expect("it ends soon");
    assert_eq!(status.code(), Some(130), "{}", load.stderr());
    let confirmed = usize::try_from(broker.inspect(&bed.queue()).await.unwrap().unwrap().ready).unwrap();
    let told = format!("order-cli: interrupted; {confirmed} of 1000000 events are confirmed\n");
    assert_eq!(load.stderr(), told);
    let stdout = load.stdout();
    let ids: Vec<_> = stdout.lines().take(confirmed).collect();
    let arrived: Vec<_> = bodies(&bed.take(&broker, confirmed).await);
    for (id, body) in ids.iter().zip(&arrived) {
        assert!(arrived.iter().any(|body| json(body)["order_id"] == *id), "{id} was shown and did not arrive");
        assert!(ids.iter().any(|id| json(body)["order_id"] == **id), "{body} arrived and was not shown");
    }
    assert!(stdout.lines().nth(confirmed).unwrap().starts_with("confirmed  "), "the report comes last");
}

/// This is one test, because all loads of one broker share that queue.
pub(crate) async fn a_load_that_names_no_exchange_reaches_only_who_consumes_its_own_queue(bed: Bed) {
    const OWN: &str = "order-cli.load";
    const MANY: u64 = 25_000;
    let broker = bed.declare().await;
    let waiting = async || broker.inspect(OWN).await.unwrap().map_or(0, |queue| queue.ready);

    // The environment names the everyday exchange, which a load must ignore.
    let ran = bed.run(&["load", "--count", "300", "--json"]).await;
    let report = json(ran.lines()[0]);
    assert_eq!((&report["confirmed"], &report["exchange"]), (&300.into(), &OWN.into()), "{report}");
    assert_eq!(report["queue"], json(r#"{"consumers":0,"waiting":0,"removed":300}"#), "{report}");
    assert_eq!(waiting().await, 0);

    // Events left behind by a load that was killed.
    for _ in 0..5 {
        let target = Target::Exchange { exchange: OWN, routing_key: "order.created" };
        broker.publish(target, &Message::json("{}")).await.unwrap();
    }
    let ran = bed.run(&["load", "--count", "10"]).await;
    let last = ran.lines().pop().unwrap();
    assert_eq!(last, "queue      order-cli.load: no host consumes it, so the events were removed again");
    assert_eq!(waiting().await, 0);

    // A long load does not fill the broker.
    let count = MANY.to_string();
    let mut load = bed.command(&["load", "--count", &count, "--json"]).spawn().unwrap();
    let mut most = 0;
    while load.try_wait().unwrap().is_none() {
        most = waiting().await.max(most);
    }
    let ran = finish(load).await;
    assert_eq!(json(ran.lines()[0])["queue"]["removed"], MANY, "{}", ran.stdout);
    assert!(most < MANY * 4 / 5, "{most} waited");

    let mut consumer = broker.consume(OWN, 1000).await.unwrap();
    let ran = bed.run(&["load", "--count", "20", "--json"]).await;
    assert_eq!(json(ran.lines()[0])["queue"]["consumers"], 1, "{}", ran.stdout);
    for _ in 0..20 {
        let delivery = tokio::time::timeout(SOON, consumer.next()).await.expect("a message comes soon");
        assert_eq!(delivery.unwrap().unwrap().exchange, OWN);
    }
    consumer.close().await.unwrap();
    bed.take(&broker, 0).await;
}

pub(crate) async fn a_load_that_no_queue_takes_fails(bed: Bed) {
    let broker = bed.declare_for("parcel.*").await;
    let ran = bed.run(&["load", "--exchange", &bed.exchange, "--count", "10", "--quiet"]).await;
    let sentence = ran.sentence(1);
    assert!(sentence.starts_with("no queue takes messages"), "{sentence}");
    assert!(sentence.ends_with("; 0 of 10 events are confirmed"), "{sentence}");
    bed.take(&broker, 0).await;
}

#[tokio::test]
async fn a_broker_that_goes_away_ends_a_load_with_one_sentence() {
    let node = rabbitmq::Node::start();
    let bed = Bed::on(&node);
    let broker = bed.declare().await;
    let load = ["load", "--exchange", &bed.exchange, "--count", "1000000", "--rate", "200", "--ids"];
    let mut child = bed.command(&load).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = tokio::time::timeout(SOON, lines.next_line()).await.expect("an order is confirmed soon").unwrap();
    assert!(first.is_some());
    node.kill();
    let read_on = tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });

    let ran = finish(child).await;
    assert!(ran.sentence(1).contains(" of 1000000 events are confirmed"), "{}", ran.stderr);
    read_on.await.unwrap();
    broker.close().await;
}
