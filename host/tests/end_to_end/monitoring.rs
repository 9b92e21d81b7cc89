//! Checks packaging/prometheus and packaging/grafana against a real host and a real Prometheus.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use testbed::{ChildGuard, eventually, eventually_some, free_port, rabbitmq};

use crate::admin::client::Client;
use crate::world::{SOON, World};

fn packaging(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the metrics that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'));
    let ours = words
        .filter(|word| word.starts_with("notify_") || (word.starts_with("process_") && word.matches('_').count() >= 1));
    ours.map(|word| {
        let histogram = ["_bucket", "_count", "_sum"].iter().find_map(|end| word.strip_suffix(end));
        histogram.unwrap_or(word).to_owned()
    })
    .collect()
}

/// Returns a world with the logger, on a RabbitMQ node.
fn world(node: &rabbitmq::Node) -> World {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(folder, node.url(), "orders".to_owned(), "notifications".to_owned());
    world.plug_logger();
    world
}

fn break_plugins(world: &World) {
    world.plug_misbehaver("retry");
    fs::write(world.plugins().join("broken.wasm"), "no").unwrap();
}

#[test]
fn every_metric_that_an_alert_or_the_dashboard_names_is_there_and_all_are_well_named() {
    let node = rabbitmq::Node::start();
    let world = world(&node);
    break_plugins(&world);
    let (host, admin) = world.host_with_admin(&[]);
    eventually(SOON, "it is ready", || admin.get("/readyz").status == 200);
    let load = world.order_cli(&["load", "--count", "50", "--quiet"]);
    assert!(load.status.success(), "{load:?}");
    eventually(SOON, "dead letters are counted", || {
        admin.get("/metrics").body.lines().any(|line| line.starts_with("notify_dead_letters_total{"))
    });
    let text = admin.get("/metrics").body;
    let there: BTreeSet<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for file in ["prometheus/alerts.yml", "prometheus/alerts_test.yml", "grafana/notify-host.json"] {
        let missing: Vec<_> = named(&packaging(file)).into_iter().filter(|name| !there.contains(&**name)).collect();
        // A series may be missing until its first event; here no plugin has sent an HTTP request.
        let missing: Vec<_> = missing.into_iter().filter(|name| name != "notify_http_requests_total").collect();
        assert!(missing.is_empty(), "{file} names {missing:?}; there is {there:?}");
    }
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = promtool.spawn().expect("promtool: run the tests by `cargo xtask test`");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let checked = promtool.wait_with_output().unwrap();
    assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");
    host.stop();
}

#[test]
fn what_the_dashboard_asks_is_promql() {
    let dashboard: Value = serde_json::from_str(&packaging("grafana/notify-host.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let questions = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let rules: Vec<_> = questions
        .enumerate()
        .map(|(number, question)| {
            let question = question["expr"].as_str().unwrap().replace("$__rate_interval", "1m");
            let question = question.replace("$instance", ".*").replace("$plugin", ".*");
            serde_json::json!({ "record": format!("question{number}"), "expr": question })
        })
        .collect();
    assert!(rules.len() > 20, "{rules:?}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yml");
    // Every JSON document is also YAML.
    fs::write(&file, serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] }).to_string()).unwrap();
    let checked = Command::new("promtool").args(["check", "rules"]).arg(&file).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
}

#[test]
fn each_alert_leads_to_a_heading_of_the_runbook() {
    let rules = packaging("prometheus/alerts.yml");
    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operating.md")).unwrap();
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let links: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("runbook: ")).collect();
    assert_eq!(alerts.len(), links.len());
    for (alert, link) in alerts.iter().zip(links) {
        assert_eq!(link, format!("docs/operating.md#{}", alert.to_lowercase()));
        assert!(document.contains(&format!("\n### {alert}\n")), "{alert} has no heading");
    }
    for heading in document.lines().filter_map(|line| line.strip_prefix("### NotifyHost")) {
        assert!(alerts.contains(&&*format!("NotifyHost{heading}")), "{heading} is no alert");
    }
}

/// A Prometheus of the test's own. It uses the shipped rules with shorter waits.
struct Prometheus {
    server: ChildGuard,
    client: Client,
    _folder: TempDir,
}

impl Prometheus {
    fn start(host: &Client) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rules: Vec<_> = packaging("prometheus/alerts.yml").lines().map(impatient).collect();
        fs::write(folder.path().join("alerts.yml"), rules.join("\n")).unwrap();
        let scrape = packaging("prometheus/prometheus.yml").replace("127.0.0.1:9471", &host.at);
        assert!(scrape.contains(&host.at));
        let config = format!("global: {{ scrape_interval: 250ms, evaluation_interval: 250ms }}\n{scrape}");
        fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        let at = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new("prometheus");
        command.current_dir(folder.path()).args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"]);
        command.arg(format!("--web.listen-address={at}"));
        let server = ChildGuard::spawn(command);
        let client = Client { at, headers: Vec::new() };
        let prometheus = Self { server, client, _folder: folder };
        eventually(SOON, "Prometheus answers", || {
            assert!(prometheus.server.wait_timeout(Duration::ZERO).is_none(), "{}", prometheus.server.stderr());
            std::net::TcpStream::connect(&prometheus.client.at).is_ok()
                && prometheus.client.get("/-/ready").status == 200
        });
        prometheus
    }

    /// Returns alert and plugin of each firing alert.
    fn firing(&self) -> BTreeSet<(String, String)> {
        let alerts = self.client.json("/api/v1/alerts");
        let alerts = alerts["data"]["alerts"].as_array().unwrap().clone();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        firing.map(|alert| (text(&alert["labels"]["alertname"]), text(&alert["labels"]["plugin"]))).collect()
    }

    fn wait_for(&self, alert: &str, plugin: &str) {
        let wanted = (alert.to_owned(), plugin.to_owned());
        eventually_some(2 * SOON, &format!("{alert} {plugin} fires; {:?}", self.firing()), || {
            self.firing().contains(&wanted).then_some(())
        });
    }

    fn value(&self, query: &str) -> Option<String> {
        let answer = self.client.json(&format!("/api/v1/query?query={query}"));
        answer["data"]["result"][0]["value"][1].as_str().map(str::to_owned)
    }
}

fn impatient(line: &str) -> String {
    let line = if line.trim_start().starts_with("for: ") { "        for: 1s" } else { line };
    line.replace("[15m]", "[15s]").replace("[5m]", "[15s]")
}

#[test]
fn a_real_prometheus_fires_for_a_broken_plugin_and_a_stopped_broker_and_for_nothing_else() {
    let node = rabbitmq::Node::start();
    let world = world(&node);
    let (host, admin) = world.host_with_admin(&[]);
    eventually(SOON, "it is ready", || admin.get("/readyz").status == 200);
    let prometheus = Prometheus::start(&admin);
    eventually(SOON, "it is scraped", || prometheus.value("notify_ready").as_deref() == Some("1"));
    world.order(&["create", "--user", "u", "--product", "p"]);
    eventually(SOON, "its attempts are counted", || {
        prometheus.value("notify_attempts_total").is_some() && prometheus.firing().is_empty()
    });

    break_plugins(&world);
    host.wait_for("gets events from now on");
    let load = world.order_cli(&["load", "--count", "40", "--quiet"]);
    assert!(load.status.success(), "{load:?}");
    prometheus.wait_for("NotifyHostPluginFailing", "misbehaver-retry");
    prometheus.wait_for("NotifyHostDeadLetters", "");
    prometheus.wait_for("NotifyHostPluginLoadFailed", "broken");
    let of_others = prometheus.firing();
    assert!(!of_others.iter().any(|(_, plugin)| plugin == "logger"), "{of_others:?}");
    assert!(!of_others.iter().any(|(alert, _)| alert.contains("Broker") || alert.contains("Ready")), "{of_others:?}");

    node.kill();
    prometheus.wait_for("NotifyHostBrokerDisconnected", "");
    prometheus.wait_for("NotifyHostNotReady", "");
    node.start_again();
    eventually(2 * SOON, "what was mended fires no more", || {
        !prometheus.firing().iter().any(|(alert, _)| alert.contains("Disconnected") || alert.contains("NotReady"))
    });
    host.stop();
    prometheus.wait_for("NotifyHostDown", "");
}
