//! The webhook plugin sends an order to a real receiver, which verifies it with widely used libraries.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use testbed::eventually;
use testbed::receiver::{Answer, Authority, Receiver, Reply, Request};

use crate::world::{SOON, World, built};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const NEW_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OLD_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const FOREIGN_SECRET: &str = "whsec_AAAAsBQIhrscChlQIMV+b5sSYspob7oD";

/// Resolution of HTTP dates.
const SECOND: Duration = Duration::from_secs(1);

/// Plugs the webhook plugin for orders, with these tables and further lines of `[config]`.
pub(crate) fn plug(world: &World, name: &str, url: &str, tables: &str, config: &str) {
    let origin: Vec<_> = url.splitn(4, '/').take(3).collect();
    let toml = format!(
        "[[subscriptions]]\nevent-type = \"OrderCreated\"\n\
         [grants]\nhttp = [{:?}]\nnetworks = [\"127.0.0.0/8\"]\n{tables}\n[config]\nurl = {url:?}\n{config}\n",
        origin.join("/")
    );
    world.plug(name, &built("NOTIFY_TEST_PLUGINS", "webhook.wasm"), &toml);
}

pub(crate) fn create(world: &World) -> String {
    world.order(&["create", "--user", "user123", "--product", "iPhone 15 \"blau\" für 5 €"]).remove(0)
}

fn arrived(receiver: &Receiver, count: usize) -> Vec<Request> {
    eventually(SOON, &format!("{count} requests arrive"), || receiver.requests().len() >= count);
    receiver.requests()
}

/// Returns the official libraries' reading of a request.
fn understood(request: &Request, secrets: &[&str]) -> Value {
    let python = std::env::var_os("NOTIFY_TEST_PYTHON");
    let python = python.expect("NOTIFY_TEST_PYTHON is not set: run the tests by `cargo xtask test`");
    let script = format!("{}/tests/interop/webhook.py", env!("CARGO_MANIFEST_DIR"));
    let mut python = Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let headers: serde_json::Map<_, _> =
        request.headers.iter().map(|(name, value)| (name.to_lowercase(), json!(value))).collect();
    let input = json!({ "headers": headers, "body": BASE64_STANDARD.encode(&request.body), "secrets": secrets });
    python.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "{request:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn an_order_arrives_by_https_and_both_its_signatures_verify() {
    let world = World::on_rabbitmq();
    let authority = Authority::new();
    fs::write(world.path("ca.pem"), authority.pem()).unwrap();
    let host_toml = fs::read_to_string(world.path("host.toml")).unwrap();
    fs::write(world.path("host.toml"), format!("{host_toml}[egress]\nca = [\"ca.pem\"]\n")).unwrap();
    let receiver = Receiver::secure(&authority.issue("localhost"), |_| Reply::Answer(Answer::status(204)));
    fs::write(world.plugins().join("new-secret"), NEW_SECRET).unwrap();
    fs::write(world.plugins().join("old-secret"), OLD_SECRET).unwrap();
    fs::write(world.plugins().join("token"), "the-token").unwrap();
    let plug_as = |name: &str, path: &str| {
        plug(
            &world,
            name,
            &receiver.url(path),
            "[secrets]\nnew.file = \"new-secret\"\nold.file = \"old-secret\"\ntoken.file = \"token\"\n",
            "sign = [\"new\", \"old\"]\n\
             headers = { x-team = \"orders\", authorization = { secret = \"token\", prefix = \"Bearer \" } }",
        );
    };
    plug_as("signed", "/orders");
    // The core module lacks the standard library's clock.
    plug_as("core", "/core");
    fs::copy(built("NOTIFY_TEST_PLUGINS_CORE", "webhook.wasm"), world.plugins().join("core.wasm")).unwrap();
    let host = world.host();
    let id = create(&world);
    let mut requests = arrived(&receiver, 2);
    host.stop();
    requests.sort_by_key(|request| request.path.clone());
    assert_eq!(requests.iter().map(|request| &*request.path).collect::<Vec<_>>(), ["/core", "/orders"]);
    for request in requests {
        assert_eq!(request.method, "POST");
        for (name, value) in [
            ("x-team", "orders"),
            ("authorization", "Bearer the-token"),
            ("content-type", "application/cloudevents+json"),
            ("user-agent", concat!("notify-host/", env!("CARGO_PKG_VERSION"))),
        ] {
            assert_eq!(request.headers_named(name).collect::<Vec<_>>(), [value], "{name}");
        }
        assert_eq!(request.header("webhook-id"), request.header("idempotency-key"));
        let answer = understood(&request, &[NEW_SECRET, OLD_SECRET, FOREIGN_SECRET]);
        assert_eq!(answer["verified"], json!([true, true, false]));
        assert_eq!(answer["attributes"]["type"], "OrderCreated");
        assert_eq!(answer["data"]["order_id"], id.as_str());
        assert_eq!(answer["data"]["product"], "iPhone 15 \"blau\" für 5 €");
        let forged = Request { body: request.text().replace("user123", "user124").into(), ..request };
        assert_eq!(understood(&forged, &[NEW_SECRET, OLD_SECRET])["verified"], json!([false, false]));
    }
}

#[test]
fn a_cloud_event_is_the_same_in_both_modes_and_its_trace_goes_on() {
    let world = World::on_rabbitmq();
    let receiver = Receiver::answering(200);
    plug(&world, "structured", &receiver.url("/structured"), "", "");
    plug(&world, "binary", &receiver.url("/binary"), "", "format = \"binary\"");
    plug(
        &world,
        "template",
        &receiver.url("/orders/{{ data.order_id }}?of={{ source }}"),
        "",
        "template = '{\"text\": \"{{ type }} of {{ data.name }}\", \"all\": {{ data }}}'\n\
         method = \"PUT\"",
    );
    let host = world.host();
    let data = r#"{"order_id": "a/b",   "name": "Zoë \"Z\" – 1%", "price": 1.50}"#;
    let event = format!(
        r#"{{"specversion":"1.0","id":"e 1","source":"/shop/ü","type":"OrderCreated","time":"2026-01-02T03:04:05Z","traceparent":"{PARENT}","tracestate":"a=1","data":{data}}}"#
    );
    fs::write(world.path("events"), event).unwrap();
    world.order(&["send", world.path("events").to_str().unwrap()]);
    let requests = arrived(&receiver, 3);
    host.stop();
    let request = |path: &str| requests.iter().find(|request| request.path.starts_with(path)).unwrap();
    let (structured, binary, template) = (request("/structured"), request("/binary"), request("/orders"));
    let (one, other) = (understood(structured, &[]), understood(binary, &[]));
    assert_eq!(one["data"], other["data"]);
    assert_eq!(one["attributes"], other["attributes"]);
    for (name, value) in [
        ("id", "e 1"),
        ("source", "/shop/ü"),
        ("time", "2026-01-02 03:04:05+00:00"),
        ("traceparent", PARENT),
        ("tracestate", "a=1"),
    ] {
        assert_eq!(one["attributes"][name], value);
    }
    assert!(structured.text().contains(data), "it is embedded as it came: {}", structured.text());
    assert_eq!(binary.text(), data, "it is sent as it came");
    for request in [structured, binary, template] {
        assert_eq!(request.header("traceparent"), Some(PARENT));
        assert_eq!(request.header("tracestate"), Some("a=1"));
    }
    assert_eq!((&*template.method, &*template.path), ("PUT", "/orders/a%2Fb?of=%2Fshop%2F%C3%BC"));
    let body: Value = serde_json::from_str(&template.text()).unwrap();
    assert_eq!(body["text"], "OrderCreated of Zoë \"Z\" – 1%");
    assert_eq!(body["all"]["price"], 1.5);
}

/// Returns a receiver that gives `answer` once and then accepts everything, and the times of its requests.
fn impatient(answer: impl Fn() -> Answer + Send + Sync + 'static) -> (Receiver, Arc<Mutex<Vec<SystemTime>>>) {
    let times = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&times);
    let receiver = Receiver::start(move |_| {
        let mut times = kept.lock().unwrap();
        times.push(SystemTime::now());
        Reply::Answer(if times.len() == 1 { answer() } else { Answer::status(200) })
    });
    (receiver, times)
}

#[test]
fn a_receiver_that_asks_for_patience_gets_it_and_knows_the_repetition() {
    let world = World::on_sqlite();
    let wait = 3 * SECOND;
    let date = move |from: SystemTime| httpdate::fmt_http_date(from + wait);
    let skewed = Duration::from_hours(1);
    let (seconds, by_seconds) = impatient(|| Answer::status(429).header("Retry-After", "3"));
    let (dates, by_date) = impatient(move || Answer::status(503).header("retry-after", date(SystemTime::now())));
    // The receiver's clock is an hour ahead; only the difference of its two dates counts.
    let (ahead, by_its_own_clock) = impatient(move || {
        let now = SystemTime::now() + skewed;
        Answer::status(429).header("Date", httpdate::fmt_http_date(now)).header("Retry-After", date(now))
    });
    let receivers = [("seconds", &seconds), ("dates", &dates), ("ahead", &ahead)];
    for (name, receiver) in receivers {
        plug(&world, name, &receiver.url("/"), "", "");
    }
    let host = world.host();
    create(&world);
    for (_, receiver) in receivers {
        let requests = arrived(receiver, 2);
        let ids: Vec<_> = requests.iter().map(|request| request.header("idempotency-key")).collect();
        assert!(ids[0].is_some() && ids[0] == ids[1], "a repetition is known by its id: {ids:?}");
    }
    host.stop();
    let waited = |times: &Mutex<Vec<SystemTime>>| {
        let times = times.lock().unwrap();
        times[1].duration_since(times[0]).unwrap()
    };
    assert!(waited(&by_seconds) >= wait, "{:?}", waited(&by_seconds));
    // HTTP dates have no fractions of a second.
    assert!(waited(&by_date) >= wait.checked_sub(SECOND).unwrap(), "{:?}", waited(&by_date));
    assert!(waited(&by_its_own_clock) >= wait.checked_sub(SECOND).unwrap(), "{:?}", waited(&by_its_own_clock));
}

#[test]
fn the_tomls_in_its_readme_load() {
    let readme = include_str!("../../../plugins/webhook/README.md");
    let tomls: Vec<_> = readme.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(tomls.len() >= 4, "it shows how");
    let world = World::on_sqlite();
    for (number, toml) in tomls.iter().enumerate() {
        world.plug(&format!("webhook-{number}"), &built("NOTIFY_TEST_PLUGINS", "webhook.wasm"), toml);
        // Their secrets come from files beside them or from the environment. This host's environment
        // lacks those variables.
        for line in toml.lines().filter_map(|line| line.strip_prefix("file = ")) {
            fs::write(world.plugins().join(line.trim_matches('"')), NEW_SECRET).unwrap();
        }
    }
    let host = world.host();
    for number in 0..tomls.len() {
        assert!(host.logged(&format!("webhook-{number}")), "{}", host.child_guard.stderr());
    }
    assert!(host.logged(&format!("with {} plugins", tomls.len())), "{}", host.child_guard.stderr());
    host.stop();
}
