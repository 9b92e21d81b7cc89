//! Calls each helper of each template with each kind of argument from a plugin in a running host. The result must
//! reach the host unchanged, in every build that the template offers.
//!
//! The test inserts a dispatcher into the project that `plugin new` writes. The event then names the helper to
//! call and its arguments.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use jiff::Timestamp;
use serde_json::{Value, json};
use testbed::eventually_some;
use testbed::languages::{Language, new_project};

use crate::journal::ask;
use crate::languages::{drop_in, host_program, tools};
use crate::world::{SOON, World};

const NAME: &str = "helpers";
/// Many calls fail, so the breaker must not open here. `pause-max` caps the delays that the helpers request.
const SETTINGS: &str = "[breaker]\ncalls = 10000\n[retry]\nattempts = 8\npause-max = \"1h\"\n";
const HOUR: i64 = 3_600_000;
/// Slack between the end of an attempt and the journal's record of the next due time, in milliseconds.
const SLACK: i64 = 5_000;

/// A call of a helper and the result that the host must see.
struct Case {
    helper: &'static str,
    arguments: Value,
    outcome: &'static str,
    reason: Value,
    code: Value,
    /// Milliseconds until the next attempt is due. `None` means the host's own choice, about a second.
    after: Option<i64>,
}

impl Case {
    fn new(helper: &'static str, arguments: Value, outcome: &'static str, reason: impl Into<Value>) -> Self {
        Self { helper, arguments, outcome, reason: reason.into(), code: Value::Null, after: None }
    }

    fn retry(helper: &'static str, arguments: Value, after: Option<i64>) -> Self {
        Self { after, ..Self::new(helper, arguments, "retry", "r") }
    }

    fn coded(self, code: &str) -> Self {
        Self { code: code.into(), ..self }
    }
}

/// Returns a text longer than the journal keeps of a reason.
fn long_text() -> String {
    "Grüße € 🎉 ".repeat(300)
}

fn outcomes(done_with: &'static str) -> Vec<Case> {
    vec![
        Case::new("done", json!([]), "done", Value::Null),
        Case::new(done_with, json!(["250 queued as 4711"]), "done", "250 queued as 4711"),
        Case::new(done_with, json!([long_text()]), "done", long_text()),
        Case::new("skipped", json!(["none of ours"]), "skipped", "none of ours"),
        Case::new("skipped", json!([long_text()]), "skipped", long_text()),
        Case::new("reject", json!(["bad-data", "no order_id"]), "reject", "no order_id").coded("bad-data"),
        Case::new("reject", json!(["c", long_text()]), "reject", long_text()).coded("c"),
    ]
}

fn waits(helper: &'static str) -> Vec<Case> {
    vec![
        Case::retry(helper, json!(["r", 0]), None),
        Case::retry(helper, json!(["r", 30_000]), Some(30_000)),
        // Values beyond `pause-max`, beyond 2^32 and beyond a double's exact integers, then the contract's maximum.
        Case::retry(helper, json!(["r", 5_000_000_000_i64]), Some(HOUR)),
        Case::retry(helper, json!(["r", 9_007_199_254_740_993_i64]), Some(HOUR)),
        Case::retry(helper, json!(["r", u64::MAX]), Some(HOUR)),
    ]
}

fn last() -> Case {
    // This case comes last because it pauses the plugin.
    Case::new("misconfigured", json!(["the token is wrong"]), "misconfigured", "the token is wrong")
}

fn cases(language: Language) -> Vec<Case> {
    let number = "12";
    let mut cases = match language {
        Language::Rust | Language::C => {
            let mut cases = outcomes("done_with");
            cases.push(Case::retry("retry", json!(["r"]), None));
            cases.extend(waits("retry_after"));
            cases
        }
        Language::JavaScript | Language::JavaScriptFull => {
            let mut cases = outcomes("done");
            cases.extend(waits("retry"));
            cases.extend([
                Case::new("done", json!([null]), "done", Value::Null),
                Case::new("done", json!([12]), "done", number),
                Case::new("skipped", json!(["js:'half \\ud83c'"]), "skipped", "half \u{fffd}"),
                Case::retry("retry", json!(["r"]), None),
                Case::retry("retry", json!(["r", null]), None),
                Case::retry("retry", json!(["r", "js:NaN"]), None),
                Case::retry("retry", json!(["r", "js:'soon'"]), None),
                Case::retry("retry", json!(["r", -5]), None),
                Case::retry("retry", json!(["r", 30_000.5]), Some(30_001)),
                Case::retry("retry", json!(["r", "js:30000n"]), Some(30_000)),
                Case::retry("retry", json!(["r", "js:'30000'"]), Some(30_000)),
                Case::retry("retry", json!(["r", "js:Infinity"]), Some(HOUR)),
                Case::retry("retry", json!(["r", 1e300]), Some(HOUR)),
                // Calls with a time-out in the contract reach the host, which has granted nothing.
                Case::new("wholeNumberAsTimeout", json!([500]), "done", "denied"),
                Case::new("wholeNumberAsTimeout", json!([0.5]), "done", "denied"),
                Case::new("wholeNumberAsTimeout", json!([]), "done", "denied"),
                Case::new("retry", json!(["js:new TypeError('away')"]), "retry", "TypeError: away"),
                Case::new("reject", json!(["c", "js:new Error('odd')"]), "reject", "Error: odd").coded("c"),
            ]);
            cases
        }
        Language::Python => {
            let mut cases = outcomes("done");
            cases.extend(waits("retry"));
            cases.extend([
                Case::new("done", json!([null]), "done", Value::Null),
                Case::new("done", json!([12]), "done", number),
                Case::new("skipped", json!(["py:'half \\ud83c'"]), "skipped", "half ?"),
                Case::retry("retry", json!(["r"]), None),
                Case::retry("retry", json!(["r", null]), None),
                Case::retry("retry", json!(["r", "py:float('nan')"]), None),
                Case::retry("retry", json!(["r", -5]), None),
                Case::retry("retry", json!(["r", 30_000.5]), Some(30_001)),
                Case::retry("retry", json!(["r", "py:2**64"]), Some(HOUR)),
                Case::retry("retry", json!(["r", "py:float('inf')"]), Some(HOUR)),
                Case::retry("retry", json!(["r", 1e300]), Some(HOUR)),
                Case::new("retry", json!(["py:ValueError('away')"]), "retry", "away"),
                Case::new("reject", json!(["c", "py:ValueError('odd')"]), "reject", "odd").coded("c"),
            ]);
            cases
        }
    };
    if language == Language::C {
        // snprintf cuts the text like this when the buffer is too small.
        cases.push(Case::new("skipped", json!(["c:cut"]), "skipped", "Gr"));
        cases.push(Case::new("reject", json!(["c", "c:cut"]), "reject", "Gr").coded("c"));
    }
    cases.push(last());
    cases
}

/// Returns the template's source file, the code that the dispatcher goes in front of, and the dispatcher.
fn dispatcher(language: Language) -> (&'static str, &'static str, &'static str) {
    match language {
        Language::Rust => (
            "src/lib.rs",
            "        let settings: Settings = notify_plugin::config()?;\n",
            r#"
        #[derive(Deserialize)]
        struct Call {
            helper: String,
            first: String,
            second: String,
            third: String,
        }
        let Call { helper, first, second, third } = event.data()?;
        return match helper.as_str() {
            "done" => notify_plugin::done(),
            "done_with" => notify_plugin::done_with(first),
            "skipped" => notify_plugin::skipped(first),
            "retry" => Err(notify_plugin::retry(first)),
            "retry_after" => Err(notify_plugin::retry_after(first, third.parse().unwrap())),
            "reject" => Err(notify_plugin::reject(first, second)),
            "misconfigured" => Err(notify_plugin::misconfigured(first)),
            other => panic!("there is no helper {other}"),
        };
"#,
        ),
        Language::JavaScript | Language::JavaScriptFull => (
            "plugin.js",
            "    if (typeof order?.order_id",
            r"
    const request = { method: 'GET', url: 'http://127.0.0.1:1/', headers: [], body: new Uint8Array() };
    const wholeNumberAsTimeout = (value) => {
      try {
        return done(`status ${http.send({ ...request, timeout: wholeNumber(value) }).status}`);
      } catch (error) {
        return done((error.payload ?? error).tag);
      }
    };
    const helpers = { done, skipped, retry, reject, misconfigured, wholeNumberAsTimeout };
    const special = (value) => (/^js:/.test(value) ? new Function(`return ${value.slice(3)}`)() : value);
    const made = helpers[order.helper](...order.arguments.map(special));
    if (made instanceof Error) throw made;
    return made;
",
        ),
        Language::Python => (
            "app.py",
            "        if not isinstance(order, dict)",
            r#"
        helpers = {"done": done, "skipped": skipped, "retry": retry, "reject": reject, "misconfigured": misconfigured}
        special = lambda value: eval(value[3:]) if isinstance(value, str) and value.startswith("py:") else value
        made = helpers[order["helper"]](*map(special, order["arguments"]))
        if isinstance(made, Err):
            raise made
        return made
"#,
        ),
        Language::C => (
            "main.c",
            "    char order_id[100], user[100], product[200];\n",
            r#"
    static char helper[30], first[20000], second[20000], third[30];
    json_text(data, "helper", helper, sizeof helper);
    json_text(data, "first", first, sizeof first);
    json_text(data, "second", second, sizeof second);
    json_text(data, "third", third, sizeof third);
    if (same(first, "c:cut")) snprintf(first, 4, "%s", "Grüße");
    if (same(second, "c:cut")) snprintf(second, 4, "%s", "Grüße");
    if (same(helper, "done")) return done(outcome);
    if (same(helper, "done_with")) return done_with(outcome, first);
    if (same(helper, "skipped")) return skipped(outcome, first);
    if (same(helper, "retry")) return retry(failure, first);
    if (same(helper, "retry_after")) return retry_after(failure, first, strtoull(third, NULL, 10));
    if (same(helper, "reject")) return reject(failure, first, second);
    if (same(helper, "misconfigured")) return misconfigured(failure, first);
    abort();
"#,
        ),
    }
}

/// Returns the names of the helpers that the template offers to an author.
fn offered(language: Language, project: &Path) -> BTreeSet<String> {
    let file = if language == Language::Rust { "notify-plugin/src/lib.rs" } else { dispatcher(language).0 };
    let source = fs::read_to_string(project.join(file)).unwrap();
    let begins = match language {
        Language::Rust => "pub fn ",
        Language::JavaScript | Language::JavaScriptFull => "function ",
        Language::Python => "def ",
        Language::C => "MAY_BE_UNUSED static bool ",
    };
    let name_in = |line: &str| Some(line.strip_prefix(begins)?.split('(').next()?.to_owned());
    let makes_outcome =
        |line: &&str| language != Language::Rust || line.ends_with("-> Handled {") || line.ends_with("-> Failure {");
    // Internal functions that the helpers are built on.
    let inner = ["failure", "text", "wholeNumber", "whole_number"];
    let names = source.lines().filter(makes_outcome).filter_map(name_in);
    names.filter(|name| !inner.contains(&name.as_str())).collect()
}

fn event(number: usize, case: &Case) -> String {
    let text = |at: usize| case.arguments[at].as_str().unwrap_or_default().to_owned();
    let event = json!({
        "event": "OrderCreated",
        "order_id": subject(number),
        "helper": case.helper,
        "arguments": case.arguments,
        // The same arguments as plain members, for languages in which they are easier to read than a list.
        "first": text(0),
        "second": text(1),
        "third": if case.arguments[1].is_u64() { case.arguments[1].to_string() } else { String::new() },
    });
    event.to_string()
}

fn subject(number: usize) -> String {
    format!("case-{number}")
}

/// Returns the journal's record of the first attempt.
fn first_attempt(world: &World, number: usize) -> Value {
    eventually_some(SOON, &format!("{} is tried", subject(number)), || {
        let explained: Value =
            serde_json::from_str(&ask(world, &["explain", &subject(number), "--json"]).ok()?).ok()?;
        let records = explained["records"].as_array()?;
        let mut attempts = records.iter().filter(|record| record["what"] == "attempted" && record["plugin"] == NAME);
        attempts.find(|record| record["attempt"] == 1).cloned()
    })
}

fn judge(case: &Case, attempt: &Value) {
    let told = format!("{} {}: {attempt}", case.helper, case.arguments);
    assert_eq!(attempt["outcome"], case.outcome, "{told}");
    match (attempt["reason"].as_str(), case.reason.as_str()) {
        // The journal keeps only the beginning of a long reason.
        (Some(found), Some(wanted)) if wanted.chars().count() > 1000 => {
            let found = found.trim_end_matches('…');
            assert!(wanted.starts_with(found) && found.chars().count() >= 900, "{told}");
        }
        (found, wanted) => assert_eq!(found, wanted, "{told}"),
    }
    if !case.code.is_null() {
        assert_eq!(attempt["code"], case.code, "{told}");
    }
    if case.outcome == "retry" {
        let time = |key: &str| attempt[key].as_str().unwrap_or_else(|| panic!("{key}: {told}")).parse::<Timestamp>();
        let wait = time("next_at").unwrap().as_millisecond() - time("at").unwrap().as_millisecond();
        let wanted = case.after.unwrap_or_default();
        assert!((wanted - SLACK..=wanted + SLACK).contains(&wait), "{wait} ms: {told}");
    }
}

fn check(language: Language) {
    let world = World::on_sqlite();
    let project =
        new_project(host_program(), language, NAME, &world.path("")).unwrap_or_else(|error| panic!("{error}"));
    let cases = cases(language);
    let called: BTreeSet<_> = cases.iter().map(|case| case.helper.to_owned()).collect();
    let missing: Vec<_> = offered(language, &project).difference(&called).cloned().collect();
    assert!(missing.is_empty(), "no case calls {missing:?}");
    assert!(called.len() > 4, "{called:?}");

    let (file, before, dispatcher) = dispatcher(language);
    let source = fs::read_to_string(project.join(file)).unwrap();
    let import = "import * as log from 'notify:plugin/log@0.1.0';\n";
    let changed = source.replacen(before, &format!("{dispatcher}{before}"), 1).replacen(
        import,
        &format!("import * as http from 'notify:plugin/http@0.1.0';\n{import}"),
        1,
    );
    assert!(changed.contains(dispatcher), "the template no longer has {before:?}");
    fs::write(project.join(file), changed).unwrap();
    let wasm = tools().build(language, NAME, &project).unwrap_or_else(|error| panic!("{error}"));
    world.plug_logger();
    let host = world.host();
    drop_in(&world, &host, &wasm, NAME, SETTINGS);

    let send = |events: &[String]| {
        let file = world.path("events.jsonl");
        fs::write(&file, events.join("\n")).unwrap();
        world.order(&["send", &file.display().to_string()]);
    };
    let (last, others) = cases.split_last().unwrap();
    send(&others.iter().enumerate().map(|(number, case)| event(number, case)).collect::<Vec<_>>());
    for (number, case) in others.iter().enumerate() {
        judge(case, &first_attempt(&world, number));
    }
    send(&[event(others.len(), last)]);
    judge(last, &first_attempt(&world, others.len()));
    host.stop();
}

#[test]
fn each_helper_for_rust_says_what_it_means() {
    check(Language::Rust);
}

#[test]
fn each_helper_for_c_says_what_it_means() {
    check(Language::C);
}

#[test]
fn each_helper_for_javascript_on_the_small_engine_says_what_it_means() {
    check(Language::JavaScript);
}

#[test]
fn each_helper_for_javascript_on_the_full_engine_says_what_it_means() {
    check(Language::JavaScriptFull);
}

#[test]
fn each_helper_for_python_says_what_it_means() {
    check(Language::Python);
}
