//! Plugins' HTTP requests through the contract, WASI and `fetch`: which arrive, and which are refused.

use std::fs;
use std::time::Duration;

use testbed::eventually;
use testbed::languages::{Language, new_project};
use testbed::receiver::{Answer, Authority, Receiver, Reply};

use crate::languages::{host_program, tools};
use crate::world::{Host, SOON, World, built};

/// Plugs a guest that calls these URLs, and gives it one event.
fn call(world: &World, grants: &str, limits: &str, settings: &str, urls: &[String]) -> Host {
    let toml = format!("[retry]\nattempts = 1\n{grants}\n[limits]\n{limits}\n[config]\n{settings}\nurls = {urls:?}\n");
    world.plug("caller", &built("NOTIFY_TEST_GUESTS", "caller.wasm"), &toml);
    let host = world.host();
    world.order(&["create", "--user", "u", "--product", "p"]);
    host
}

/// Returns the guest's log of its calls, two lines per URL, in order.
fn told(host: &Host, count: usize) -> Vec<String> {
    let lines = || -> Vec<_> { host.said("caller").into_iter().map(|(_, line)| line).collect() };
    let calls = |line: &String| line.starts_with("http ") || line.starts_with("wasi ");
    eventually(SOON, "it has called them all", || lines().iter().filter(|line| calls(line)).count() == 2 * count);
    lines().into_iter().filter(calls).collect()
}

#[test]
fn what_a_server_does_ends_as_documented_and_in_time() {
    let world = World::on_sqlite();
    let receiver = Receiver::start(|request| match &*request.path {
        "/reset" => Reply::Reset,
        "/hang" => Reply::Hang,
        "/drip" => Reply::Drip,
        "/flood" => Reply::Flood(1 << 30),
        "/garbage" => Reply::Garbage,
        "/headers" => Reply::Headers(10_000),
        "/redirect" => Reply::Answer(Answer::status(302).header("Location", "http://169.254.169.254/")),
        "/closing" => Reply::AnswerAndClose(Answer::status(200).body("four")),
        "/chunked" => Reply::Chunked(Answer::status(200).body("four")),
        "/continue" => Reply::ContinueAndAnswer(Answer::status(200).body("four")),
        _ => Reply::Answer(Answer::status(200).body(request.body.len().to_string())),
    });
    let expected = [
        ("/ok", "200, 6 bytes", "200, 6 bytes"),
        ("/closing", "200, 4 bytes", "200, 4 bytes"),
        ("/chunked", "200, 4 bytes", "200, 4 bytes"),
        ("/continue", "200, 4 bytes", "200, 4 bytes"),
        ("/redirect", "302, 0 bytes", "302, 0 bytes"),
        ("/flood", "200, cut at 1048576 bytes", "200, cut at 1048576 bytes"),
        ("/reset", "unavailable: ", "ErrorCode::ConnectionTerminated"),
        ("/garbage", "unavailable: ", "ErrorCode::ConnectionTerminated"),
        ("/headers", "unavailable: ", "ErrorCode::ConnectionTerminated"),
        ("/hang", "timeout", "ErrorCode::HttpResponseTimeout"),
        ("/drip", "timeout", "ErrorCode::HttpResponseTimeout"),
        ("/ok", "200, 6 bytes", "200, 6 bytes"),
    ];
    let urls: Vec<_> = expected.iter().map(|(path, _, _)| receiver.url(path)).collect();
    let grants = format!("[grants]\nhttp = [{:?}]\nnetworks = [\"127.0.0.0/8\"]", receiver.origin());
    let host = call(&world, &grants, "time = \"30s\"", "bytes = 100000\nmilliseconds = 500", &urls);
    let told = told(&host, urls.len());
    for ((path, by_contract, by_wasi), lines) in expected.iter().zip(told.chunks(2)) {
        let url = receiver.url(path);
        assert!(lines[0].starts_with(&format!("http {url}: {by_contract}")), "{lines:?}");
        assert!(lines[1].starts_with(&format!("wasi {url}: {by_wasi}")), "{lines:?}");
    }
    host.stop();
    let requests = receiver.requests();
    assert_eq!(requests.len(), 2 * urls.len(), "each is sent once");
    for request in requests {
        assert_eq!((&*request.method, request.body.len()), ("POST", 100_000), "{}", request.path);
        let host = request.headers_named("host").collect::<Vec<_>>();
        assert_eq!(host, [format!("127.0.0.1:{}", receiver.port())], "{}", request.path);
        assert_eq!(request.headers_named("content-length").collect::<Vec<_>>(), ["100000"]);
        assert_eq!(request.header("x-one"), Some("1"));
    }
}

#[test]
fn what_is_not_granted_is_not_reached_in_either_way() {
    let world = World::on_sqlite();
    let receiver = Receiver::answering(200);
    let port = receiver.port();
    // The origins are granted, but no network is.
    let urls: Vec<_> = [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0",
        "169.254.169.254",
        "10.0.0.1",
    ]
    .iter()
    .map(|host| format!("http://{host}:{port}/"))
    .collect();
    let host = call(&world, &format!("[grants]\nhttp = {urls:?}"), "", "", &urls);
    for (url, lines) in urls.iter().zip(told(&host, urls.len()).chunks(2)) {
        assert!(lines[0].starts_with(&format!("http {url}: denied: ")), "{lines:?}");
        assert!(lines[0].contains("by [grants] networks = [\""), "{lines:?}");
        assert_eq!(lines[1], format!("wasi {url}: ErrorCode::HttpRequestDenied"));
    }
    // WASI has no error code for this, so the log tells the operator.
    assert!(host.logged("which is refused unless the operator grants it besides"));
    host.stop();
    assert_eq!(receiver.connections(), 0);
}

#[test]
fn an_authority_of_the_operators_is_believed_and_no_other() {
    let world = World::on_sqlite();
    let (own, foreign) = (Authority::new(), Authority::new());
    let answer = |_: &_| Reply::Answer(Answer::status(204));
    let good = Receiver::secure(&own.issue("localhost"), answer);
    let bad = Receiver::secure(&foreign.issue("localhost"), answer);
    fs::write(world.path("own.pem"), own.pem()).unwrap();
    let config = fs::read_to_string(world.path("host.toml")).unwrap();
    fs::write(world.path("host.toml"), format!("{config}[egress]\nca = [\"own.pem\"]\n")).unwrap();
    let urls = [good.url("/"), bad.url("/")];
    let grants = format!(
        "[grants]\nhttp = [{:?}, {:?}]\nnetworks = [\"127.0.0.0/8\", \"::1/128\"]",
        good.origin(),
        bad.origin()
    );
    let host = call(&world, &grants, "", "", &urls);
    let told = told(&host, 2);
    assert_eq!(told[0], format!("http {}: 204, 0 bytes", urls[0]));
    assert_eq!(told[1], format!("wasi {}: 204, 0 bytes", urls[0]));
    assert!(told[2].contains("no secure connection: invalid peer certificate"), "{told:?}");
    assert!(told[3].contains("ErrorCode::TlsProtocolError"), "{told:?}");
    host.stop();
    assert!(bad.requests().is_empty());
}

/// A plugin that uses `fetch`, written as an author would write it.
const FETCHING: &str = r"
import * as config from 'notify:plugin/config@0.1.0';
import * as log from 'notify:plugin/log@0.1.0';

export const metadata = {
  describe() {
    return {
      name: 'fetching', version: '0.1.0', description: 'Posts each order', annotations: [],
      configSchema: undefined, subscriptions: [{ eventType: 'OrderCreated' }], requests: [],
    };
  },
};

export const handler = {
  async handle(event) {
    const { urls } = JSON.parse(config.getJson());
    for (const url of urls) {
      try {
        const headers = { 'content-type': 'application/json' };
        const response = await fetch(url, { method: 'POST', headers, body: event.data });
        const answer = await response.json();
        log.write('info', `${url}: ${response.status} ${answer.hello}`, []);
      } catch (error) {
        log.write('info', `${url}: it failed`, []);
      }
    }
    return { tag: 'done', val: undefined };
  },
};
";

#[test]
fn fetch_in_javascript_goes_through_the_gate() {
    let world = World::on_sqlite();
    let receiver = Receiver::start(|_| Reply::Answer(Answer::status(201).body("{\"hello\": \"world\"}")));
    let project = new_project(host_program(), Language::JavaScriptFull, "fetching", &world.path("")).unwrap();
    fs::write(project.join("plugin.js"), FETCHING).unwrap();
    let wasm = tools().build(Language::JavaScriptFull, "fetching", &project).unwrap_or_else(|error| panic!("{error}"));
    let urls = [receiver.url("/hook"), "http://localhost:1/".to_owned()];
    let toml = format!(
        "[grants]\nhttp = [{:?}]\nnetworks = [\"127.0.0.1/32\"]\n[config]\nurls = {urls:?}\n",
        receiver.origin()
    );
    world.plug("fetching", &wasm, &toml);
    let host = world.host_with(&[]);
    eventually(Duration::from_mins(4), "the plugin is compiled", || host.logged("ready: "));
    let id = world.order(&["create", "--user", "u", "--product", "p"]).remove(0);
    host.wait_for(&format!("{}: 201 world", urls[0]));
    host.wait_for(&format!("{}: it failed", urls[1]));
    host.wait_for("this plugin has no grant for http://localhost:1: its operator adds [grants] http =");
    host.stop();
    let request = receiver.requests().remove(0);
    assert_eq!((&*request.method, &*request.path), ("POST", "/hook"));
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert!(request.text().contains(&id), "{}", request.text());
}
