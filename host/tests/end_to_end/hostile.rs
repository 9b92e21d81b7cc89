//! The hostile corpus: every guest that tries to do harm, in one host beside a good one. The expected results are read
//! from a table in `docs/sandbox.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Output;
use std::time::Duration;

use broker::Value;
use jiff::Timestamp;
use testbed::{ChildGuard, eventually};

use crate::assemble::{CONTRACT, Guest, embed};
use crate::world::{Host, SOON, World, built};

const DOCUMENT: &str = include_str!("../../../docs/sandbox.md");
/// Events per run: enough for every act to meet several, too few to open a breaker.
const EVENTS: usize = 4;
/// Maximum time from publishing an event until the logger has written it. A quiet machine needs 50 ms. The hostile
/// guests compute, sleep and wait for far longer than this.
const ON_TIME: Duration = Duration::from_secs(2);
/// Control characters, and marks that change the writing direction.
const ACTIVE: [char; 6] = ['\u{1b}', '\u{7}', '\u{9b}', '\r', '\u{202e}', '\0'];

#[derive(Clone, Debug)]
struct Documented {
    act: String,
    outcome: String,
    says: String,
}

impl Documented {
    fn is_loaded(&self) -> bool {
        self.outcome != "not loaded"
    }

    /// Returns the code of its dead letters.
    fn code(&self) -> Option<&str> {
        Some(self.outcome.strip_prefix("dead letter ")?.trim_matches('`'))
    }
}

/// Returns the cells of the table below a heading.
fn table(heading: &str) -> Vec<Vec<String>> {
    let section = DOCUMENT.split("\n## ").find(|section| section.starts_with(heading)).expect(heading);
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    let cells = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    rows.map(cells).collect()
}

fn documented() -> Vec<Documented> {
    let rows = table("What becomes of those that misbehave").into_iter();
    rows.map(|row| Documented {
        act: row[1].trim_matches('`').to_owned(),
        outcome: row[2].clone(),
        says: row[3].clone(),
    })
    .collect()
}

/// Acts that the Rust guest performs, selected by its configuration.
const IN_RUST: [&str; 16] = [
    "loop",
    "sleep",
    "recursion",
    "memory",
    "handles",
    "random",
    "panic",
    "exit",
    "long-result",
    "huge-result",
    "retry-never",
    "log-flood",
    "log-line",
    "log-fields",
    "print-flood",
    "escapes",
];

/// Returns a guest that no compiler would produce, assembled by hand.
fn assembled(act: &str) -> Option<Vec<u8>> {
    let set = |at: u32, value: u32| format!("(i32.store (i32.const {at}) (i32.const {value}))");
    // The result done(some(text)), given the text's address and length.
    let text = |at: u32, length: u32| {
        format!(
            "(i32.store8 (i32.const 512) (i32.const 0)) (i32.store8 (i32.const 516) (i32.const 0)) (i32.store8 (i32.const 520) (i32.const 1)) {} {}",
            set(524, at),
            set(528, length)
        )
    };
    let endless = "(loop $for_ever (br $for_ever))";
    let bytes = match act {
        "table" => Guest {
            items: "(table $t 1 funcref)",
            handle: "(loop $more (br_if $more (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1)))) unreachable",
            ..Guest::default()
        }
        .assemble(),
        "deep-recursion" => {
            let items = "(func $deeper (result i32) (i32.add (call $deeper) (i32.const 1)))";
            Guest { items, handle: "(drop (call $deeper))", ..Guest::default() }.assemble()
        }
        "trap" => Guest {
            items: r#"(func $boom (@name "here\1b[2J") unreachable)"#,
            handle: "call $boom",
            ..Guest::default()
        }
        .assemble(),
        "invalid-utf8" => Guest { handle: &format!("{} {}", text(700, 4), set(700, 0xfffe_fdfc)), ..Guest::default() }.assemble(),
        "bad-pointer" => Guest { handle: &text(0xffff_fff0, 100), ..Guest::default() }.assemble(),
        "recursive-host-call" => Guest {
            imports: r#"(import "notify:plugin/log@0.1.0" "enabled" (func $enabled (param i32) (result i32)))"#,
            realloc: "(drop (call $enabled (i32.const 0)))",
            ..Guest::default()
        }
        .assemble(),
        "escaping-description" => Guest { describe: "(i32.store8 (i32.const 27) (i32.const 27))", ..Guest::default() }.assemble(),
        "impostor" => Guest { name: "logge", ..Guest::default() }.assemble(),
        "many-functions" => {
            let function = |number| {
                format!("(func $f{number} (param i32) (result i32) (i32.add (local.get 0) (i32.const {number})))")
            };
            let functions = (0..10_000).map(function).collect::<Vec<_>>().concat();
            let calls = "(drop (call $f9999 (call $f0 (i32.const 1))))";
            Guest { items: &functions, handle: calls, ..Guest::default() }.assemble()
        }
        "describe-loop" => Guest { describe: endless, ..Guest::default() }.assemble(),
        "start-loop" => Guest { items: &format!("(func $start {endless}) (start $start)"), ..Guest::default() }.assemble(),
        "large-memory" => {
            let small = Guest::default().to_text();
            embed(&small.replace(r#"(memory (export "memory") 2)"#, r#"(memory (export "memory") 2000)"#), CONTRACT)
        }
        "long-description" => Guest { describe: &format!("{} {}", set(272, 2048), set(276, 100_000)), ..Guest::default() }.assemble(),
        "long-schema" => Guest { describe: &format!("{} {} {}", set(288, 1), set(292, 2048), set(296, 100_000)), ..Guest::default() }.assemble(),
        "many-subscriptions" => Guest { describe: &format!("{} {}", set(300, 1024), set(304, 1000)), ..Guest::default() }.assemble(),
        "wrong-types" => Guest::default().assemble_for(&CONTRACT.replace("describe: func() -> plugin-info;", "describe: func() -> string;")),
        "long-names" => {
            let export = |last| format!(r#"(export "{}{last}" (instance $i))"#, "a".repeat(99_000));
            let component = format!("(component (instance $i) {})", ["x", "y", "z"].map(export).concat());
            wat::parse_str(component).unwrap()
        }
        // Packages in the component type that refer to each other in a circle. Reading them never ends.
        "endless-types" => {
            let mut bytes = Guest::default().assemble();
            let name = b"notify:plugin/log@";
            let at = bytes.windows(name.len()).position(|window| window == name).expect("what it imports");
            bytes[at] = b'm';
            bytes
        }
        _ => return None,
    };
    Some(bytes)
}

fn plug(world: &World, act: &str) {
    // Only endless acts need to meet their time limit. The others share the remaining CPU, so they get plenty of time.
    let time = if ["loop", "sleep"].contains(&act) { "1s" } else { "1m" };
    let limits = format!("[retry]\nattempts = 1\n[limits]\ntime = {time:?}\n");
    if IN_RUST.contains(&act) {
        let memory = if act == "memory" { "16 MiB" } else { "64 MiB" };
        let attempts = if act == "retry-never" { 2 } else { 1 };
        let toml = format!(
            "[retry]\nattempts = {attempts}\n[limits]\ntime = {time:?}\nmemory = {memory:?}\n[config]\nact = {act:?}\n"
        );
        world.plug(act, &built("NOTIFY_TEST_GUESTS", "misbehaver.wasm"), &toml);
    } else if act == "imports-everything" {
        world.plug(act, &built("NOTIFY_TEST_GUESTS", "prober.wasm"), &limits);
    } else if act == "fifo" {
        world.plug_fifo("fifo.wasm");
    } else if act == "device" {
        symlink("/dev/zero", world.plugins().join("device.wasm")).unwrap();
    } else {
        let wasm = world.path("assembled.wasm");
        if act == "large-file" {
            fs::File::create(&wasm).unwrap().set_len(100 << 20).unwrap();
        } else {
            fs::write(&wasm, assembled(act).unwrap_or_else(|| panic!("nothing does {act}"))).unwrap();
        }
        world.plug(act, &wasm, if act == "large-memory" { "" } else { &limits });
    }
}

/// Publishes events one by one, and returns each with the time just before it was published.
fn publish(world: &World) -> BTreeMap<String, Timestamp> {
    let order = |_| {
        let now = Timestamp::now();
        (world.order(&["create", "--user", "u", "--product", "p"]).remove(0), now)
    };
    (0..EVENTS).map(order).collect()
}

/// Returns when the logger wrote each order.
fn written(host: &Host) -> Vec<(String, Timestamp)> {
    let order = |line: &str| -> Option<String> {
        let event: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(event["data"]["order_id"].as_str()?.to_owned())
    };
    host.said("logger").into_iter().filter_map(|(at, line)| Some((order(&line)?, at))).collect()
}

/// Waits until the logger has all events, and checks that each arrived in time.
fn check_on_time(host: &Host, published: &BTreeMap<String, Timestamp>) {
    let times =
        || -> BTreeMap<_, _> { written(host).into_iter().filter(|(id, _)| published.contains_key(id)).collect() };
    eventually(SOON, "the logger gets everything", || times().len() == published.len());
    let took = |(id, at): (String, Timestamp)| at.duration_since(published[&id]);
    let longest = times().into_iter().map(took).max().unwrap();
    assert!(longest <= ON_TIME.try_into().unwrap(), "one took {longest:#}");
}

/// Runs these acts in one host and compares the results with the documentation.
fn run(world: &World, acts: &[Documented]) {
    world.plug_logger();
    for documented in acts {
        plug(world, &documented.act);
    }
    let host = world.host();
    for documented in acts {
        let file = format!("/{}.wasm: ", documented.act);
        let log = host.child_guard.stderr();
        let refusal = log.lines().find(|line| line.contains(&file));
        match refusal {
            Some(line) => assert!(!documented.is_loaded() && line.contains(&documented.says), "{documented:?}: {line}"),
            None => assert!(documented.is_loaded(), "{documented:?} is loaded"),
        }
    }
    let published = publish(world);
    check_on_time(&host, &published);

    let broker = world.broker();
    let fatal: BTreeMap<_, _> = acts.iter().filter_map(|one| Some((one.act.clone(), one.code()?.to_owned()))).collect();
    let letters = world.dead_letters(&broker, fatal.len() * EVENTS);
    let mut counts = BTreeMap::new();
    for letter in &letters {
        let header = |name: &str| letter.message.properties.headers.get(name).and_then(Value::to_text).unwrap();
        let act = header("x-notify-plugin");
        let (code, reason) = (header("x-notify-code"), header("x-notify-reason"));
        let documented = acts.iter().find(|one| one.act == act).unwrap_or_else(|| panic!("a dead letter of {act}"));
        assert_eq!(Some(&code), fatal.get(&act), "{documented:?}: {reason}");
        assert!(reason.contains(&documented.says), "{documented:?}: {reason}");
        assert!(reason.len() < 20_000, "{act}: {} bytes", reason.len());
        *counts.entry(act).or_insert(0) += 1;
    }
    assert!(counts.values().all(|count| *count == EVENTS), "one dead letter for each event: {counts:?}");

    for documented in acts.iter().filter(|one| one.is_loaded() && one.code().is_none()) {
        let loaded =
            |line: &str| line.contains("loaded: ") && line.contains(&format!("\"plugin\":{:?}", documented.act));
        let said = |line: &str| line.contains(&documented.act) && line.contains(&documented.says);
        let wanted = if documented.says == "loaded" { 1 } else { EVENTS };
        eventually(SOON, &format!("{documented:?}"), || {
            let log = host.child_guard.stderr();
            log.lines().filter(|line| if documented.says == "loaded" { loaded(line) } else { said(line) }).count()
                >= wanted
        });
    }
    eventually(SOON, "all messages are acknowledged", || world.queue_state(&broker, &world.queue).ready == 0);
    host.stop();
    let mut orders: Vec<_> = written(&host).into_iter().map(|(id, _)| id).collect();
    orders.sort();
    assert_eq!(orders, published.into_keys().collect::<Vec<_>>(), "the logger was called once for each");
    let log = host.child_guard.stderr();
    for active in ACTIVE {
        assert!(!log.contains(active), "{active:?} reached the log");
    }
    if acts.iter().any(|one| one.act == "panic") {
        assert!(
            log.lines().any(|line| line.contains("told to panic") && line.contains("\"stream\":\"stderr\"")),
            "{log}"
        );
        assert!(log.contains("misbehaver"), "the backtrace names functions");
    }
}

#[test]
fn whatever_a_guest_does_its_neighbours_get_their_events_on_time() {
    run(&World::on_sqlite(), &documented());
}

#[test]
fn guests_that_hold_every_place_leave_one_for_each_neighbour() {
    let world = World::on_sqlite();
    world.plug_logger();
    // Each plugin alone may hold every instance, for longer than any wait of this test.
    let greedy = "[breaker]\ncalls = 10000\n[limits]\ntime = \"5m\"\nconcurrency = 64\n[config]\nact = \"sleep\"\n";
    for name in ["greedy-one", "greedy-two"] {
        world.plug(name, &built("NOTIFY_TEST_GUESTS", "misbehaver.wasm"), greedy);
    }
    let host = world.host();
    let count = 100;
    world.order(&["--quiet", "load", "--count", &count.to_string(), "--mix", "created=100"]);
    eventually(SOON, "the logger gets them all the same", || host.distinct_orders().len() == count);
    check_on_time(&host, &publish(&world));
    host.child_guard.kill();
}

/// The texts travel in message headers, so the result depends on the broker.
#[test]
fn what_hostile_guests_answer_fits_into_the_headers_of_rabbitmq() {
    let texts = ["long-result", "huge-result", "escapes", "trap", "panic", "invalid-utf8", "recursion", "retry-never"];
    let acts: Vec<_> = documented().into_iter().filter(|one| texts.contains(&&*one.act)).collect();
    assert_eq!(acts.len(), texts.len());
    run(&World::on_rabbitmq(), &acts);
}

#[test]
fn what_a_guest_writes_cannot_drive_a_terminal() {
    let world = World::on_sqlite();
    for act in ["escapes", "escaping-description", "trap"] {
        plug(&world, act);
    }
    let mut command = world.host_command(&["run", "--log-format", "human"]);
    command.arg("--plugins").arg(world.plugins());
    let host = Host { child_guard: ChildGuard::spawn(command) };
    host.wait_for("ready: ");
    world.order(&["create", "--user", "u", "--product", "p"]);
    for text in [
        "[escapes] message\\u{1b}[2J",
        "value\\u001b[2J",
        "[escapes] printed\\u{1b}[2J",
        "reason\\u{1b}[2J",
        "here\\u{1b}[2J",
    ] {
        host.wait_for(text);
    }
    let broker = world.broker();
    eventually(SOON, "two dead letters", || world.queue_state(&broker, &world.names().dead()).ready == 2);
    host.stop();
    let run = |arguments: &[&str]| -> Output { world.host_command(arguments).output().unwrap() };
    let listed = run(&["dead-letters", "list"]);
    assert!(listed.status.success());
    let texts = [host.child_guard.stderr(), String::from_utf8(listed.stdout).unwrap()];
    for text in texts {
        assert!(text.contains("escapes"), "{text}");
        for active in ACTIVE {
            assert!(!text.contains(active), "{active:?} in {text}");
        }
    }
}

#[test]
fn a_plugin_without_grants_can_log_and_tell_the_time_and_nothing_else() {
    let world = World::on_sqlite();
    fs::copy(built("NOTIFY_TEST_GUESTS", "prober.wasm"), world.plugins().join("prober.wasm")).unwrap();
    let host = world.host();
    world.order(&["create", "--user", "u", "--product", "p"]);
    let mut found = BTreeSet::new();
    // The first exit leads to another attempt.
    for (function, code) in [("exit", 0), ("exit-with-code", 7)] {
        host.wait_for(&format!("it ended itself by an exit with code {code}"));
        found.insert(format!("wasi:cli/exit {function}: ends the call"));
    }
    let lines = host.said("prober").into_iter().map(|(_, line)| line);
    found.extend(lines.filter(|line| line.starts_with("wasi:") || line.starts_with("notify:")));
    host.child_guard.kill();
    let mut expected = BTreeSet::new();
    for row in table("What a plugin without grants finds") {
        let answers = row[1].split("; ").filter(|answer| !answer.is_empty());
        expected.extend(answers.map(|answer| format!("{} {answer}", row[0].trim_matches('`'))));
    }
    let differences: Vec<_> = found.symmetric_difference(&expected).collect();
    assert!(differences.is_empty(), "{differences:#?}");
}
