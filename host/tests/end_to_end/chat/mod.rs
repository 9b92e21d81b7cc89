//! Runs the chat plugin against receivers that enforce the rules of the services' documents. A request that breaks a
//! rule is refused in the service's own words.

mod push;
mod rooms;
mod service;
mod webhooks;

use std::fs;

use testbed::eventually;
use testbed::receiver::{Answer, Receiver, Reply};

use crate::chat::service::{Counter, Service, write_secret};
use crate::world::{SOON, World, built};

/// A service's answer and the outcome that it must lead to.
struct Case {
    answer: Answer,
    outcome: &'static str,
    /// Text that the reason contains.
    told: &'static str,
}

fn case(status: u16, body: &str, outcome: &'static str, told: &'static str) -> Case {
    Case { answer: Answer::status(status).body(body), outcome, told }
}

/// Returns events like those of order-cli, and nastier ones.
fn events() -> Vec<serde_json::Value> {
    let order = |event: &str, more: serde_json::Value| {
        let mut order = serde_json::json!({
            "event": event, "order_id": "0b1c8d3e-4711", "user_id": "user123", "product": "iPhone 15",
        });
        order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        order
    };
    let calls =
        "@everyone @here @channel @all @room <!channel> <!here> <@U024BE7LH> <@&1> <#C1> @ann_b (@ann) <at>Ann</at>";
    let markup = "</b><script>alert(1)</script> *b* _i_ ~s~ `c` ||d|| [x](https://evil.example) <https://evil.example|x> &amp; # h";
    let long = "&<>*_`\\\"\u{1F6D2}é@all ".repeat(6000);
    let many: serde_json::Map<_, _> = (0..60).map(|n| (format!("field_{n}"), format!("{n} {calls}").into())).collect();
    vec![
        order("OrderCreated", serde_json::json!({ "quantity": 2, "price": 1999.90, "currency": "EUR" })),
        order("OrderPaid", serde_json::json!({})),
        order("OrderShipped", serde_json::json!({ "carrier": "DHL", "tracking_number": "JD01" })),
        order("OrderDelivered", serde_json::json!({})),
        order("OrderCanceled", serde_json::json!({ "reason": "out of stock" })),
        order("OrderRefunded", serde_json::json!({ "user_id": null, "product": null })),
        order("OrderCreated", serde_json::json!({ "user_id": calls, "product": calls, "reason": markup })),
        order("OrderCreated", serde_json::json!({ "product": long, "reason": long })),
        order("OrderCreated", serde_json::Value::Object(many)),
        serde_json::json!({ "type": calls, "severity": "error", markup: calls }),
        serde_json::json!({ "type": "com.example.ping" }),
    ]
}

/// Sends each event with the default template and with an operator's template, then tries every answer of the service.
fn check(service: Service, cases: &[Case]) {
    let counter = Counter::open(service);
    let world = World::on_sqlite();
    let toml = counter.toml("");
    world.plug("chat", &built("NOTIFY_TEST_PLUGINS", "chat.wasm"), &toml);
    counter.write_secret(&world.plugins());
    let wasm = world.plugins().join("chat.wasm");
    let attempt = |event: &serde_json::Value| {
        let file = world.path("event.json");
        fs::write(&file, event.to_string()).unwrap();
        let output =
            world.plugin_command(&["test", wasm.to_str().unwrap(), "--event", file.to_str().unwrap(), "--json"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let report = serde_json::from_slice::<serde_json::Value>(&output.stdout);
        let report = report.unwrap_or_else(|error| panic!("{error}: {said}"));
        let text = |key: &str| report[key].as_str().unwrap_or_default().to_owned();
        let secret = counter.secret_value();
        assert!(!said.contains(secret) && !report.to_string().contains(secret), "{said}{report}");
        (text("outcome"), text("reason"))
    };

    for settings in [
        "",
        "title = \"{{ data.product }}\"\ntext = \"\"\"{{ data.reason }}\n{{ data.product }}\"\"\"\nlink = \"https://shop.example/{{ data.order_id }}?a=1&b={{ (data.product|string)[:20] }}\"\n",
        "text = \"{{ data.product }} {{ data.reason }}\"\nformat = \"markup\"\nfields = [\"order_id\", \"reason\"]\n",
    ] {
        fs::write(world.plugins().join("chat.toml"), counter.toml(settings)).unwrap();
        for event in events() {
            let (outcome, reason) = attempt(&event);
            assert_eq!(counter.violations(), Vec::<String>::new(), "{event}");
            assert_eq!(outcome, "done", "{reason}: {event}");
        }
    }
    assert_eq!(counter.requests().len(), 3 * events().len(), "one for each event");

    fs::write(world.plugins().join("chat.toml"), toml).unwrap();
    for Case { answer, outcome, told } in cases {
        counter.answer_next(answer.clone());
        let (found, reason) = attempt(&events()[0]);
        assert!(found == *outcome && reason.contains(told), "{answer:?}: {found}: {reason}");
    }
    assert_eq!(counter.violations(), Vec::<String>::new());
}

/// All services at once, each with a toml of its own over the same file, behind a running host. Each order reaches
/// each service once. A service that asks for a second's pause gets it.
#[test]
fn orders_reach_every_service_through_a_running_host() {
    let world = World::on_sqlite();
    let counters: Vec<_> = [
        webhooks::slack(),
        webhooks::discord(),
        webhooks::teams(),
        webhooks::mattermost(),
        rooms::telegram(),
        rooms::matrix(),
        push::ntfy(),
        push::gotify(),
    ]
    .into_iter()
    .map(Counter::open)
    .collect();
    fs::copy(built("NOTIFY_TEST_PLUGINS", "chat.wasm"), world.plugins().join("chat.wasm")).unwrap();
    // The file alone has no target, so disable it.
    fs::write(world.plugins().join("chat.toml"), "enabled = false\n").unwrap();
    for counter in &counters {
        let toml = format!("wasm = \"chat.wasm\"\n{}", counter.toml(""));
        fs::write(world.plugins().join(format!("{}.toml", counter.name())), toml).unwrap();
        counter.write_secret(&world.plugins());
        counter.answer_next(Answer::status(429).header("Retry-After", "1").body(counter.busy()));
    }
    let host = world.host();
    let orders = world.order(&["demo"]);
    for counter in &counters {
        let all_told = || orders.iter().all(|order| counter.told_of(order) > 0);
        eventually(SOON, &format!("{} is told; {:?}", counter.name(), counter.violations()), all_told);
    }
    host.stop();
    for counter in &counters {
        assert_eq!(counter.violations(), Vec::<String>::new(), "{}", counter.name());
        assert_eq!(counter.taken(), orders.len(), "{}: each event once", counter.name());
        assert_eq!(counter.requests().len(), orders.len() + 1, "{}: and the first one again", counter.name());
        assert!(!host.logged(counter.secret_value()), "{}", counter.name());
    }
}

#[test]
fn a_secret_in_a_url_goes_only_where_it_may_and_its_echo_does_not_reach_the_plugin() {
    let receiver = Receiver::start(|request| Reply::Answer(Answer::status(400).body(request.path.clone())));
    let (world, origin) = (World::on_sqlite(), receiver.origin());
    let event = world.path("event.json");
    fs::write(&event, events()[0].to_string()).unwrap();
    let attempt = |secret: &str| {
        let toml = format!(
            "[grants]\nhttp = [{origin:?}, \"https://discord.com\"]\nnetworks = [\"127.0.0.0/8\"]\n{secret}\n\
             [config]\ntargets = [\"discord://1/{{secret:token}}?endpoint={origin}\"]\n"
        );
        world.plug("chat", &built("NOTIFY_TEST_PLUGINS", "chat.wasm"), &toml);
        write_secret(&world.plugins().join("token.secret"), "canary-of-a-url");
        let wasm = world.plugins().join("chat.wasm");
        let output =
            world.plugin_command(&["test", wasm.to_str().unwrap(), "--event", event.to_str().unwrap(), "--json"]);
        let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!told.contains("canary"), "{told}");
        told
    };
    let told = attempt("");
    assert!(told.contains("\"misconfigured\"") && told.contains("is not granted: write [secrets.token]"), "{told}");
    let told = attempt("[secrets.token]\nfile = \"token.secret\"\nto = [\"https://discord.com\"]");
    assert!(told.contains("\"misconfigured\"") && told.contains("only to https://discord.com, and not to"), "{told}");
    assert_eq!(receiver.requests().len(), 0);
    let told = attempt("[secrets.token]\nfile = \"token.secret\"");
    assert_eq!(receiver.requests()[0].path, "/api/webhooks/1/canary-of-a-url?wait=true");
    assert!(told.contains("\"reject\"") && told.contains("/api/webhooks/1/"), "the rest of it does: {told}");
}

/// Without an event, nothing is sent.
#[test]
fn the_readmes_tomls_load_as_they_stand() {
    let world = World::on_sqlite();
    fs::copy(built("NOTIFY_TEST_PLUGINS", "chat.wasm"), world.plugins().join("chat.wasm")).unwrap();
    let readme = include_str!("../../../../plugins/chat/README.md");
    let mut names = Vec::new();
    for toml in readme.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()) {
        let name = toml.strip_prefix("# ").and_then(|rest| rest.split(".toml\n").next()).unwrap();
        fs::write(world.plugins().join(format!("{name}.toml")), toml).unwrap();
        if let Some(secret) = toml.split("file = \"").nth(1).and_then(|rest| rest.split('"').next()) {
            write_secret(&world.plugins().join(secret), "a-secret-of-the-readme");
            names.push(name);
        }
    }
    assert_eq!(names.len(), 9, "{names:?}");
    let host = world.host();
    let ready = host.child_guard.stderr();
    assert!(ready.contains("with 9 plugins"), "{ready}");
    for name in names {
        assert!(ready.contains(name) && !ready.contains(&format!("{name}.toml:")), "{ready}");
    }
    assert!(!ready.contains("asks for more"), "{ready}");
    host.stop();
}

#[test]
fn several_targets_that_would_tell_twice_are_refused_and_say_what_to_do() {
    let world = World::on_sqlite();
    let targets = "targets = [\"slack://T/B/x\", \"discord://1/x\"]";
    world.plug("chat", &built("NOTIFY_TEST_PLUGINS", "chat.wasm"), &format!("[config]\n{targets}\n"));
    let event = world.path("event.json");
    fs::write(&event, events()[0].to_string()).unwrap();
    let wasm = world.plugins().join("chat.wasm");
    let output = world.plugin_command(&["test", wasm.to_str().unwrap(), "--event", event.to_str().unwrap(), "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["outcome"], "misconfigured");
    assert!(report["reason"].as_str().unwrap().contains("give each a toml of its own"), "{report}");
}

#[test]
fn it_asks_the_operator_for_what_its_own_targets_need() {
    let world = World::on_sqlite();
    let targets = "targets = [\"slack://T/B/{secret:hook}\", \"matrix://{secret:m}@127.0.0.1:8008/!r:x\"]";
    world.plug("chat", &built("NOTIFY_TEST_PLUGINS", "chat.wasm"), &format!("[config]\n{targets}\n"));
    let wasm = world.plugins().join("chat.wasm");
    let output = world.plugin_command(&["inspect", wasm.to_str().unwrap(), "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let wishes = report["requests"].as_array().unwrap().iter();
    let wishes: Vec<_> =
        wishes.map(|wish| [wish["capability"].as_str().unwrap(), wish["scope"].as_str().unwrap()]).collect();
    let (http, secret) = ("http", "secret");
    let expected =
        [[http, "http://127.0.0.1:8008"], [http, "https://hooks.slack.com"], [secret, "hook"], [secret, "m"]];
    assert_eq!(wishes, expected, "{report}");
}
