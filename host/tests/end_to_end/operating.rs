//! The operator's commands for the plugins of a running host.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;

use serde_json::Value;
use testbed::eventually;

use crate::world::{Host, SOON, World, built};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs the command, which must succeed.
fn plugin(world: &World, arguments: &[&str]) -> String {
    let output = world.plugin_command(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    said(&output)
}

fn refused(world: &World, arguments: &[&str]) -> String {
    let output = world.plugin_command(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", said(&output));
    said(&output)
}

fn listed(world: &World) -> Vec<Value> {
    let output = world.plugin_command(&["list", "--json"]);
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn state(world: &World, name: &str) -> String {
    let all = listed(world);
    let plugin = all.iter().find(|plugin| plugin["name"] == name).unwrap_or_else(|| panic!("{name} in {all:?}"));
    plugin["state"].as_str().unwrap().to_owned()
}

fn order(world: &World, host: &Host) {
    let id = world.order(&["create", "--user", "u", "--product", "p"]).remove(0);
    host.wait_for_order(&id);
}

fn successes(host: &Host, plugin: &str) -> usize {
    host.said(plugin).iter().filter(|(_, line)| line.starts_with("success")).count()
}

#[test]
fn the_list_says_how_each_plugin_stands() {
    let world = World::on_sqlite();
    assert!(refused(&world, &["list"]).contains("no host of yours runs with the plugin folder"));
    world.plug_logger();
    world.plug_misbehaver("misconfigured");
    world.plug("off", &built("NOTIFY_TEST_PLUGINS", "logger.wasm"), "enabled = false\n");
    fs::write(world.plugins().join("broken.wasm"), "no").unwrap();
    let host = world.host();
    order(&world, &host);
    host.wait_for("paused: it says that it is misconfigured");
    assert_eq!(plugin(&world, &["pause", "logger"]), "logger is paused: its events wait in its queue\n");
    for (name, expected) in
        [("broken", "broken"), ("logger", "paused"), ("misbehaver-misconfigured", "misconfigured"), ("off", "disabled")]
    {
        assert_eq!(state(&world, name), expected, "{name}");
    }
    let table = String::from_utf8(world.plugin_command(&["list"]).stdout).unwrap();
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("NAME"), "{table}");
    assert!(lines[1].starts_with("broken") && lines[2].contains("broken.wasm: it is not WebAssembly"), "{table}");
    assert!(lines[3].starts_with("logger") && lines[3].contains("0.1.0") && lines[3].contains("paused"), "{table}");

    // A second host of the same folder is also listed and also receives commands.
    let other = world.host();
    plugin(&world, &["resume", "logger"]);
    assert_eq!(listed(&world).iter().filter(|plugin| plugin["state"] == "running").count(), 2);
    other.stop();
    host.child_guard.kill();
    eventually(SOON, "the socket of a host that was killed is no host", || {
        world.plugin_command(&["list"]).status.code() == Some(1)
    });
}

#[test]
fn a_host_that_goes_away_while_it_is_asked_spoils_no_command_to_the_others() {
    let world = World::on_sqlite();
    world.plug_logger();
    let host = world.host();
    let folder = fs::read_dir(world.path("state/folders")).unwrap().next().unwrap().unwrap().path().join("hosts");
    // This socket sorts first, so the command asks it first.
    let listener = UnixListener::bind(folder.join("0.sock")).unwrap();
    thread::spawn(move || listener.incoming().for_each(drop));
    let output = world.plugin_command(&["list"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("\nlogger "), "{output:?}");
    let gone = "notify-host: a host went away while it was asked";
    assert!(output.status.code() == Some(1) && said(&output).starts_with(gone), "{output:?}");
    let said = refused(&world, &["pause", "logger"]);
    assert!(said.starts_with(&format!("logger is paused: its events wait in its queue\n{gone}")), "{said}");
    host.stop();
}

#[test]
fn no_file_name_drives_the_terminal() {
    let world = World::on_sqlite();
    world.plug_logger();
    fs::write(world.plugins().join("a\x1b]0;b\x07\u{9b}c\nd.wasm"), "no").unwrap();
    let host = world.host();
    let event = world.path("event.json");
    fs::write(&event, "{\"event\":\"OrderCreated\"}").unwrap();
    let route = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_notify-host"));
        command.args(["route", "--event"]).arg(&event).arg("--config").arg(world.path("host.toml"));
        command.arg("--plugins").arg(world.plugins()).args(arguments).output().unwrap()
    };
    let file = world.plugins().join("a\x1b]0;b\x07.wasm");
    let inspect = ["inspect", file.to_str().unwrap()];
    for (output, shown) in [
        (world.plugin_command(&["list"]), "\na\\u{1b}]0;b\\u{7}\\u{9b}c d  -        broken"),
        (world.plugin_command(&["list", "--json"]), "\"name\":\"a\\u001b]0;b\\u0007\\u009bc\\nd\","),
        (route(&[]), "\na\\u{1b}]0;b\\u{7}\\u{9b}c d  no "),
        (route(&["--json"]), "\"plugin\":\"a\\u001b]0;b\\u0007\\u009bc\\nd\""),
        (world.plugin_command(&inspect), "a\\u{1b}]0;b\\u{7}.wasm"),
    ] {
        let all = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(all.contains(shown), "{shown} in {all:?}");
        assert!(!all.contains(|character: char| character.is_control() && character != '\n'), "{all:?}");
    }
    host.stop();
}

#[test]
fn a_pause_outlives_the_host_and_ends_by_resume() {
    let world = World::on_sqlite();
    world.plug_logger();
    world.plug_misbehaver_with("twice", "");
    let name = "misbehaver-twice";
    let host = world.host();
    plugin(&world, &["pause", name]);
    order(&world, &host);
    let problem = refused(&world, &["pause", "nobody"]);
    assert!(problem.contains("there is no plugin \"nobody\"; there is: logger, misbehaver-twice"), "{problem}");
    host.stop();
    let host = world.host();
    assert_eq!(state(&world, name), "paused");
    order(&world, &host);
    let broker = world.broker();
    eventually(SOON, "both wait", || world.queue_state(&broker, &world.names().plugin(name)).ready == 2);
    assert_eq!(host.said(name), []);
    assert!(plugin(&world, &["resume", name]).contains("it gets its events again"));
    assert_eq!(plugin(&world, &["resume", name]), format!("{name} was running already\n"));
    eventually(SOON, "both get through", || successes(&host, name) == 2);
    host.stop();
    let host = world.host();
    assert_eq!(state(&world, name), "running");
    host.stop();
}

#[test]
fn a_misconfigured_plugin_goes_on_when_it_is_told_to() {
    let world = World::on_sqlite();
    world.plug_logger();
    world.plug_misbehaver("misconfigured");
    let host = world.host();
    order(&world, &host);
    host.wait_for("paused: it says that it is misconfigured");
    plugin(&world, &["resume", "misbehaver-misconfigured"]);
    eventually(SOON, "it says so again", || host.child_guard.stderr().matches("paused: it says").count() == 2);
    host.stop();
}

#[test]
fn a_plugin_is_switched_off_and_on_in_its_toml() {
    let world = World::on_sqlite();
    world.plug_logger();
    world.plug("witness", &built("NOTIFY_TEST_GUESTS", "witness.wasm"), "# mine\n[config]\nlabel = \"a\" # one\n");
    let host = world.host();
    assert_eq!(plugin(&world, &["disable", "witness"]), "witness is switched off by its toml\n");
    order(&world, &host);
    assert_eq!(plugin(&world, &["enable", "witness"]), "witness 0.1.0 is loaded\n");
    order(&world, &host);
    eventually(SOON, "it sees the second", || host.said("witness").len() == 1);
    let toml = fs::read_to_string(world.plugins().join("witness.toml")).unwrap();
    assert_eq!(toml, "enabled = true\n# mine\n[config]\nlabel = \"a\" # one\n");
    assert!(refused(&world, &["disable", "nobody"]).contains("there is no plugin \"nobody\""));
    host.stop();
    assert_eq!(host.said("witness").len(), 1);
    assert!(plugin(&world, &["disable", "witness"]).contains("it takes effect when one starts"));
}

#[test]
fn reload_says_what_came_of_it() {
    let world = World::on_sqlite();
    world.plug_logger();
    let host = world.host();
    assert_eq!(plugin(&world, &["reload", "logger"]), "logger 0.1.0 is loaded\n");
    let toml = world.plugins().join("logger.toml");
    fs::write(&toml, "wrong").unwrap();
    let problem = refused(&world, &["reload", "logger"]);
    assert!(problem.contains("logger.toml:1: ") && problem.contains("version 0.1.0 goes on running"), "{problem}");
    assert!(refused(&world, &["reload", "nobody"]).contains("there is no plugin \"nobody\""));
    host.stop();
}

#[test]
fn a_plugin_that_is_loaded_while_the_broker_is_away_is_said_to_get_no_events_yet() {
    let mut world = World::on_sqlite();
    world.plug_logger();
    world.host_url = "amqp://127.0.0.1:1/%2F".to_owned();
    let host = world.host_with(&[]);
    host.wait_for("trying again until it works");
    let said = plugin(&world, &["reload", "logger"]);
    assert_eq!(said, "logger 0.1.0 is loaded, but gets no events yet: the host has no queue for it in the broker\n");
    host.stop();
}

#[test]
fn a_rollback_puts_back_what_worked_before() {
    let world = World::on_sqlite();
    let (wasm, toml) = (world.plugins().join("logger.wasm"), world.plugins().join("logger.toml"));
    let original = fs::read(built("NOTIFY_TEST_PLUGINS", "logger.wasm")).unwrap();
    assert!(refused(&world, &["rollback", "logger"]).contains("no earlier version of logger"));
    world.plug_logger();
    let host = world.host();
    let wait_for_loads = |count| {
        eventually(SOON, "it is loaded", || host.child_guard.stderr().matches("\"loaded").count() == count);
    };
    // First a different file that works, then one that does not.
    fs::copy(built("NOTIFY_TEST_PLUGINS_CORE", "logger.wasm"), &wasm).unwrap();
    wait_for_loads(2);
    let second = fs::read(&wasm).unwrap();
    assert_ne!(second, original);
    fs::write(&wasm, "no").unwrap();
    fs::write(&toml, "[config]\nformat = \"json\" # mine\n").unwrap();
    host.wait_for("logger.wasm: it is not WebAssembly");

    assert!(plugin(&world, &["rollback", "logger", "--dry-run"]).starts_with("would put back: logger 0.1.0"));
    assert_eq!(fs::read(&wasm).unwrap(), b"no");
    let back = |expected: &[u8]| {
        let said = plugin(&world, &["rollback", "logger"]);
        assert!(said.contains("putting back: logger 0.1.0") && said.ends_with("logger 0.1.0 is loaded\n"), "{said}");
        assert!(fs::read(&wasm).unwrap() == expected, "the file that worked is back");
        assert_eq!(fs::read_to_string(&toml).unwrap(), "[config]\nformat = \"json\"\n");
    };
    back(&second);
    let replaced = fs::read_to_string(toml.with_extension("toml.replaced")).unwrap();
    assert!(replaced.contains("# mine"), "what somebody wrote is not lost");
    back(&original);
    assert!(refused(&world, &["rollback", "logger"]).contains("no earlier version of logger"));
    order(&world, &host);

    // A removed plugin comes back with its toml.
    fs::remove_file(&wasm).unwrap();
    fs::remove_file(&toml).unwrap();
    host.wait_for("unloaded: ");
    back(&original);
    order(&world, &host);
    host.stop();
}

#[test]
fn what_the_host_keeps_is_for_its_user_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::on_sqlite();
    // Do not use the compile cache that all tests share.
    fs::remove_file(world.path("state/compiled")).unwrap();
    world.plug_logger();
    let host = world.host();
    let mut folders = vec![world.path("state/compiled")];
    let of_plugins = fs::read_dir(world.path("state/folders")).unwrap().next().unwrap().unwrap().path();
    folders.extend(["hosts", "versions"].map(|name| of_plugins.join(name)));
    let mode = |folder: &Path| fs::metadata(folder).unwrap().permissions().mode() & 0o777;
    for folder in &folders {
        assert_eq!(mode(folder), 0o700, "{}", folder.display());
    }
    host.stop();

    // The host does not run compiled code that other users could have written.
    fs::set_permissions(&folders[0], fs::Permissions::from_mode(0o777)).unwrap();
    let host = world.host();
    assert!(host.logged("compiled plugins are not kept for the next start"), "{}", host.child_guard.stderr());
    order(&world, &host);
    host.stop();
}

#[test]
fn a_name_that_is_a_path_touches_no_file() {
    let world = World::on_sqlite();
    world.plug_logger();
    let host = world.host();
    let precious = world.path("precious");
    fs::write(&precious, "").unwrap();
    for name in [precious.to_str().unwrap(), "../../../precious", "logger\n"] {
        for command in ["pause", "resume", "reload", "enable", "disable", "rollback"] {
            let problem = refused(&world, &[command, name]);
            assert!(problem.contains("is no name of a plugin") || problem.contains("there is no plugin"), "{problem}");
        }
    }
    assert!(precious.exists());
    host.stop();
}

#[test]
fn a_plugin_that_was_paused_is_paused_when_it_is_switched_on_again() {
    let world = World::on_sqlite();
    world.plug_logger();
    world.plug("witness", &built("NOTIFY_TEST_GUESTS", "witness.wasm"), "[config]\nlabel = \"a\"\n");
    let host = world.host();
    for command in ["pause", "disable", "enable"] {
        plugin(&world, &[command, "witness"]);
    }
    assert_eq!(state(&world, "witness"), "paused");
    let problem = refused(&world, &["resume", "nobody"]);
    assert!(problem.contains("there is: logger, witness"), "{problem}");
    plugin(&world, &["disable", "witness"]);
    assert!(refused(&world, &["resume", "witness"]).contains("notify-host plugin enable witness"));
    host.stop();
}

#[test]
fn a_plugin_that_is_switched_on_with_files_that_do_not_load_runs_as_it_did() {
    let world = World::on_sqlite();
    world.plug_logger();
    let host = world.host();
    plugin(&world, &["disable", "logger"]);
    fs::write(world.plugins().join("logger.wasm"), "no").unwrap();
    let problem = refused(&world, &["enable", "logger"]);
    assert!(
        problem.contains("it is not WebAssembly") && problem.contains("version 0.1.0 goes on running"),
        "{problem}"
    );
    assert_eq!(state(&world, "logger"), "running");
    order(&world, &host);
    host.stop();
}

#[test]
fn a_state_folder_that_is_removed_under_a_host_is_made_anew() {
    let world = World::on_sqlite();
    fs::remove_file(world.path("state/compiled")).unwrap();
    world.plug_logger();
    let host = world.host();
    fs::remove_dir_all(world.path("state")).unwrap();
    world.plug("witness", &built("NOTIFY_TEST_GUESTS", "witness.wasm"), "[config]\nlabel = \"a\"\n");
    host.wait_for("gets events from now on");
    order(&world, &host);
    eventually(SOON, "the host is found again", || world.plugin_command(&["list"]).status.success());
    assert_eq!(state(&world, "witness"), "running");
    host.stop();
}

#[test]
fn a_host_is_found_however_long_the_way_to_its_state_folder_is() {
    let world = World::on_sqlite();
    let long = world.path(&"x".repeat(200));
    let config = fs::read_to_string(world.path("host.toml")).unwrap();
    let config = config.replace("state = \"state\"", &format!("state = {:?}", long.to_str().unwrap()));
    fs::write(world.path("host.toml"), config).unwrap();
    world.plug_logger();
    let host = world.host();
    assert_eq!(state(&world, "logger"), "running");
    host.stop();
}
