//! The admin server: the data that a host exposes over HTTP, who may read it, and which actions it allows.

pub(crate) mod client;
pub(crate) mod counts;
mod surface;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use testbed::proxy::{Mode, Proxy};
use testbed::{eventually, eventually_some};

use crate::admin::client::Client;
use crate::admin::counts::{await_values, value};
use crate::on_both_engines;
use crate::world::{SOON, World, built};

/// Waits until the host is ready or, given a reason, until it is not ready for that reason.
pub(crate) fn await_readiness(admin: &Client, reason: Option<&str>) {
    let expected = if reason.is_some() { 503 } else { 200 };
    eventually_some(SOON, &format!("ready unless {reason:?}; now: {:?}", admin.get("/readyz")), || {
        let answer = admin.get("/readyz");
        let told = answer.json()["reasons"].to_string();
        assert_eq!(answer.json()["ready"] == true, answer.status == 200);
        (answer.status == expected && reason.is_none_or(|reason| told.contains(reason))).then_some(())
    });
}

on_both_engines! {
    fn a_host_is_ready_when_a_plugin_runs_and_says_why_it_is_not(world: &World) {
        let (host, admin) = world.host_with_admin(&[]);
        await_readiness(&admin, Some("no plugin of "));
        assert_eq!(admin.get("/healthz").json(), serde_json::json!({ "status": "ok" }), "it turns its loop all the same");
        world.plug_logger();
        await_readiness(&admin, None);
        let about = admin.json("/api/v1/host");
        assert_eq!(about["broker"]["connected"], true);
        assert_eq!(about["source"]["queue"], world.queue.as_str());
        assert_eq!((&about["ready"], &about["journal"]), (&serde_json::json!(true), &serde_json::json!(true)));
        fs::remove_file(world.plugins().join("logger.wasm")).unwrap();
        await_readiness(&admin, Some("no plugin of "));
        host.stop();
    }

    fn plugins_are_paused_and_resumed_and_reloaded_as_by_command(world: &World) {
        world.plug_logger();
        let (host, admin) = world.host_with_admin(&[]);
        await_readiness(&admin, None);
        let state = || admin.json("/api/v1/plugins")["plugins"][0]["state"].as_str().unwrap().to_owned();
        eventually(SOON, "the plugin runs", || state() == "running");
        let done = |act: &str| {
            let answer = admin.post(&format!("/api/v1/plugins/logger/{act}"), "");
            assert_eq!(answer.status, 200, "{answer:?}");
            answer.json()["done"].as_str().unwrap().to_owned()
        };
        assert_eq!(done("pause"), "logger is paused: its events wait in its queue");
        assert_eq!(state(), "paused");
        let listed = String::from_utf8(world.plugin_command(&["list", "--json"]).stdout).unwrap();
        assert!(listed.contains("\"state\":\"paused\""), "{listed}");
        assert_eq!(done("resume"), "logger is resumed: it gets its events again");
        assert_eq!(done("resume"), "logger was running already");
        assert_eq!(state(), "running");
        assert!(done("reload").starts_with("logger "));
        let none = admin.post("/api/v1/plugins/none/pause", "");
        assert!(none.status == 404 && none.error().contains("there is: logger"), "{none:?}");
        host.stop();
    }
}

#[test]
fn nobody_is_let_in_who_should_not_be() {
    let world = World::on_sqlite();
    world.plug_logger();
    fs::write(world.path("token"), "correct-horse-battery\n").unwrap();
    let token = world.path("token");
    let (host, admin) = world.host_with_admin(&["--admin-token-file", token.to_str().unwrap()]);
    let json = ("content-type", "application/json");
    let right = ("authorization", "Bearer correct-horse-battery");
    let own = format!("http://{}", admin.at);
    for (method, path, headers, expected) in [
        ("GET", "/healthz", &[][..], 200),
        ("GET", "/", &[], 200),
        ("GET", "/api/v1/host", &[], 401),
        ("GET", "/api/v1/host", &[("authorization", "Bearer correct-horse-batterie")], 401),
        ("GET", "/api/v1/host", &[right], 200),
        ("GET", "/api/v1/host", &[right, ("host", "evil.example")], 403),
        ("GET", "/api/v1/host", &[right, ("origin", "http://evil.example")], 403),
        ("GET", "/api/v1/host", &[right, ("origin", &own)], 200),
        ("POST", "/api/v1/plugins/logger/pause", &[json], 401),
        ("POST", "/api/v1/plugins/logger/pause", &[right], 403),
        ("POST", "/api/v1/plugins/logger/pause", &[right, ("content-type", "text/plain")], 403),
        ("POST", "/api/v1/plugins/logger/pause", &[right, json, ("origin", "null")], 403),
        ("POST", "/api/v1/reload", &[json], 401),
        ("POST", "/api/v1/reload", &[right], 403),
        ("POST", "/api/v1/reload", &[right, json], 200),
        ("GET", "/api/v1/plugins/logger/pause", &[right], 405),
        ("DELETE", "/api/v1/host", &[right, json], 405),
        ("GET", "/api/v1/none", &[right], 404),
        ("GET", "/assets/../host.toml", &[right], 404),
    ] {
        let answer = admin.ask(method, path, headers, "");
        assert_eq!(answer.status, expected, "{method} {path} {headers:?}: {answer:?}");
        if expected >= 400 {
            assert!(!answer.error().is_empty());
        }
        for header in [
            "content-security-policy: default-src 'none'; ",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
        ] {
            assert!(answer.headers.iter().any(|line| line.starts_with(header)), "{path} {header}: {answer:?}");
        }
        assert!(!answer.headers.iter().any(|line| line.starts_with("access-control")), "{answer:?}");
    }
    assert!(!host.logged("paused by the operator"), "nothing was done that was refused");
    assert!(!host.child_guard.stderr().contains("correct-horse"), "the token is in no log");
    host.stop();
}

#[test]
fn by_the_socket_the_same_is_served_without_a_token() {
    let world = World::on_sqlite();
    world.plug_logger();
    fs::write(world.path("token"), "correct-horse-battery\n").unwrap();
    let token = world.path("token");
    let (host, admin) = world.host_with_admin(&["--admin-token-file", token.to_str().unwrap()]);
    await_readiness(&admin, None);
    let folder = fs::read_dir(world.path("state/folders")).unwrap().next().unwrap().unwrap().path().join("hosts");
    let ask = |request: &str| {
        let socket = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    for (request, status, part) in [
        ("GET /api/v1/host HTTP/1.1\r\n\r\n", 200, "\"plugins_folder\":"),
        ("GET /metrics HTTP/1.1\r\n\r\n", 200, "notify_"),
        ("POST /api/v1/reload HTTP/1.1\r\n\r\n", 200, "{\"taken\":[],\"restart\":[]}"),
        ("POST /api/v1/plugins/none/pause HTTP/1.1\r\n\r\n", 404, "there is no plugin"),
        ("{\"command\":\"list\"}\n", 400, ""),
    ] {
        let answer = ask(request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(part), "{request}: {answer}");
    }
    fs::write(world.path("host.toml"), "wrong = 1\n").unwrap();
    let refused = ask("POST /api/v1/reload HTTP/1.1\r\n\r\n");
    assert!(refused.starts_with("HTTP/1.1 422 ") && refused.contains("host.toml:1"), "{refused}");
    host.stop();
}

#[test]
fn an_address_that_others_reach_needs_a_token_and_one_that_is_taken_is_told() {
    let world = World::on_sqlite();
    world.plug_logger();
    let host = world.host_with(&["--admin", "0.0.0.0:0"]);
    assert_eq!(host.child_guard.wait_timeout(SOON).expect("it ends").code(), Some(78));
    assert!(host.child_guard.stderr().contains("a token is needed"), "{}", host.child_guard.stderr());
    let (first, admin) = world.host_with_admin(&[]);
    let second = world.host_with(&["--admin", &admin.at]);
    assert_eq!(second.child_guard.wait_timeout(SOON).expect("it ends").code(), Some(1));
    assert!(second.logged(&format!("cannot listen at {}", admin.at)), "{}", second.child_guard.stderr());
    first.stop();
}

#[test]
fn while_the_broker_is_away_the_host_says_so() {
    let proxy = Proxy::to(testbed::rabbitmq::shared().port());
    let mut world = World::on_rabbitmq();
    world.host_url = format!("amqp://guest:guest@127.0.0.1:{}/%2F?heartbeat=2", proxy.port());
    world.plug_logger();
    let (host, admin) = world.host_with_admin(&[]);
    await_readiness(&admin, None);
    proxy.set(Mode::Refuse);
    proxy.drop_connections();
    await_readiness(&admin, Some("there is no session with the broker amqp://"));
    assert_eq!(admin.get("/healthz").status, 200);
    let page = admin.get("/metrics").body;
    assert_eq!(value(&page, "notify_broker_connected"), Some(0.0));
    assert!(!page.contains("notify_queue_messages{"), "nobody knows: {page}");
    assert!(!admin.get("/readyz").body.contains("guest:guest"));
    proxy.set(Mode::Forward);
    await_readiness(&admin, None);
    await_values(&admin, &[("notify_broker_sessions_total", 2.0)]);
    host.stop();
}

#[test]
fn a_host_that_drains_says_so_and_is_not_ready() {
    let world = World::on_sqlite();
    let toml = "[limits]\ntime = \"30s\"\n[config]\nact = \"slow\"\n";
    world.plug("slow", &built("NOTIFY_TEST_GUESTS", "misbehaver.wasm"), toml);
    let (host, admin) = world.host_with_admin(&[]);
    await_readiness(&admin, None);
    world.order(&["create", "--user", "u", "--product", "p"]);
    host.wait_for("begun with");
    assert_eq!(value(&admin.get("/metrics").body, "notify_calls_in_flight{plugin=\"slow\"}"), Some(1.0));
    assert_eq!(value(&admin.get("/metrics").body, "notify_unacknowledged_messages"), Some(1.0));
    host.child_guard.terminate();
    await_readiness(&admin, Some("the host is stopping"));
    assert_eq!(admin.get("/healthz").status, 200);
    let status = host.child_guard.wait_timeout(SOON).expect("it stops");
    assert!(status.success(), "{}", host.child_guard.stderr());
}
