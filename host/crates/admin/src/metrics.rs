//! `/metrics`: all metrics, for Prometheus. A plugin's metrics disappear with the plugin.

use std::sync::Arc;

use axum::extract::State;
use delivery::Runners;
use event::clock::now;
use http::HeaderValue;
use http::header::{CONTENT_TYPE, HeaderName};
use supervisor::control::PluginState;
use telemetry::metrics::{Ended, GivenUp, LogLoss, Requested, SpillReason};

use crate::exposition::{self, Exposition};
use crate::{Admin, depths, process};

pub(super) async fn show(State(admin): State<Arc<Admin>>) -> ([(HeaderName, HeaderValue); 1], String) {
    let mut page = Exposition::default();
    write_host(&mut page, &admin);
    let runners = admin.sources.host.control.registry.runners();
    write_counts(&mut page, &admin, &runners);
    write_plugins(&mut page, &admin, &runners);
    write_queues(&mut page, &admin, &runners);
    process::write(&mut page);
    ([(CONTENT_TYPE, HeaderValue::from_static(exposition::CONTENT_TYPE))], page.into_text())
}

fn write_host(page: &mut Exposition, admin: &Admin) {
    let delivery = admin.sources.host.status.look();
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    page.gauge("notify_build_info", "The version of the host, as a label").count(&version, 1);
    page.gauge("notify_start_time_seconds", "When the host began, in seconds since 1970")
        .value(&[], admin.started_at.as_duration().as_secs_f64());
    page.gauge("notify_ready", "Whether the host takes events and hands them to plugins, as /readyz says")
        .count(&[], admin.sources.host.reasons().is_empty().into());
    page.gauge("notify_broker_connected", "Whether there is a session with the broker")
        .count(&[], delivery.connected.is_some().into());
    page.counter("notify_broker_sessions_total", "Sessions with the broker that were opened")
        .count(&[], delivery.sessions);
    page.gauge("notify_unacknowledged_messages", "Messages of the source that the host has taken and not settled")
        .count(&[], delivery.unacknowledged);
    let (used, free) = admin.sources.instance_permits.used_and_free();
    let mut instance_permits = page.gauge("notify_instance_permits", "Room for attempts of all plugins together");
    for (state, count) in [("used", used), ("free", free)] {
        instance_permits.count(&[("state", state)], count as u64);
    }
    let (written, dropped) = admin.sources.journal.written_and_dropped();
    page.counter("notify_journal_records_total", "Records that were written into the journal").count(&[], written);
    page.counter("notify_journal_dropped_total", "Records that are missing in the journal").count(&[], dropped);
    page.counter("notify_spans_dropped_total", "Spans that did not reach the collector")
        .count(&[], admin.sources.metrics.host.spans_dropped.get());
    let log = &admin.sources.log;
    let mut lost = page.counter("notify_log_lines_lost_total", "Log lines that were not written, by why");
    for why in LogLoss::ALL {
        lost.count(&[("reason", why.as_str())], log.lines_lost(*why));
    }
    page.counter("notify_log_failed_writes_total", "Writes to the log that failed").count(&[], log.failed_writes());
    page.gauge("notify_log_blocked", "Whether the log takes no lines: it cannot be written, or nobody reads it")
        .count(&[], log.is_blocked().into());
}

fn write_counts(page: &mut Exposition, admin: &Admin, runners: &Runners) {
    let host = &admin.sources.metrics.host;
    let mut events = page.counter("notify_events_total", "Messages of the source that were settled, by what they were");
    for (result, count) in [
        ("routed", &host.routed),
        ("unmatched", &host.unmatched),
        ("duplicate", &host.duplicate),
        ("undecodable", &host.undecodable),
        ("quarantined", &host.quarantined),
    ] {
        events.count(&[("result", result)], count.get());
    }
    page.histogram("notify_event_settle_seconds", "From when a message of the source came until it was acknowledged")
        .times(&[], &host.settled.tally());
    let mut attempts = page.counter("notify_attempts_total", "Attempts, by what they came to");
    for runner in runners.iter() {
        for ended in Ended::ALL {
            let labels = [("plugin", &*runner.name), ("outcome", ended.as_str())];
            attempts.count(&labels, runner.metrics.attempts(*ended));
        }
    }
    let mut durations = page.histogram("notify_attempt_duration_seconds", "How long attempts took");
    for runner in runners.iter() {
        durations.times(&[("plugin", &runner.name)], &runner.metrics.attempt_times.tally());
    }
    let mut spills = page.counter("notify_spills_total", "Deliveries that went to their plugin's queue untried");
    for runner in runners.iter() {
        for why in SpillReason::ALL {
            spills.count(&[("plugin", &runner.name), ("reason", why.as_str())], runner.metrics.spills(*why));
        }
    }
    let mut dead =
        page.counter("notify_dead_letters_total", "Deliveries that were given up; messages that are no event");
    // These belong to no plugin.
    for (why, count) in [(GivenUp::Undecodable, &host.undecodable), (GivenUp::Quarantined, &host.quarantined)] {
        dead.count(&[("plugin", ""), ("reason", why.as_str())], count.get());
    }
    for runner in runners.iter() {
        for why in GivenUp::ALL {
            dead.count(&[("plugin", &runner.name), ("reason", why.as_str())], runner.metrics.dead_letters(*why));
        }
    }
    let mut requests = page.counter("notify_http_requests_total", "Requests that plugins wanted to send, by result");
    for runner in runners.iter() {
        for result in Requested::ALL {
            requests.count(&[("plugin", &runner.name), ("result", result.as_str())], runner.metrics.requests(*result));
        }
    }
}

fn write_plugins(page: &mut Exposition, admin: &Admin, runners: &Runners) {
    let reports = admin.sources.host.control.list();
    let mut in_flight = page.gauge("notify_calls_in_flight", "Calls of the plugin that are being made");
    for runner in runners.iter() {
        in_flight.count(&[("plugin", &runner.name)], runner.in_flight() as u64);
    }
    let mut states = page.gauge("notify_plugin_state", "1 for the state that the plugin is in");
    for report in &reports {
        for state in PluginState::ALL {
            let labels = [("plugin", &*report.name), ("state", state.as_str())];
            states.count(&labels, (report.state == *state).into());
        }
    }
    let mut failed =
        page.gauge("notify_plugin_load_failed", "Whether what is in the folder for the plugin does not load");
    for report in &reports {
        failed.count(&[("plugin", &report.name)], report.problem.is_some().into());
    }
    let mut breakers = page.gauge("notify_breaker_open", "Whether the plugin is left alone because its calls failed");
    for runner in runners.iter() {
        breakers.count(&[("plugin", &runner.name)], runner.is_failing().into());
    }
}

fn write_queues(page: &mut Exposition, admin: &Admin, runners: &Runners) {
    // Without a session the last depths are stale.
    if admin.sources.host.status.look().connected.is_none() {
        return;
    }
    let depths = depths::last(&admin.depths);
    let mut messages = page.gauge("notify_queue_messages", "Messages that wait in the queue, where the broker says so");
    for (queue, count) in [("source", depths.source), ("dead", depths.dead)] {
        if let Some(count) = count {
            messages.count(&[("queue", queue), ("plugin", "")], count);
        }
    }
    for (plugin, depth) in &depths.plugins {
        messages.count(&[("queue", "plugin"), ("plugin", plugin)], depth.messages);
    }
    let mut ages = page.gauge(
        "notify_oldest_pending_age_seconds",
        "The most that what waits longest in the plugin's queue can have waited while this host looked; 0 if nothing waits",
    );
    for (plugin, depth) in &depths.plugins {
        let runner = runners.iter().find(|runner| *runner.name == **plugin);
        let taken = runner.map_or(0, |runner| runner.metrics.queued_at());
        let age = std::time::Duration::from_millis(depth.age_max(taken, now()).unwrap_or(0));
        ages.value(&[("plugin", plugin)], age.as_secs_f64());
    }
}
