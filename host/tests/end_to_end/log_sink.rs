//! A log that is not read or cannot be written stops nothing else. An event is done only once it is in a log.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, PipeReader, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use broker::Broker;
use serde_json::Value;
use testbed::receiver::Receiver;
use testbed::{ChildGuard, eventually, free_port};

use crate::admin::client::Client;
use crate::admin::counts::value;
use crate::on_both_engines;
use crate::webhook;
use crate::world::{SOON, World, built};

/// Number of logger lines that fill a pipe of 64 KiB several times.
const FLOOD: usize = 1000;
/// Maximum stop time. An idle host ends at once and gives its log a second; the rest is for a busy machine.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);
const BLOCKED: &str = "notify_log_blocked";

/// Starts a host with this standard error.
fn host(world: &World, stderr: impl Into<Stdio>) -> (ChildGuard, Client) {
    let at = format!("127.0.0.1:{}", free_port());
    let mut command = world.host_command(&["run", "--log-format", "json", "--admin", &at]);
    command.arg("--plugins").arg(world.plugins());
    (ChildGuard::spawn_with_stderr(command, stderr), Client { at, headers: Vec::new() })
}

/// Plugs a guest that logs a thousand lines for each event.
fn plug_flood(world: &World) {
    let toml = "[limits]\ntime = \"1m\"\n[config]\nact = \"log-flood\"\n";
    world.plug("flood", &built("NOTIFY_TEST_GUESTS", "misbehaver.wasm"), toml);
}

fn await_ready(admin: &Client) {
    // Nothing answers before the server listens.
    eventually(SOON, "it listens", || std::net::TcpStream::connect(&admin.at).is_ok());
    eventually(SOON, "it is ready", || admin.get("/readyz").status == 200);
}

fn metric(admin: &Client, series: &str) -> f64 {
    let page = admin.get("/metrics").body;
    value(&page, series).unwrap_or_else(|| panic!("no {series} in:\n{page}"))
}

/// Returns the ids of the orders in the logger's lines.
fn orders_in(log: &str) -> Vec<String> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter(|line| line["plugin"] == "logger")
        .filter_map(|line| serde_json::from_str::<Value>(line["message"].as_str()?).ok())
        .filter_map(|event| Some(event["data"]["order_id"].as_str()?.to_owned()))
        .collect()
}

fn publish(world: &World, count: usize) -> BTreeSet<String> {
    let expected = count;
    let count = count.to_string();
    let lines = world.order(&["load", "--count", &count, "--mix", "created=100", "--ids"]);
    // The load's report follows the ids.
    let ids: BTreeSet<_> = lines.into_iter().filter(|line| line.parse::<uuid::Uuid>().is_ok()).collect();
    assert_eq!(ids.len(), expected);
    ids
}

/// Returns the number of events that wait for a plugin.
fn waiting(world: &World, broker: &Broker, plugin: &str) -> usize {
    let state = world.queue_state(broker, &world.names().plugin(plugin));
    usize::try_from(state.ready + state.delayed).unwrap()
}

/// Reads the rest of a pipe after its writers are gone.
fn rest_of(mut pipe: PipeReader) -> String {
    let mut rest = Vec::new();
    pipe.read_to_end(&mut rest).unwrap();
    String::from_utf8_lossy(&rest).into_owned()
}

on_both_engines! {
    fn a_log_that_nobody_reads_stops_no_other_plugin_and_no_signal(world: &World) {
        let receiver = Receiver::answering(204);
        webhook::plug(world, "webhook", &receiver.url("/"), "", "");
        world.plug_logger();
        plug_flood(world);
        let (unread, stderr) = std::io::pipe().unwrap();
        let (host, admin) = host(world, stderr);
        await_ready(&admin);
        let count = 50;
        let published = publish(world, count);
        eventually(SOON, "the webhook is called for each", || receiver.requests().len() >= count);
        eventually(SOON, "lines are dropped and counted", || {
            metric(&admin, "notify_log_lines_lost_total{reason=\"queue-full\"}") > 0.0
        });
        assert!(metric(&admin, BLOCKED) > 0.0);
        let asked = Instant::now();
        assert_eq!(admin.get("/healthz").status, 200);
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        // The logger's events wait, and its state says so.
        let listed = admin.json("/api/v1/plugins")["plugins"].as_array().unwrap().clone();
        let logger = listed.iter().find(|plugin| plugin["name"] == "logger").unwrap();
        assert_eq!(logger["state"], "waiting", "{logger}");
        assert!(logger["waits_for"].as_str().unwrap().contains("nobody has read standard error"), "{logger}");
        eventually(SOON, "no call waits for its lines any more", || {
            metric(&admin, "notify_calls_in_flight{plugin=\"logger\"}") < 1.0
        });
        // The host does not call it in vain.
        let later = publish(world, count);
        eventually(SOON, "the webhook is called for these", || receiver.requests().len() >= 2 * count);
        eventually(SOON, "the logger's wait untried", || {
            metric(&admin, "notify_spills_total{plugin=\"logger\",reason=\"log-blocked\"}") > 49.0
        });

        host.terminate();
        let status = host.wait_timeout(STOP_TIME_MAX).expect("it ends in time though nobody reads");
        assert!(status.success(), "{status}");
        let first: BTreeSet<_> = orders_in(&rest_of(unread)).into_iter().collect();
        // Once its log is read, the logger gets every event that was in no log.
        let next = world.host();
        eventually(SOON, "every order is in a log", || &first | &next.distinct_orders() == &published | &later);
        next.stop();
        assert_eq!(world.queue_state(&world.broker(), &world.names().dead()).ready, 0);
    }

    fn a_required_line_is_in_the_pipe_before_its_event_is_acknowledged(world: &World) {
        world.plug_logger();
        let (read, stderr) = std::io::pipe().unwrap();
        let (host, admin) = host(world, stderr);
        await_ready(&admin);
        let published = publish(world, FLOOD);
        eventually(SOON, "the pipe is full", || metric(&admin, BLOCKED) > 0.0);
        let broker = world.broker();
        eventually(SOON, "everything is in hand or in the logger's queue", || {
            world.queue_state(&broker, &world.queue).ready == 0
        });
        host.kill();
        let first: BTreeSet<_> = orders_in(&rest_of(read)).into_iter().collect();
        assert!(!first.is_empty() && first.len() < FLOOD, "{} lines fit into the pipe", first.len());
        let next = world.host();
        let all = || &first | &next.distinct_orders();
        eventually(SOON, "what was in no log comes again", || all().len() == FLOOD);
        assert_eq!(all(), published);
        // Some lines had reached the pipe, which the host could no longer know.
        eventually(SOON, "what comes twice is done, too", || waiting(world, &broker, "logger") == 0);
        next.stop();
        for queue in [world.queue.clone(), world.names().plugin("logger"), world.names().dead()] {
            let state = world.queue_state(&broker, &queue);
            assert_eq!((state.ready, state.delayed), (0, 0), "{queue}");
        }
    }

    fn a_full_disk_under_the_log_leaves_its_events_undone(world: &World) {
        let receiver = Receiver::answering(204);
        webhook::plug(world, "webhook", &receiver.url("/"), "", "");
        world.plug_logger();
        let (host, admin) = host(world, OpenOptions::new().write(true).open("/dev/full").unwrap());
        await_ready(&admin);
        let published = publish(world, 100);
        eventually(SOON, "the webhook is called for each", || receiver.requests().len() >= published.len());
        let broker = world.broker();
        eventually(SOON, "the logger's are in its queue", || {
            waiting(world, &broker, "logger") == published.len() && metric(&admin, "notify_calls_in_flight{plugin=\"logger\"}") < 1.0
        });
        assert!(metric(&admin, "notify_log_failed_writes_total") > 0.0);
        assert!(metric(&admin, "notify_attempts_total{plugin=\"logger\",outcome=\"done\"}") < 1.0, "done means done");
        assert!(metric(&admin, "notify_breaker_open{plugin=\"logger\"}") < 1.0, "the plugin is well");
        assert!(metric(&admin, "notify_log_lines_lost_total{reason=\"queue-full\"}") < 1.0);
        let plugins = admin.json("/api/v1/plugins");
        assert!(plugins.to_string().contains("No space left on device"), "{plugins}");
        host.terminate();
        let status = host.wait_timeout(STOP_TIME_MAX).expect("it ends in time");
        assert!(status.success(), "{status}");

        let next = world.host();
        eventually(SOON, "every order is in a log", || next.distinct_orders() == published);
        next.stop();
        assert_eq!(next.orders().len(), published.len(), "each once");
        assert_eq!(world.queue_state(&world.broker(), &world.names().dead()).ready, 0);
    }
}

/// Opens a FIFO for reading, with or without a writer, and collects its text until its writers close it.
fn collect(fifo: &Path) -> Arc<Mutex<String>> {
    let collected = Arc::<Mutex<String>>::default();
    let (fifo, own) = (File::open(fifo).unwrap(), Arc::clone(&collected));
    std::thread::spawn(move || {
        for line in BufReader::new(fifo).lines() {
            let mut all = own.lock().unwrap();
            all.push_str(&line.unwrap_or_default());
            all.push('\n');
        }
    });
    collected
}

#[test]
fn what_a_log_could_not_take_comes_once_it_can_and_counts_as_no_attempt() {
    let world = World::on_sqlite();
    world.plug(
        "logger",
        &built("NOTIFY_TEST_PLUGINS", "logger.wasm"),
        "[retry]\nattempts = 1\n[config]\nformat = \"json\"\n",
    );
    let fifo = world.path("log");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    // Open a reader first; without one, a write fails.
    let reader =
        OpenOptions::new().read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed()).open(&fifo);
    let (host, admin) = host(&world, OpenOptions::new().write(true).open(&fifo).unwrap());
    await_ready(&admin);
    drop(reader);
    let published = publish(&world, 20);
    let broker = world.broker();
    eventually(SOON, "the log fails, and the logger's events wait", || {
        metric(&admin, BLOCKED) > 0.0 && waiting(&world, &broker, "logger") == published.len()
    });
    let log = collect(&fifo);
    let orders = || orders_in(&log.lock().unwrap()).into_iter().collect::<BTreeSet<_>>();
    eventually(SOON, "every order is in the log", || orders() == published);
    eventually(SOON, "the log says what happened to it", || {
        let log = log.lock().unwrap();
        log.contains("the log cannot be written: standard error: Broken pipe")
            && log.contains("the log can be written again after")
    });
    assert!(metric(&admin, BLOCKED) < 1.0);
    host.terminate();
    assert!(host.wait_timeout(SOON).expect("it stops").success());
    let log = log.lock().unwrap();
    assert!(log.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "whole lines:\n{log}");
    // Each event has one attempt, and it was not used up.
    assert_eq!(world.queue_state(&broker, &world.names().dead()).ready, 0);
}

#[test]
fn lines_that_were_dropped_are_told_once_somebody_reads() {
    let world = World::on_sqlite();
    plug_flood(&world);
    let (unread, stderr) = std::io::pipe().unwrap();
    let (host, admin) = host(&world, stderr);
    await_ready(&admin);
    publish(&world, 40);
    let dropped = "notify_log_lines_lost_total{reason=\"queue-full\"}";
    eventually(SOON, "lines are dropped", || metric(&admin, dropped) > 0.0);
    eventually(SOON, "all was called", || {
        metric(&admin, "notify_attempt_duration_seconds_count{plugin=\"flood\"}") > 39.0
    });
    let lost = metric(&admin, dropped);
    let reading = std::thread::spawn(move || rest_of(unread));
    eventually(SOON, "the log takes lines again", || metric(&admin, BLOCKED) < 1.0);
    host.terminate();
    assert!(host.wait_timeout(SOON).expect("it stops").success());
    drop(host);
    let log = reading.join().unwrap();
    let told = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let told = told.filter(|line| line["message"].to_string().contains("log lines are missing here"));
    let told: f64 = told.map(|line| line["lines"].as_f64().unwrap()).sum();
    assert!((told - lost).abs() < 0.5, "{lost} were dropped, and {told} told of");
}

#[test]
fn a_plugin_whose_log_is_best_effort_is_done_without_it() {
    let world = World::on_sqlite();
    let toml = "log = \"best-effort\"\n[config]\nformat = \"json\"\n";
    world.plug("logger", &built("NOTIFY_TEST_PLUGINS", "logger.wasm"), toml);
    world.plug(
        "witness",
        &built("NOTIFY_TEST_GUESTS", "witness.wasm"),
        "log = \"required\"\n[config]\nlabel = \"w\"\n",
    );
    let (host, admin) = host(&world, OpenOptions::new().write(true).open("/dev/full").unwrap());
    await_ready(&admin);
    publish(&world, 10);
    eventually(SOON, "the logger is done", || {
        metric(&admin, "notify_attempts_total{plugin=\"logger\",outcome=\"done\"}") > 9.0
    });
    let broker = world.broker();
    eventually(SOON, "whoever requires it is not", || waiting(&world, &broker, "witness") == 10);
    assert!(metric(&admin, "notify_attempts_total{plugin=\"witness\",outcome=\"done\"}") < 1.0);
    host.terminate();
    assert!(host.wait_timeout(SOON).expect("it stops").success());
}
