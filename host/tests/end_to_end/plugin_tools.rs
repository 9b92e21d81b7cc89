//! The plugin commands for authors and operators: their reports and the files they write.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::world::{SOON, World, built};

const EVENT: &str = r#"{"event":"OrderCreated","order_id":"4711","product":"iPhone 15"}"#;
const DONE: i32 = 0;
const FAILED: i32 = 1;
const BAD_CONFIG: i32 = 78;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A guest in a folder of its own, with its toml, and an event.
struct Bench {
    world: World,
    wasm: PathBuf,
    toml: PathBuf,
    event: PathBuf,
}

impl Bench {
    fn with(guest: &str, toml: &str) -> Self {
        let world = World::on_sqlite();
        world.plug(guest, &built("NOTIFY_TEST_GUESTS", &format!("{guest}.wasm")), toml);
        let (wasm, toml) =
            (world.plugins().join(format!("{guest}.wasm")), world.plugins().join(format!("{guest}.toml")));
        let event = world.path("event.json");
        fs::write(&event, EVENT).unwrap();
        Self { world, wasm, toml, event }
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let Output { status, stdout, stderr } = self.world.plugin_command(arguments);
        (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    }

    fn json(&self, arguments: &[&str]) -> (i32, serde_json::Value, String) {
        let (code, stdout, stderr) = self.run(&[arguments, &["--json"]].concat());
        (code, serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}")), stderr)
    }

    fn test(&self, arguments: &[&str]) -> (i32, serde_json::Value, String) {
        self.json(&[&["test", text(&self.wasm), "--event", text(&self.event)], arguments].concat())
    }
}

#[test]
fn inspect_tells_what_a_plugin_is_and_asks_for_and_the_toml_that_it_writes_loads() {
    let bench = Bench::with("asker", "[grants]\nhttp = [\"https://*.example.com\"]\n");
    let (code, told, said) = bench.run(&["inspect", text(&bench.wasm)]);
    assert_eq!(code, DONE, "{said}");
    for line in [
        "name          asker",
        "version       1.2.0",
        "homepage      https://example.com/asker",
        "imports       log, config, secrets",
        "gets          Order*",
        "asks for      http https://hooks.example.com (to post messages): granted",
        // Text from a plugin cannot control the terminal.
        "              mail *@example.com (to write to \\u{1b}[31mpeople): not granted",
        "              sms +49 (to wake you up): cannot be granted: there is no capability \"sms\"; there are http, mail \
         and secret",
        "settings      recipients: a list, required: who gets the mail",
        "# mail = [\"*@example.com\"]",
        "# [secrets.hook-token]    # to sign what it posts",
        "# env = \"HOOK_TOKEN\"    # or file = \"PATH\", or credential = \"NAME\" of systemd",
        "recipients = []    # a list, required: who gets the mail",
    ] {
        assert!(told.lines().any(|told| told == line), "{line:?} in {told}");
    }

    let (_, inspected, _) = bench.json(&["inspect", text(&bench.wasm)]);
    let sum = Command::new("sha256sum").arg(&bench.wasm).output().unwrap();
    assert_eq!(inspected["sha256"].as_str(), String::from_utf8(sum.stdout).unwrap().split(' ').next());
    assert_eq!(inspected["kind"], "component");
    assert_eq!(inspected["requests"][0]["granted"], true);
    assert_eq!(inspected["requests"][3]["problem"].as_str().map(|problem| problem.contains("sms")), Some(true));
    assert_eq!(inspected["config_schema"]["required"][0], "recipients");

    // The toml as printed, with the required settings filled in.
    let toml = inspected["toml"].as_str().unwrap().replace("recipients = []", "recipients = [\"a@example.com\"]");
    for toml in
        [toml.clone(), toml.replace("# http =", "http =").replace("# mail =", "mail =").replace("# subject", "subject")]
    {
        fs::write(&bench.toml, &toml).unwrap();
        let (code, report, said) = bench.test(&[]);
        assert_eq!((code, &report["outcome"]), (DONE, &"done".into()), "{toml}{said}");
    }

    let (code, _, said) = bench.run(&["inspect", text(&bench.event)]);
    assert_eq!(code, FAILED);
    assert!(said.contains("it is not WebAssembly"), "{said}");
}

#[test]
fn inspect_knows_a_core_module() {
    let bench = Bench::with("asker", "");
    let logger = built("NOTIFY_TEST_PLUGINS_CORE", "logger.wasm");
    let (code, inspected, said) = bench.json(&["inspect", text(&logger)]);
    assert_eq!((code, &inspected["kind"]), (DONE, &"core module".into()), "{said}");
    assert_eq!(inspected["imports"]["wasi"], serde_json::json!([]));
}

#[test]
fn a_plugin_is_tried_out_without_a_broker() {
    let bench = Bench::with("asker", "[config]\nrecipients = [\"a@example.com\"]\n");
    let (code, report, said) = bench.test(&["--repeat", "20"]);
    assert_eq!(code, DONE, "{said}");
    assert_eq!((&report["outcome"], &report["reason"]), (&"done".into(), &"the secret is denied".into()));
    let message = report["log"][0]["message"].as_str().unwrap();
    let settings: serde_json::Value = serde_json::from_str(message.strip_prefix("settings ").unwrap()).unwrap();
    assert_eq!(
        settings,
        serde_json::json!({"recipients": ["a@example.com"], "relay": {"port": 25}, "subject": "news"}),
        "with the schema's defaults"
    );
    assert_eq!(report["log"].as_array().unwrap().len(), 1, "of the first attempt");
    assert!(said.contains("[asker] settings {"), "{said}");
    let calls = serde_json::json!({"config.get-json": 1, "log.enabled": 1, "log.write": 1, "secrets.open": 1});
    assert_eq!((&report["host_calls"], &report["attempts"]), (&calls, &20.into()));
    let number = |pointer: &str| report.pointer(pointer).and_then(serde_json::Value::as_u64).unwrap();
    assert!((65_536..16 << 20).contains(&number("/memory_bytes")), "{report}");
    let times = [number("/time/min_us"), number("/time/median_us"), number("/time/p99_us")];
    assert!(times[0] > 0 && times.is_sorted(), "{report}");
    assert!(report["load_ms"].is_u64(), "{report}");

    // None of this was written anywhere.
    let mut files: Vec<_> =
        fs::read_dir(bench.world.plugins()).unwrap().map(|file| file.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["asker.toml", "asker.wasm"]);
}

#[test]
fn each_failure_is_told_and_is_the_exit_code() {
    let bench = Bench::with("misbehaver", "");
    for (act, outcome, reason) in [
        ("reject", "reject", "told to reject (told-to)"),
        ("retry", "retry", "told to try again"),
        ("misconfigured", "misconfigured", "told to complain"),
        ("panic", "trapped", "it trapped"),
        ("memory", "out-of-memory", "its limit is 16 MiB"),
        ("loop", "timed-out", "time limit of 200 ms"),
    ] {
        let toml = bench.world.path("other.toml");
        fs::write(&toml, format!("[limits]\nmemory = \"16 MiB\"\ntime = \"200ms\"\n[config]\nact = {act:?}\n"))
            .unwrap();
        let (code, report, said) = bench.test(&["--toml", text(&toml), "--repeat", "3"]);
        assert_eq!((code, &report["outcome"], &report["attempts"]), (FAILED, &outcome.into(), &1.into()), "{said}");
        assert!(report["reason"].as_str().unwrap().contains(reason), "{report}");
        assert!(said.contains(&format!("notify-host: {outcome}: ")), "{said}");
    }
    fs::write(&bench.toml, "[config]\nact = \"twice\"\n").unwrap();
    assert_eq!(bench.test(&["--attempt", "2"]).1["outcome"], "retry");
    assert_eq!(bench.test(&["--attempt", "3"]).1["outcome"], "done");
    fs::write(&bench.toml, "filter = 'data.total > 1'\n[config]\nact = \"skip\"\n").unwrap();
    let (code, report, said) = bench.test(&[]);
    assert_eq!((code, &report["outcome"]), (DONE, &"skipped".into()));
    assert!(said.contains("in a host it would not get this event: filter data.total > 1 does not match"), "{said}");
}

#[test]
fn settings_that_do_not_fit_the_schema_are_told_with_their_lines() {
    let wrong = "# ours\n[config]\nrecipients = [\n  \"a@example.com\",\n  \"nobody\",\n]\nsubjekt = \"x\"\n[config.relay]\nport = \"25\"\n";
    let bench = Bench::with("asker", wrong);
    let place = bench.toml.display();
    let faults = [
        format!("{place}:5: config.recipients[1]: it does not match \"@\""),
        format!("{place}:7: config.subjekt: unknown key; did you mean \"subject\"?"),
        format!("{place}:9: config.relay.port: expected a whole number, got a text"),
    ];
    let (code, _, said) = bench.run(&["test", text(&bench.wasm), "--event", text(&bench.event)]);
    assert_eq!(code, BAD_CONFIG, "{said}");
    bench.world.plug_logger();
    let host = bench.world.host();
    let log = host.child_guard.stderr();
    for fault in &faults {
        assert!(said.contains(fault), "{fault} in {said}");
        assert!(log.contains(&fault.replace('"', "\\\"")), "{fault} in {log}");
    }
    for id in bench.world.order(&["demo"]) {
        host.wait_for_order(&id);
    }
    host.stop();
}

#[test]
fn grants_are_written_after_a_yes_and_the_host_tells_what_is_open() {
    let before = "# by Ann\n[grants] # few\nmail = [\"ops@example.com\"] # herself\n\n[config]\nrecipients = [\"a@example.com\"]\n";
    let bench = Bench::with("asker", before);
    let host = bench.world.host();
    assert!(
        host.logged(
            "asker 1.2.0 asks for more than it is granted: http https://hooks.example.com (\\\"to post messages\\\")"
        ),
        "{}",
        host.child_guard.stderr()
    );
    host.stop();

    let (code, _, said) = bench.run(&["grant", "asker"]);
    assert_eq!(code, FAILED);
    assert!(
        said.contains("asker wants to send HTTP requests to https://hooks.example.com: to post messages\n"),
        "{said}"
    );
    assert!(said.contains("must be said: add --secret hook-token=env:VARIABLE, or file:PATH"), "{said}");
    let (code, _, said) = bench.run(&["grant", "asker", "--secret", "hook-token=hunter2"]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("and no value"), "{said}");
    let (code, _, said) = bench.run(&["grant", "asker", "--secret", "other=env:OTHER"]);
    assert!(code == FAILED && said.contains("asker does not ask for a secret other"), "{said}");
    let (code, _, said) = bench.run(&["grant", "asker", "--secret", "hook-token=file:/dev/null"]);
    assert_eq!(code, FAILED);
    assert!(said.contains("there is nobody to ask whether to write 3 grants: add --yes"), "{said}");
    assert_eq!(fs::read_to_string(&bench.toml).unwrap(), before, "and nothing is written");

    let token = bench.world.path("token");
    fs::write(&token, "a token of the test\n").unwrap();
    let source = format!("hook-token=file:{}", token.display());
    let (code, _, said) = bench.run(&["grant", "asker", "--yes", "--secret", &source]);
    assert_eq!(code, DONE, "{said}");
    assert!(said.contains("asker asks for sms +49 (to wake you up), which cannot be granted"), "{said}");
    let after = format!(
        "# by Ann\n[grants] # few\nmail = [\"ops@example.com\", \"*@example.com\"] # herself\n\
        http = [\"https://hooks.example.com\"]\n\n[config]\nrecipients = [\"a@example.com\"]\n\n\
         [secrets.hook-token]\nfile = {token:?}\n"
    );
    assert_eq!(fs::read_to_string(&bench.toml).unwrap(), after);

    let (code, _, said) = bench.run(&["grant", "asker"]);
    assert_eq!(code, DONE, "{said}");
    assert!(said.contains("asker 1.2.0: there is nothing more to grant"), "{said}");
    let host = bench.world.host();
    assert!(!host.logged("asks for more"), "{}", host.child_guard.stderr());
    bench.world.order(&["create", "--user", "u", "--product", "p"]);
    testbed::eventually(SOON, "the event arrived", || !host.said("asker").is_empty());
    host.stop();

    let (code, _, said) = bench.run(&["grant", "../asker"]);
    assert_eq!(code, FAILED);
    assert!(said.contains("there is no plugin \"../asker\""), "{said}");
}
