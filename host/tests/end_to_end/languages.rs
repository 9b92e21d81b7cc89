//! A project of `plugin new`, built as its README says, works in a running host in each language. Every answer of the
//! plugin arrives unchanged.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use testbed::languages::{Language, Tools, VARIABLE, new_project};
use testbed::{eventually, eventually_some};

use crate::world::{Host, SOON, World};

const NAME: &str = "order-thanks";
/// Maximum loading time. All of Python is compiled, on two cores that other tests use as well.
const LOADED: Duration = Duration::from_mins(4);

pub(crate) fn tools() -> Tools {
    let folder = std::env::var_os(VARIABLE);
    Tools::in_folder(folder.unwrap_or_else(|| panic!("{VARIABLE} is not set: run the tests by `cargo xtask test`")))
}

pub(crate) fn host_program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_notify-host"))
}

/// Builds a project in the world's folder, and returns the plugin's path.
fn make(world: &World, language: Language) -> PathBuf {
    tools().make(host_program(), language, NAME, &world.path("")).unwrap_or_else(|error| panic!("{error}"))
}

/// Drops the plugin into a running host's folder with the project's toml, and waits until it gets events.
pub(crate) fn drop_in(world: &World, host: &Host, wasm: &Path, name: &str, settings: &str) {
    let toml = fs::read_to_string(world.path(name).join(format!("{name}.toml"))).unwrap();
    fs::write(world.plugins().join(format!("{name}.toml")), format!("{toml}{settings}\n")).unwrap();
    fs::copy(wasm, world.plugins().join(format!("{name}.wasm"))).unwrap();
    let joined = || {
        let log = host.child_guard.stderr();
        assert!(!log.contains(&format!("{name}.wasm: ")), "it does not load:\n{log}");
        log.lines().any(|line| line.contains("gets events from now on") && line.contains(name)).then_some(())
    };
    eventually_some(LOADED, "the plugin gets events", joined);
}

fn check(language: Language) {
    let world = World::on_sqlite();
    let wasm = make(&world, language);
    world.plug_logger();
    let host = world.host();
    drop_in(&world, &host, &wasm, NAME, "ignore-user = \"nobody\"");

    let id = world.order(&["create", "--user", "user123", "--product", "iPhone 15"]).remove(0);
    let said = |text: &str| host.said(NAME).iter().any(|(_, line)| line == text);
    eventually(SOON, "the plugin has the order", || said("Thank you, user123: iPhone 15 is ordered"));
    let log = host.child_guard.stderr();
    let line = log.lines().find(|line| line.contains("iPhone 15 is ordered")).unwrap();
    assert!(line.contains(&id) && line.contains("attempt"), "with its fields: {line}");

    let events = world.path("events.jsonl");
    let lines = [
        r#"{"event":"OrderCreated","message_id":"0","order_id":"0","user_id":"nobody","product":"ignored"}"#,
        r#"{"event":"OrderCreated","user_id":"rejected","product":"p"}"#,
        r#"{"event":"OrderCreated","order_id":"4712","user_id":"u"}"#,
        r#"{"event":"OrderPaid","order_id":"4713","user_id":"not asked for","product":"p"}"#,
    ];
    fs::write(&events, lines.join("\n")).unwrap();
    world.order(&["send", &events.display().to_string()]);
    let about = |text: &str| {
        let log = host.child_guard.stderr();
        log.lines().find(|line| line.contains(NAME) && line.contains(text)).map(str::to_owned)
    };
    let rejected = eventually_some(SOON, "it rejects", || about("dead-lettered"));
    assert!(rejected.contains("order_id") && rejected.contains("bad-data"), "{rejected}");
    let retried = eventually_some(SOON, "it asks for another attempt", || about("order 4712 has no product yet"));
    assert!(retried.contains("attempt 1 of 8 failed"), "{retried}");
    host.wait_for("not asked for");
    host.stop();
    let thanks = host.said(NAME).iter().filter(|(_, line)| line.ends_with("is ordered")).count();
    assert_eq!(thanks, 1, "what it skips or did not ask for it does not thank for");
    let letters = world.queue_state(&world.broker(), &world.names().dead());
    assert_eq!(letters.ready, 1, "what is skipped is handled");
}

#[test]
fn a_plugin_in_rust_by_plain_cargo_for_wasm32_wasip2_works() {
    check(Language::Rust);
}

#[test]
fn a_plugin_in_c_works() {
    check(Language::C);
}

#[test]
fn a_plugin_in_javascript_on_the_small_engine_works() {
    check(Language::JavaScript);
}

#[test]
fn a_plugin_in_javascript_on_the_full_engine_works() {
    check(Language::JavaScriptFull);
}

#[test]
fn a_plugin_in_python_works() {
    check(Language::Python);
}

#[test]
fn a_core_module_for_the_first_wasi_is_made_a_component() {
    let world = World::on_sqlite();
    // Build only once, after the change: `make` may miss a change within the file system's time resolution.
    let project = new_project(host_program(), Language::C, NAME, &world.path("")).unwrap_or_else(|e| panic!("{e}"));
    let main = project.join("main.c");
    let source = fs::read_to_string(&main).unwrap();
    let changed = source.replace("    return done(outcome);", "    puts(text);\n    return done(outcome);");
    assert_ne!(source, changed);
    fs::write(&main, changed).unwrap();
    let wasm = tools().build(Language::C, NAME, &project).unwrap_or_else(|error| panic!("{error}"));
    let module = fs::read(&wasm).unwrap();
    let import = b"wasi_snapshot_preview1";
    assert!(module.windows(import.len()).any(|window| window == import), "it writes to its standard output");
    world.plug_logger();
    let host = world.host();
    drop_in(&world, &host, &wasm, NAME, "");
    world.order(&["create", "--user", "user123", "--product", "iPhone 15"]);
    eventually(SOON, "the plugin has the order", || {
        host.said(NAME).iter().any(|(_, line)| line == "Thank you, user123: iPhone 15 is ordered")
    });
    host.stop();
}
