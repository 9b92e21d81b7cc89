//! The meaning of a delivery and its acknowledgement.

use std::collections::BTreeSet;
use std::time::Duration;

use broker::{Broker, BrokerError};

use crate::bed::{Bed, bodies, body, eventually, next, stays_quiet, take};

async fn publish_numbers(bed: &Bed, broker: &Broker, count: usize) -> Vec<String> {
    let numbers: Vec<_> = (0..count).map(|number| number.to_string()).collect();
    for number in &numbers {
        bed.publish(broker, number.as_str()).await;
    }
    numbers
}

/// Takes three deliveries, acknowledges the second, and ends the consumer with `leave`.
async fn the_rest_comes_again(bed: Bed, leave: impl AsyncFnOnce(broker::Consumer, Broker)) {
    let broker = bed.open().await;
    let watcher = bed.connect().await;
    publish_numbers(&bed, &broker, 3).await;
    let mut consumer = bed.consume(&broker, 10).await;
    let mut deliveries = take(&mut consumer, 3).await;
    deliveries.remove(1).receipt.ack();
    // From outside, a delivery in hand and an acknowledged one look the same. An acknowledgement
    // out of order is sent within 50 ms.
    stays_quiet(&mut consumer).await;
    leave(consumer, broker).await;
    eventually("the consumer is gone", async || bed.state(&watcher).await.consumers == 0).await;

    let mut consumer = bed.consume(&watcher, 10).await;
    let again = take(&mut consumer, 2).await;
    assert_eq!(bodies(&again), ["0", "2"]);
    assert!(again.iter().all(|delivery| delivery.redelivered));
    stays_quiet(&mut consumer).await;
    // Receipts of the old consumer do not affect the new one.
    for delivery in deliveries {
        delivery.receipt.ack();
    }
    drop(consumer);
    eventually("both are there again", async || bed.state(&watcher).await.ready == 2).await;
}

pub(crate) async fn an_unacknowledged_message_comes_again_when_its_consumer_closes(bed: Bed) {
    the_rest_comes_again(bed, async |consumer, _broker| consumer.close().await.unwrap()).await;
}

pub(crate) async fn an_unacknowledged_message_comes_again_when_its_consumer_is_dropped(bed: Bed) {
    the_rest_comes_again(bed, async |consumer, _broker| drop(consumer)).await;
}

pub(crate) async fn an_unacknowledged_message_comes_again_when_its_session_is_dropped(bed: Bed) {
    the_rest_comes_again(bed, async |consumer, broker| {
        drop(broker);
        drop(consumer);
    })
    .await;
}

pub(crate) async fn acknowledgements_given_before_the_close_count(bed: Bed) {
    const COUNT: usize = 1000;
    let broker = bed.open().await;
    publish_numbers(&bed, &broker, COUNT).await;
    let mut consumer = bed.consume(&broker, 2000).await;
    // Every other one, so that no acknowledgement can be cumulative.
    let (acknowledged, kept): (Vec<_>, Vec<_>) =
        take(&mut consumer, COUNT).await.into_iter().enumerate().partition(|(at, _)| at % 2 == 1);
    for (_, delivery) in acknowledged {
        delivery.receipt.ack();
    }
    consumer.close().await.unwrap();
    let mut consumer = bed.consume(&broker, 2000).await;
    let kept: Vec<_> = kept.iter().map(|(_, delivery)| body(delivery)).collect();
    assert_eq!(bodies(&take(&mut consumer, kept.len()).await), kept);
    stays_quiet(&mut consumer).await;
}

pub(crate) async fn acknowledgements_may_come_in_any_order(bed: Bed) {
    const COUNT: usize = 100;
    let broker = bed.open().await;
    publish_numbers(&bed, &broker, COUNT).await;
    let mut consumer = bed.consume(&broker, 200).await;
    let deliveries = take(&mut consumer, COUNT).await;
    let (mut kept, mut acknowledged) = (Vec::new(), Vec::new());
    for (number, delivery) in deliveries.into_iter().enumerate() {
        if number % 9 == 4 { kept.push(delivery) } else { acknowledged.push(delivery) }
    }
    let (evens, odds): (Vec<_>, Vec<_>) = acknowledged.into_iter().enumerate().partition(|(at, _)| at % 2 == 0);
    for (_, delivery) in evens.into_iter().chain(odds.into_iter().rev()) {
        delivery.receipt.ack();
        tokio::task::yield_now().await;
    }
    consumer.close().await.unwrap();
    let mut consumer = bed.consume(&broker, 200).await;
    assert_eq!(bodies(&take(&mut consumer, kept.len()).await), bodies(&kept));
    stays_quiet(&mut consumer).await;
}

pub(crate) async fn a_slow_message_does_not_keep_others_unacknowledged(bed: Bed) {
    const COUNT: usize = 50;
    let broker = bed.open().await;
    publish_numbers(&bed, &broker, COUNT).await;
    let mut consumer = bed.consume(&broker, 5).await;
    let slow = next(&mut consumer).await;
    // With a window of five, the others arrive only if they are acknowledged past the slow one.
    for number in 1..COUNT {
        let delivery = next(&mut consumer).await;
        assert_eq!(body(&delivery), number.to_string());
        delivery.receipt.ack();
    }
    slow.receipt.ack();
    consumer.close().await.unwrap();
    assert_eq!(bed.state(&broker).await.ready, 0);
}

pub(crate) async fn no_more_than_the_window_is_handed_out(bed: Bed) {
    let broker = bed.open().await;
    publish_numbers(&bed, &broker, 20).await;
    let mut consumer = bed.consume(&broker, 4).await;
    let mut window = take(&mut consumer, 4).await;
    stays_quiet(&mut consumer).await;
    eventually("the others are still in the queue", async || bed.state(&broker).await.ready == 16).await;
    window.remove(0).receipt.ack();
    window.push(next(&mut consumer).await);
    assert_eq!(bodies(&window), ["1", "2", "3", "4"]);
    stays_quiet(&mut consumer).await;
}

pub(crate) async fn two_consumers_share_a_queue(bed: Bed) {
    const COUNT: usize = 100;
    let (here, there) = (bed.open().await, bed.connect().await);
    let (mut first, mut second) = (bed.consume(&here, 5).await, bed.consume(&there, 5).await);
    let mut arrived = BTreeSet::new();
    let (mut by_first, mut by_second) = (0, 0);
    publish_numbers(&bed, &here, COUNT).await;
    while arrived.len() < COUNT {
        let delivery = tokio::select! {
            delivery = next(&mut first) => {
                by_first += 1;
                delivery
            }
            delivery = next(&mut second) => {
                by_second += 1;
                delivery
            }
        };
        assert!(arrived.insert(body(&delivery)), "{} came twice", body(&delivery));
        delivery.receipt.ack();
    }
    assert!(by_first > 0 && by_second > 0, "{by_first} and {by_second}");
}

pub(crate) async fn a_waiting_consumer_is_woken(bed: Bed) {
    let (here, there) = (bed.open().await, bed.connect().await);
    let mut consumer = bed.consume(&here, 5).await;
    for number in 0..5 {
        stays_quiet(&mut consumer).await;
        let published = std::time::Instant::now();
        bed.publish(&there, number.to_string()).await;
        next(&mut consumer).await.receipt.ack();
        let passed = published.elapsed();
        assert!(passed < Duration::from_secs(2), "it took {passed:?}");
    }
}

pub(crate) async fn a_missing_queue_cannot_be_consumed(bed: Bed) {
    let broker = bed.open().await;
    let error = broker.consume("absent", 5).await.unwrap_err();
    assert!(matches!(error, BrokerError::Refused(_)), "{error}");
    assert!(error.to_string().contains("absent"), "{error}");
}
