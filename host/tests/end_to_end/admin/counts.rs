//! Counters: `/metrics` and the figures of the last seconds.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use broker::{Message, Target};
use testbed::eventually;

use crate::admin::await_readiness;
use crate::admin::client::Client;
use crate::on_both_engines;
use crate::world::{SOON, World};

/// Returns the value of a series, found by its line without the value.
pub(crate) fn value(page: &str, series: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// Waits until each series has the value.
pub(crate) fn await_values(admin: &Client, expected: &[(&str, f64)]) -> String {
    let differs = |page: &str| {
        let found = expected.iter().map(|(series, value)| (*series, self::value(page, series), *value));
        found.filter(|(_, found, value)| *found != Some(*value)).map(|one| format!("{one:?}")).collect::<Vec<_>>()
    };
    let started = std::time::Instant::now();
    loop {
        let page = admin.get("/metrics").body;
        let different = differs(&page);
        if different.is_empty() {
            return page;
        }
        assert!(started.elapsed() < SOON, "not so, but found, expected: {different:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

on_both_engines! {
    fn what_happens_is_counted_exactly(world: &World) {
        world.plug_logger();
        world.plug_misbehaver("reject");
        world.plug_misbehaver_with("twice", "");
        let (host, admin) = world.host_with_admin(&[]);
        let before = admin.get("/metrics");
        assert!(before.headers.iter().any(|line| line == "content-type: text/plain; version=0.0.4; charset=utf-8"), "{before:?}");
        assert!(value(&before.body, "notify_broker_connected").is_some(), "from the start: {}", before.body);
        await_readiness(&admin, None);
        for _ in 0..2 {
            world.order(&["create", "--user", "u", "--product", "p"]);
        }
        let broker = world.broker();
        let mut message = Message::json(r#"{"event":"OrderCreated","order_id":"twice"}"#);
        message.properties.message_id = Some("the same".to_owned());
        for message in [&message, &message, &Message::json("no json")] {
            world.block_on(broker.publish(Target::Queue(&world.queue), message)).unwrap();
        }
        let page = await_values(&admin, &[
            ("notify_ready", 1.0),
            ("notify_broker_connected", 1.0),
            ("notify_broker_sessions_total", 1.0),
            ("notify_unacknowledged_messages", 0.0),
            ("notify_events_total{result=\"routed\"}", 3.0),
            ("notify_events_total{result=\"unmatched\"}", 0.0),
            ("notify_events_total{result=\"duplicate\"}", 1.0),
            ("notify_events_total{result=\"undecodable\"}", 1.0),
            ("notify_event_settle_seconds_count", 5.0),
            ("notify_attempts_total{plugin=\"logger\",outcome=\"done\"}", 3.0),
            ("notify_attempts_total{plugin=\"logger\",outcome=\"retry\"}", 0.0),
            ("notify_attempts_total{plugin=\"misbehaver-reject\",outcome=\"reject\"}", 3.0),
            ("notify_attempts_total{plugin=\"misbehaver-twice\",outcome=\"retry\"}", 6.0),
            ("notify_attempts_total{plugin=\"misbehaver-twice\",outcome=\"done\"}", 3.0),
            ("notify_attempt_duration_seconds_count{plugin=\"misbehaver-twice\"}", 9.0),
            ("notify_attempt_duration_seconds_bucket{plugin=\"logger\",le=\"+Inf\"}", 3.0),
            ("notify_dead_letters_total{plugin=\"misbehaver-reject\",reason=\"rejected\"}", 3.0),
            ("notify_dead_letters_total{plugin=\"\",reason=\"undecodable\"}", 1.0),
            ("notify_queue_messages{queue=\"source\",plugin=\"\"}", 0.0),
            ("notify_queue_messages{queue=\"dead\",plugin=\"\"}", 4.0),
            ("notify_queue_messages{queue=\"plugin\",plugin=\"logger\"}", 0.0),
            ("notify_plugin_state{plugin=\"logger\",state=\"running\"}", 1.0),
            ("notify_plugin_state{plugin=\"logger\",state=\"paused\"}", 0.0),
            ("notify_breaker_open{plugin=\"logger\"}", 0.0),
            ("notify_plugin_load_failed{plugin=\"logger\"}", 0.0),
            ("notify_calls_in_flight{plugin=\"logger\"}", 0.0),
            ("notify_instance_permits{state=\"used\"}", 0.0),
            ("notify_journal_dropped_total", 0.0),
            ("notify_spans_dropped_total", 0.0),
            ("notify_http_requests_total{plugin=\"logger\",result=\"2xx\"}", 0.0),
        ]);
        assert!(value(&page, "notify_journal_records_total").unwrap() > 0.0);
        for series in ["process_resident_memory_bytes", "process_open_fds", "process_threads", "process_start_time_seconds", "process_cpu_seconds_total"] {
            assert!(value(&page, series).unwrap() > 0.0, "{series}");
        }
        check_by_promtool(&page);

        fs::write(world.plugins().join("misbehaver-reject.wasm"), "not any more").unwrap();
        fs::remove_file(world.plugins().join("misbehaver-twice.wasm")).unwrap();
        eventually(SOON, "what is gone is told no more", || !admin.get("/metrics").body.contains("misbehaver-twice"));
        assert_eq!(admin.post("/api/v1/plugins/logger/pause", "").status, 200);
        world.order(&["create", "--user", "u", "--product", "p"]);
        await_values(&admin, &[
            ("notify_plugin_state{plugin=\"logger\",state=\"paused\"}", 1.0),
            ("notify_spills_total{plugin=\"logger\",reason=\"paused\"}", 1.0),
            ("notify_queue_messages{queue=\"plugin\",plugin=\"logger\"}", 1.0),
            ("notify_plugin_load_failed{plugin=\"misbehaver-reject\"}", 1.0),
            ("notify_attempts_total{plugin=\"misbehaver-reject\",outcome=\"reject\"}", 4.0),
        ]);
        eventually(SOON, "what waits grows old", || {
            value(&admin.get("/metrics").body, "notify_oldest_pending_age_seconds{plugin=\"logger\"}").unwrap() > 0.5
        });
        let plugins = admin.json("/api/v1/plugins");
        let logger = &plugins["plugins"][0];
        assert_eq!((&logger["counts"]["spilled"], &logger["queue"]["messages"]), (&1.into(), &1.into()), "{logger}");
        assert!(logger["p50_micros"].as_u64().unwrap() > 0, "{logger}");
        assert_eq!(logger["grants"], serde_json::json!({ "http": [], "mail": [], "networks": [], "secrets": [] }));
        host.stop();
    }
}

/// Checks the page with Prometheus' own tool.
fn check_by_promtool(page: &str) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut tool = command.stderr(Stdio::piped()).spawn().expect("promtool is there (Debian's package prometheus)");
    tool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = tool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

#[test]
fn the_last_seconds_are_told_and_a_stream_ends_with_the_host() {
    let world = World::on_sqlite();
    world.plug_logger();
    let (host, admin) = world.host_with_admin(&[]);
    await_readiness(&admin, None);
    let mut stream = admin.stream("/api/v1/stats/stream");
    world.order(&["create", "--user", "u", "--product", "p"]);
    let sample = loop {
        let (name, sample) = stream.next().expect("a sample");
        assert_eq!(name, "sample");
        if sample["received"] == 1 {
            break sample;
        }
    };
    assert_eq!((&sample["done"], &sample["failed"], &sample["dead"]), (&1.into(), &0.into(), &0.into()), "{sample}");
    assert!(sample["p50_micros"].as_u64().unwrap() > 0, "{sample}");
    let samples = admin.json("/api/v1/stats");
    assert!(samples["samples"].as_array().unwrap().contains(&sample), "{samples}");
    let many: Vec<_> = (0..31).map(|_| admin.stream("/api/v1/stats/stream")).collect();
    assert_eq!(admin.get("/api/v1/stats/stream").status, 503, "they are bounded");
    drop(many);
    eventually(SOON, "there is room again", || admin.get("/healthz").status == 200);
    host.stop();
    while stream.next().is_some() {}
}
