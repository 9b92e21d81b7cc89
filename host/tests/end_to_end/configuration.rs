//! The settings: checked, shown, and reloaded while the host runs.

use std::fs;
use std::process::Output;
use std::time::Duration;

use testbed::eventually;

use crate::world::{Host, SOON, World};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn add(world: &World, head: &str) {
    let file = world.path("host.toml");
    let old = fs::read_to_string(&file).unwrap();
    fs::write(file, format!("{head}{old}")).unwrap();
}

fn config(world: &World, arguments: &[&str]) -> Output {
    let mut command = world.host_command(&[&["config"], arguments].concat());
    command.arg("--plugins").arg(world.plugins()).output().unwrap()
}

fn reload(world: &World) -> Output {
    let mut command = World::notify_host(&["reload", "--config"]);
    command.arg(world.path("host.toml")).arg("--plugins").arg(world.plugins()).output().unwrap()
}

fn hang_up(host: &Host) {
    let process = host.child_guard.id().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &process]).status().unwrap().success());
}

#[test]
fn a_check_tells_every_fault_of_host_and_plugins() {
    let world = World::on_sqlite();
    let well = config(&world, &["check"]);
    assert_eq!(well.status.code(), Some(0), "{}", text(&well.stderr));
    assert!(well.stdout.is_empty(), "{}", text(&well.stdout));

    add(&world, "prefecth = 5\n");
    fs::write(world.plugins().join("a.toml"), "[limits]\ntime = 5\n").unwrap();
    let faulty = config(&world, &["check"]);
    assert_eq!(faulty.status.code(), Some(78));
    let (told, said) = (text(&faulty.stdout), text(&faulty.stderr));
    for part in [
        "host.toml:1:1",
        "1 | prefecth = ***",
        "| ^^^^^^^^",
        "did you mean \"prefetch\"?",
        "a.toml:2:8",
        "2 | time = 5",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert!(said.contains("2 faults"), "{said}");
    let json = text(&config(&world, &["check", "--json"]).stdout);
    let told: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&told[0]["line"], &told[0]["suggestion"]), (&1.into(), &"did you mean \"prefetch\"?".into()));
    assert_eq!((told.len(), &told[1]["column"]), (2, &8.into()));
    // The host prints the same errors, one per line, and does not start.
    let started = world.host_with(&[]);
    assert_eq!(started.child_guard.wait_timeout(SOON).and_then(|status| status.code()), Some(78));
    assert!(
        started.child_guard.stderr().contains("host.toml:1: unknown key \"prefecth\"; did you mean"),
        "{}",
        started.child_guard.stderr()
    );
}

#[test]
fn what_holds_is_shown_with_who_says_so_and_without_a_password() {
    let world = World::on_sqlite();
    add(&world, "broker = \"amqp://shop:hunter2@mq.example.com\"\nprefetch = 5\ndrain-timeout = \"5s\"\n");
    let show = |arguments: &[&str]| {
        let mut command = World::notify_host(
            &[&["config", "show", "--config"][..], &[world.path("host.toml").to_str().unwrap()][..], arguments]
                .concat(),
        );
        let shown = command.env("NOTIFY_PREFETCH", "7").env("NOTIFY_LOGLEVEL", "debug").output().unwrap();
        assert_eq!(shown.status.code(), Some(0), "{}", text(&shown.stderr));
        shown
    };
    let shown = show(&["--drain-timeout", "9s"]);
    let (lines, said) = (text(&shown.stdout), text(&shown.stderr));
    let line = |key: &str| {
        let line = lines.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("no {key} in {lines}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let file = world.path("host.toml");
    assert_eq!(line("broker ="), format!("broker = \"amqp://shop:***@mq.example.com\" # {}:1", file.display()));
    assert_eq!(line("prefetch"), "prefetch = 7 # NOTIFY_PREFETCH");
    assert_eq!(line("drain-timeout"), "drain-timeout = \"9s\" # --drain-timeout");
    assert_eq!(line("log-level"), "log-level = \"info\" # default");
    assert!(said.contains("did you mean NOTIFY_LOG_LEVEL?"), "{said}");
    assert!(!lines.contains("hunter2"), "{lines}");
    let json = text(&show(&["--json"]).stdout);
    let of = |key: &str| json.lines().find(|line| line.contains(&format!("\"key\":{key:?}"))).unwrap().to_owned();
    assert!(of("prefetch").contains("\"source\":\"environment\",\"value\":7"), "{json}");
    assert!(!json.contains("hunter2"), "{json}");
}

#[test]
fn a_changed_retry_policy_holds_for_the_next_attempt() {
    let world = World::on_sqlite();
    let file = world.path("host.toml");
    let source = fs::read_to_string(&file).unwrap();
    let with =
        |attempts: u32| format!("{source}[retry]\nattempts = {attempts}\npause-min = \"1s\"\npause-max = \"1s\"\n");
    fs::write(&file, with(1000)).unwrap();
    world.plug_misbehaver_with("retry", "");
    let host = world.host();
    world.order(&["create", "--user", "u", "--product", "p"]);
    eventually(SOON, "it is tried", || !host.said("misbehaver-retry").is_empty());
    fs::write(&file, with(2)).unwrap();
    hang_up(&host);
    host.wait_for("the settings were read again: retry.attempts (1000 → 2)");
    let broker = world.broker();
    let letter = world.dead_letters(&broker, 1).remove(0);
    let given_up = letter.message.properties.headers.get("x-notify-given-up").and_then(broker::Value::to_text);
    assert_eq!(given_up.as_deref(), Some("attempts-used-up"));
    host.stop();
}

#[test]
fn a_reload_names_what_needs_a_restart_and_a_broken_file_changes_nothing() {
    let world = World::on_sqlite();
    world.plug_logger();
    let host = world.host();
    let same = reload(&world);
    assert_eq!(same.status.code(), Some(0), "{}", text(&same.stderr));
    assert!(text(&same.stderr).contains("nothing has changed"), "{}", text(&same.stderr));

    let file = world.path("host.toml");
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("prefetch = 5\nlog-level = \"debug\"\nduplicates-window = \"1m\"\n{good}")).unwrap();
    let said = text(&reload(&world).stderr);
    for part in [
        "holds now: log-level (\"info\" → \"debug\")",
        "holds now: duplicates-window",
        "needs a restart: prefetch (256 → 5)",
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    world.order(&["create", "--user", "u", "--product", "p"]);
    host.wait_for("\"level\":\"DEBUG\"");
    // A setting that needs a restart is reported again at the next reload.
    let said = text(&reload(&world).stderr);
    assert!(said.contains("needs a restart: prefetch (256 → 5)") && !said.contains("holds now"), "{said}");

    fs::write(&file, format!("prefetch = 0\nlog-level = \"loud\"\n{good}")).unwrap();
    let refused = reload(&world);
    assert_eq!(refused.status.code(), Some(78));
    let said = text(&refused.stderr);
    assert!(said.contains("host.toml:1: prefetch: expected 1 to 65535, got 0"), "{said}");
    assert!(said.contains("host.toml:2: log-level: expected one of"), "{said}");
    hang_up(&host);
    host.wait_for("the settings stay as they are");
    assert!(host.child_guard.wait_timeout(Duration::ZERO).is_none(), "{}", host.child_guard.stderr());
    fs::write(&file, good).unwrap();
    assert!(text(&reload(&world).stderr).contains("holds now: log-level (\"debug\" → \"info\")"));
    host.stop();
}
