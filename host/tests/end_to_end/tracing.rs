//! A publisher's trace passes through the host. A collector receives the host's own spans, and OpenTelemetry's
//! library parses them.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use testbed::eventually;
use testbed::receiver::{Answer, Authority, Receiver, Reply};

use crate::mail::{self, Relay};
use crate::on_both_engines;
use crate::webhook::{create, plug};
use crate::world::{Host, SOON, World, built};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CAUSE: &str = "b7ad6b7169203331";
/// Maximum stop time when the last spans cannot be sent.
const STOP_MAX: Duration = Duration::from_secs(8);

fn parent() -> String {
    format!("00-{TRACE}-{CAUSE}-01")
}

fn python(script: &str) -> Command {
    let python = std::env::var_os("NOTIFY_TEST_PYTHON");
    let python = python.expect("NOTIFY_TEST_PYTHON is not set: run the tests by `cargo xtask test`");
    let mut command = Command::new(python);
    command.arg(format!("{}/tests/interop/{script}", env!("CARGO_MANIFEST_DIR")));
    command
}

/// Returns the spans that a collector received, decoded.
fn spans(collector: &Receiver) -> Vec<Value> {
    let mut python = python("spans.py").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let requests = collector.requests();
    let mut bodies = String::new();
    for request in &requests {
        assert_eq!((&*request.method, &*request.path), ("POST", "/v1/traces"));
        assert_eq!(request.header("content-type"), Some("application/x-protobuf"));
        bodies += &(BASE64_STANDARD.encode(&request.body) + "\n");
    }
    python.stdin.take().unwrap().write_all(bodies.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn named<'a>(spans: &'a [Value], name: &str) -> Vec<&'a Value> {
    spans.iter().filter(|span| span["name"] == name).collect()
}

/// Checks the parents within one trace: the message below `cause`, the attempts below it, the requests below those.
fn check_chain(spans: &[Value], queue: &str, trace: &str, cause: &str, host: &str) {
    assert!(spans.iter().all(|span| span["trace"] == trace), "{spans:#?}");
    let [receive] = named(spans, &format!("receive {queue}"))[..] else { panic!("one message: {spans:#?}") };
    assert_eq!(receive["parent"], cause, "{spans:#?}");
    let attempts = named(spans, "attempt hook");
    assert!(!attempts.is_empty() && attempts.iter().all(|attempt| attempt["parent"] == receive["span"]), "{spans:#?}");
    let requests = named(spans, &format!("POST {host}"));
    let below: Vec<_> = requests.iter().map(|request| &request["parent"]).collect();
    assert_eq!(below, attempts.iter().map(|attempt| &attempt["span"]).collect::<Vec<_>>(), "{spans:#?}");
    assert_eq!(spans.len(), 1 + 2 * attempts.len(), "{spans:#?}");
}

fn host(world: &World, collector: &str) -> Host {
    let host = world.host_with(&["--otlp", collector]);
    eventually(SOON, "the host is ready", || host.logged("ready: "));
    host
}

/// Returns a receiver whose status the test can change.
fn moody(status: u16) -> (Receiver, Arc<AtomicU16>) {
    let mood = Arc::new(AtomicU16::new(status));
    let own = Arc::clone(&mood);
    (Receiver::start(move |_| Reply::Answer(Answer::status(own.load(Ordering::SeqCst)))), mood)
}

on_both_engines! {
    fn a_publishers_trace_goes_out_of_the_webhook(world: &World) {
        let receiver = Receiver::answering(200);
        plug(world, "hook", &receiver.url("/"), "", "");
        let host = world.host();
        world.order(&["demo", "--traceparent", &parent()]);
        let arrived = |count: usize| {
            eventually(SOON, "requests arrive", || receiver.requests().len() == count);
            receiver.requests()
        };
        for request in arrived(2) {
            assert_eq!(request.header("traceparent"), Some(&*parent()), "as it came");
        }
        let printed = world.order(&["demo", "--traceparent", "new", "--json"]);
        let new = printed.iter().map(|line| serde_json::from_str::<Value>(line).unwrap()["traceparent"].clone());
        let (mut new, requests) = (new.collect::<Vec<_>>(), arrived(4));
        let mut got: Vec<Value> =
            requests[2..].iter().map(|request| request.header("traceparent").unwrap().into()).collect();
        new.sort_by_key(ToString::to_string);
        got.sort_by_key(ToString::to_string);
        assert_eq!(got, new);
        assert_ne!(got[0], got[1], "one for each");
        create(world);
        assert_eq!(arrived(5)[4].header("traceparent"), None, "nobody began one");
        host.stop();
    }

    fn the_collector_gets_what_became_of_an_event_in_the_publishers_trace(world: &World) {
        let (receiver, mood) = moody(503);
        let collector = Receiver::answering(200);
        plug(world, "hook", &receiver.url("/"), "", "");
        let host = host(world, &collector.origin());
        let order = world.order(&["create", "--user", "u", "--product", "p", "--traceparent", &parent()]).remove(0);
        eventually(SOON, "it is tried", || receiver.requests().len() == 1);
        mood.store(200, Ordering::SeqCst);
        eventually(SOON, "it is tried again", || receiver.requests().len() == 2);
        host.stop();
        let spans = spans(&collector);
        check_chain(&spans, &world.queue, TRACE, CAUSE, "127.0.0.1");
        let attempts = named(&spans, "attempt hook");
        let said = |name: &str| attempts.iter().map(|span| span["attributes"][name].clone()).collect::<Vec<_>>();
        assert_eq!(said("notify.outcome"), ["retry", "done"]);
        assert_eq!(said("notify.attempt"), [1, 2]);
        assert_eq!(said("notify.plugin"), ["hook", "hook"]);
        assert_eq!(said("cloudevents.event_type"), ["OrderCreated"; 2]);
        assert_eq!(said("cloudevents.event_subject"), [&*order; 2]);
        assert_eq!((&attempts[0]["status"], &attempts[1]["status"]), (&2.into(), &0.into()), "the first one failed");
        assert!(attempts[0]["message"].as_str().unwrap().contains("503"), "{attempts:?}");
        let statuses = named(&spans, "POST 127.0.0.1");
        let statuses: Vec<_> =
            statuses.iter().map(|span| span["attributes"]["http.response.status_code"].clone()).collect();
        assert_eq!(statuses, [503, 200]);
        // A receiver's own spans would become children of the right attempt.
        for (request, attempt) in receiver.requests().iter().zip(&attempts) {
            let below = format!("00-{TRACE}-{}-01", attempt["span"].as_str().unwrap());
            assert_eq!(request.header("traceparent"), Some(&*below));
        }
        let receive = &named(&spans, &format!("receive {}", world.queue))[0];
        let system = if world.url.starts_with("amqp") { "rabbitmq" } else { "sqlite" };
        assert_eq!(receive["attributes"]["messaging.system"], system);
        assert_eq!(receive["attributes"]["notify.result"], "routed");
        assert_eq!(receive["resource"]["service.name"], "notify-host");
        assert_eq!(receive["kind"], 5, "a consumer");
    }

    fn a_trace_that_the_host_began_survives_spill_dead_letter_and_replay(world: &World) {
        let (receiver, mood) = moody(404);
        let collector = Receiver::answering(200);
        plug(world, "hook", &receiver.url("/"), "", "");
        let running = host(world, &collector.origin());
        let done = world.plugin_command(&["pause", "hook"]);
        assert!(done.status.success(), "{done:?}");
        let order = create(world);
        let broker = world.broker();
        eventually(SOON, "it is spilled", || world.queue_state(&broker, &world.names().plugin("hook")).ready == 1);
        let done = world.plugin_command(&["resume", "hook"]);
        assert!(done.status.success(), "{done:?}");
        eventually(SOON, "it is dead", || world.queue_state(&broker, &world.names().dead()).ready == 1);
        mood.store(200, Ordering::SeqCst);
        let done = world.host_command(&["dead-letters", "replay", "--all", "--yes"]).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        eventually(SOON, "it is replayed", || receiver.requests().len() == 2);
        running.stop();
        let spans = spans(&collector);
        let trace = spans[0]["trace"].as_str().unwrap().to_owned();
        assert_ne!(trace, "0".repeat(32));
        check_chain(&spans, &world.queue, &trace, "", "127.0.0.1");
        let attempts = named(&spans, "attempt hook");
        let said = |name: &str| attempts.iter().map(|span| span["attributes"][name].clone()).collect::<Vec<_>>();
        assert_eq!(said("notify.outcome"), ["reject", "done"], "{order}");
        assert_eq!(said("notify.given_up"), [Value::from("rejected"), Value::Null]);
        assert_eq!(said("error.type"), [Value::from("http-404"), Value::Null]);
        for request in receiver.requests() {
            assert_eq!(&request.header("traceparent").unwrap()[3..35], trace);
        }
    }

    fn a_collector_that_is_away_or_silent_keeps_nobody_waiting(world: &World) {
        let nobody = format!("http://127.0.0.1:{}", testbed::free_port());
        let silent = Receiver::start(|_| Reply::Hang);
        let failing = Receiver::answering(500);
        for (collector, told) in [(&nobody, true), (&silent.origin(), false), (&failing.origin(), true)] {
            let receiver = Receiver::answering(200);
            plug(world, "hook", &receiver.url("/"), "", "");
            let host = host(world, collector);
            world.order(&["load", "--count", "200", "--quiet"]);
            let created = world.order(&["create", "--user", "u", "--product", "p"]).remove(0);
            let has_come = || receiver.requests().iter().any(|request| request.text().contains(&created));
            eventually(SOON, "events are delivered", has_come);
            let away = format!("spans do not reach the collector at {collector}");
            if told {
                host.wait_for(&away);
            }
            let began = Instant::now();
            host.stop();
            assert!(began.elapsed() < STOP_MAX, "{:?} with {collector}", began.elapsed());
            let log = host.child_guard.stderr();
            assert_eq!(log.matches(&away).count(), usize::from(told), "told once: {log}");
            assert!(log.contains("not all spans reached the collector"), "{log}");
        }
    }
}

#[test]
fn each_way_to_carry_a_trace_over_amqp_leads_to_the_same_spans() {
    let world = World::on_rabbitmq();
    let receiver = Receiver::answering(200);
    let collector = Receiver::answering(200);
    plug(&world, "hook", &receiver.url("/"), "", "");
    let host = host(&world, &collector.origin());
    let modes = ["plain", "structured", "binary:cloudEvents:", "binary:ce-"];
    let trace = |number: usize| format!("{}{number}", &TRACE[..31]);
    for (number, mode) in modes.into_iter().enumerate() {
        let published = python("traced.py")
            .args(["--url", &world.url, "--exchange", &world.exchange, "--id", mode, "--mode", mode])
            .args(["--traceparent", &format!("00-{}-{CAUSE}-01", trace(number)), "--tracestate", "shop=a"])
            .output()
            .unwrap();
        assert!(published.status.success(), "{published:?}");
    }
    eventually(SOON, "all arrive", || receiver.requests().len() == modes.len());
    host.stop();
    let spans = spans(&collector);
    for (number, mode) in modes.into_iter().enumerate() {
        let (own, trace): (Vec<Value>, _) = {
            let trace = trace(number);
            (spans.iter().filter(|span| span["trace"] == *trace).cloned().collect(), trace)
        };
        check_chain(&own, &world.queue, &trace, CAUSE, "127.0.0.1");
        assert!(own.iter().all(|span| span["state"] == "shop=a"), "{mode}: {own:#?}");
        let taken = named(&own, &format!("receive {}", world.queue));
        assert_eq!(taken[0]["attributes"]["cloudevents.event_id"], mode);
        let requests = receiver.requests();
        let request = requests.iter().find(|request| request.text().contains(mode)).unwrap();
        let attempt = named(&own, "attempt hook")[0]["span"].as_str().unwrap().to_owned();
        assert_eq!(request.header("traceparent"), Some(&*format!("00-{trace}-{attempt}-01")), "{mode}");
        assert_eq!(request.header("tracestate"), Some("shop=a"), "{mode}");
    }
}

#[test]
fn what_leaves_by_mail_and_by_wasi_is_told_too() {
    let world = World::on_sqlite();
    let relay = Relay::usual(&world);
    let server = relay.start_usual(&[]);
    mail::plug_email(&world, "to = \"{{ data.email }}\"\nsubject = \"{{ data.order_id }}\"\n");
    let receiver = Receiver::start(|request| match &*request.path {
        "/reset?key=hush" => Reply::Reset,
        _ => Reply::Answer(Answer::status(404)),
    });
    let toml = format!(
        "[grants]\nhttp = [{:?}]\nnetworks = [\"127.0.0.0/8\"]\n[config]\nurls = {:?}\n",
        receiver.origin(),
        [receiver.url("/missing"), receiver.url("/reset?key=hush")]
    );
    world.plug("caller", &built("NOTIFY_TEST_GUESTS", "caller.wasm"), &toml);
    let collector = Receiver::answering(200);
    let host = host(&world, &collector.origin());
    mail::publish(&world, &[mail::order(1, "ann@example.com")]);
    eventually(SOON, "the mail arrives", || server.stdout().contains("ann@example.com"));
    eventually(SOON, "all requests arrive", || receiver.requests().len() == 4);
    host.stop();
    let spans = spans(&collector);
    let attempt = |plugin: &str| named(&spans, &format!("attempt {plugin}"))[0]["span"].clone();
    let [sent] = named(&spans, "mail localhost")[..] else { panic!("one mail: {spans:#?}") };
    assert_eq!((&sent["parent"], &sent["status"]), (&attempt("email"), &0.into()));
    assert_eq!(sent["attributes"]["notify.mail.recipients"], 1);
    let calls = named(&spans, "POST 127.0.0.1");
    assert!(calls.iter().all(|call| call["parent"] == attempt("caller") && call["kind"] == 3), "{calls:#?}");
    let errors: Vec<_> = calls.iter().map(|call| call["attributes"]["error.type"].as_str().unwrap()).collect();
    assert_eq!(errors, ["404", "404", "unavailable", "unavailable"], "by the contract and by WASI");
    let all = format!("{spans:?}");
    assert!(!all.contains("hush") && !all.contains("ann@example.com"), "{all}");
}

#[test]
fn a_collector_behind_tls_and_a_token_is_reached_and_the_token_is_told_nobody() {
    const TOKEN: &str = "Bearer 8UxWlZ3nRk";
    let world = World::on_sqlite();
    world.plug_logger();
    let authority = Authority::new();
    fs::write(world.path("ca.pem"), authority.pem()).unwrap();
    fs::write(world.path("token"), format!("{TOKEN}\n")).unwrap();
    let collector = Receiver::secure(&authority.issue("localhost"), |_| Reply::Answer(Answer::status(200)));
    let toml = fs::read_to_string(world.path("host.toml")).unwrap();
    let tracing = format!(
        "[egress]\nca = [\"ca.pem\"]\n[tracing]\notlp = {:?}\nsample-ratio = 0.0\n\
         [tracing.headers.authorization]\nfile = \"token\"\n",
        collector.origin()
    );
    fs::write(world.path("host.toml"), toml + &tracing).unwrap();
    let host = world.host_with(&["--log-level", "debug"]);
    eventually(SOON, "the host is ready", || host.logged("ready: "));
    for _ in 0..5 {
        create(&world);
    }
    let kept = world.order(&["create", "--user", "u", "--product", "p", "--traceparent", &parent()]).remove(0);
    host.wait_for_order(&kept);
    // Spans are exported before the host stops.
    eventually(SOON, "the spans arrive", || !collector.requests().is_empty());
    host.stop();
    assert!(collector.requests().iter().all(|request| request.header("authorization") == Some(TOKEN)));
    let spans = spans(&collector);
    assert_eq!(spans.len(), 2, "of those that begin here none is kept: {spans:#?}");
    assert!(spans.iter().all(|span| span["trace"] == TRACE));
    assert!(!host.logged(TOKEN) && !host.logged(&TOKEN[7..]), "{}", host.child_guard.stderr());
}
