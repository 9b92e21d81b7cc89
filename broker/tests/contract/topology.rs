//! Declarations, and their effect on messages.

use std::time::{Duration, Instant};

use broker::{ExchangeKind, Object, Presence, Target};

use crate::bed::{Bed, body, eventually, next, stays_quiet, text};

/// Checks which of these keys reach the source's queue.
async fn check_routing(bed: Bed, kind: ExchangeKind, bindings: &[&str], keys: &[(&str, bool)]) {
    let broker = bed.connect().await;
    assert_eq!(broker.declare_source(&bed.source(kind, bindings)).await.unwrap(), []);
    let mut consumer = bed.consume(&broker, 10).await;
    for &(routing_key, routed) in keys {
        let published = broker.publish(Target::Exchange { exchange: &bed.name, routing_key }, &text(routing_key)).await;
        assert_eq!(published.is_ok(), routed, "{routing_key}: {published:?}");
        if routed {
            let delivery = next(&mut consumer).await;
            assert_eq!((body(&delivery).as_str(), delivery.routing_key.as_str()), (routing_key, routing_key));
            delivery.receipt.ack();
        }
    }
    // Two matching bindings do not deliver a message twice.
    stays_quiet(&mut consumer).await;
}

pub(crate) async fn a_topic_exchange_routes_by_pattern(bed: Bed) {
    let keys = [("order.created", true), ("order.item.added", false), ("invoice.paid.late", true), ("", false)];
    check_routing(bed, ExchangeKind::Topic, &["order.*", "*.created", "invoice.#"], &keys).await;
}

pub(crate) async fn a_direct_exchange_routes_by_the_exact_key(bed: Bed) {
    let keys = [("order.created", true), ("order.paid", false), ("order.*", false)];
    check_routing(bed, ExchangeKind::Direct, &["order.created"], &keys).await;
}

pub(crate) async fn a_fanout_exchange_routes_everything(bed: Bed) {
    check_routing(bed, ExchangeKind::Fanout, &[""], &[("order.created", true), ("", true)]).await;
}

pub(crate) async fn declaring_again_changes_nothing(bed: Bed) {
    let broker = bed.open().await;
    let source = bed.source(ExchangeKind::Topic, &["#"]);
    broker.declare_plugins(&source.names, &["logger"]).await.unwrap();
    bed.publish(&broker, "kept").await;
    broker.publish(Target::Queue(&source.names.plugin("logger")), &text("kept")).await.unwrap();

    let broker = bed.connect().await;
    assert_eq!(broker.declare_source(&source).await.unwrap(), []);
    broker.declare_plugins(&source.names, &["logger"]).await.unwrap();
    for queue in [source.names.source().to_owned(), source.names.plugin("logger")] {
        let mut consumer = broker.consume(&queue, 5).await.unwrap();
        assert_eq!(body(&next(&mut consumer).await), "kept");
    }
}

pub(crate) async fn two_sessions_may_declare_at_the_same_time(bed: Bed) {
    let source = bed.source(ExchangeKind::Topic, &["#"]);
    let sessions = [bed.connect().await, bed.connect().await, bed.connect().await];
    let declared = sessions.iter().map(|session| async {
        session.declare_source(&source).await?;
        session.declare_plugins(&source.names, &["logger"]).await
    });
    for result in futures_util::future::join_all(declared).await {
        result.unwrap();
    }
    bed.publish(&sessions[0], "fine").await;
}

pub(crate) async fn a_message_for_later_comes_to_its_plugin_and_not_before(bed: Bed) {
    const DELAY: Duration = Duration::from_secs(2);
    let broker = bed.open().await;
    let names = bed.source(ExchangeKind::Topic, &[]).names;
    broker.declare_plugins(&names, &["logger", "mail"]).await.unwrap();
    let mut logger = broker.consume(&names.plugin("logger"), 5).await.unwrap();
    let mut mail = broker.consume(&names.plugin("mail"), 5).await.unwrap();
    let published = Instant::now();
    // The longest delay first: messages that wait for it must not hold up shorter ones.
    for (plugin, seconds) in [("mail", 60), ("logger", 2), ("mail", 1)] {
        let delay = Duration::from_secs(seconds);
        let target = Target::PluginLater { names: &names, plugin, delay };
        broker.publish(target, &text(format!("{plugin} {seconds}"))).await.unwrap();
    }
    let delivery = next(&mut mail).await;
    assert!(published.elapsed() >= Duration::from_secs(1), "{:?}", published.elapsed());
    assert_eq!(body(&delivery), "mail 1");
    delivery.receipt.ack();

    let delivery = next(&mut logger).await;
    assert!(published.elapsed() >= DELAY, "{:?}", published.elapsed());
    assert_eq!(body(&delivery), "logger 2");
    assert_eq!((delivery.exchange.as_str(), delivery.routing_key.as_str()), (names.deliver().as_str(), "logger"));
    delivery.receipt.ack();
    stays_quiet(&mut logger).await;
    stays_quiet(&mut mail).await;
}

pub(crate) async fn a_queue_can_be_inspected_and_purged(bed: Bed) {
    let broker = bed.open().await;
    assert_eq!(broker.inspect("absent").await.unwrap(), None);
    let error = broker.purge("absent").await.unwrap_err().to_string();
    assert!(error.contains("absent"), "{error}");
    for number in 0..7 {
        bed.publish(&broker, number.to_string()).await;
    }
    let mut consumer = bed.consume(&broker, 2).await;
    let held = [next(&mut consumer).await, next(&mut consumer).await];
    eventually("five are ready", async || {
        let state = bed.state(&broker).await;
        (state.ready, state.consumers) == (5, 1)
    })
    .await;
    assert_eq!(broker.purge(&bed.queue()).await.unwrap(), 5);
    eventually("none is ready", async || bed.state(&broker).await.ready == 0).await;
    drop((held, consumer));
    eventually("those that were held are back", async || bed.state(&broker).await.ready == 2).await;
}

pub(crate) async fn a_survey_tells_what_is_missing_and_what_is_there_and_makes_nothing(bed: Bed) {
    let broker = bed.connect().await;
    let source = bed.source(ExchangeKind::Topic, &["#"]);
    let parts = [source.items(), source.names.plugins_items(&["mail"])].concat();
    for _ in 0..2 {
        for finding in broker.inspect_topology(&parts).await.unwrap() {
            let binding = matches!(finding.item.object, Object::Binding { .. });
            assert!(finding.presence == Presence::Missing || binding, "{finding:?}");
        }
    }
    broker.declare_source(&source).await.unwrap();
    assert_eq!(broker.declare_plugins(&source.names, &["mail"]).await.unwrap(), []);
    bed.publish(&broker, "one").await;
    let ready = async || {
        let findings = broker.inspect_topology(&parts).await.unwrap();
        let states = findings.iter().filter_map(|finding| match finding.presence {
            Presence::There(state) => state.map(|state| state.ready),
            Presence::Missing | Presence::Unknown => None,
        });
        states.sum::<u64>()
    };
    // A busy queue may be reported as empty at first.
    eventually("one is counted", async || ready().await == 1).await;
    for finding in broker.inspect_topology(&parts).await.unwrap() {
        let is_binding = matches!(finding.item.object, Object::Binding { .. });
        assert!(matches!(finding.presence, Presence::There(_)) || is_binding, "{finding:?}");
        assert_eq!((finding.warnings, finding.notes), (Vec::new(), Vec::new()));
    }
}
