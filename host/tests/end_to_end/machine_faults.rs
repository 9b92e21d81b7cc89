//! A fault of the machine makes no event skip a plugin. The host retries the plugin it could not
//! load, and events wait.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;
use testbed::rabbitmq::Node;
use testbed::{ChildGuard, eventually};

use crate::journal::explained;
use crate::on_both_engines;
use crate::world::{Host, SOON, World, built};

const COUNT: usize = 250;
/// Functions in a module that takes some seconds to compile, so that the test can catch the compiler at work.
const FUNCTIONS: usize = 4_000;
/// File size limit in blocks of 512 bytes, above every file that the host writes in the test.
const FILE_BLOCKS_MAX: usize = 32 << 10;
const DATA_BYTES: usize = 24 << 20;

/// Returns the witness with an unused module inside, which is compiled all the same.
fn witness_with(module: &str) -> Vec<u8> {
    let witness = fs::read(built("NOTIFY_TEST_GUESTS", "witness.wasm")).unwrap();
    let component = match witness[6] {
        0 => wit_component::ComponentEncoder::default().module(&witness).unwrap().encode().unwrap(),
        _ => witness,
    };
    let module = wat::parse_str(module).unwrap();
    // A section of the kind "core module"
    // (<https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md>).
    let mut bytes = [&component[..], &[1]].concat();
    let mut length = module.len();
    while length >= 0x80 {
        bytes.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    bytes.push(u8::try_from(length).unwrap());
    [bytes, module].concat()
}

fn slow_to_compile() -> Vec<u8> {
    let steps = "(local.set 0 (i64.rotl (i64.mul (local.get 0) (i64.const 31)) (i64.xor (local.get 0) (i64.const 7))))";
    let body = steps.repeat(40);
    let function = format!("(func (param i64) (result i64) {body} (local.get 0))");
    witness_with(&format!("(module {})", function.repeat(FUNCTIONS)))
}

/// Returns a module whose compiled code is as large as its data.
fn large_when_compiled() -> Vec<u8> {
    let pages = DATA_BYTES.div_ceil(64 << 10);
    witness_with(&format!("(module (memory {pages}) (data (i32.const 0) \"{}\"))", "x".repeat(DATA_BYTES)))
}

impl World {
    /// Removes the compile cache that the tests share.
    fn without_compiled(&self) {
        fs::remove_file(self.path("state/compiled")).unwrap();
        fs::DirBuilder::new().mode(0o700).create(self.path("state/compiled")).unwrap();
    }

    fn plug_content(&self, name: &str, content: &[u8], toml: &str) {
        fs::write(self.plugins().join(format!("{name}.wasm")), content).unwrap();
        fs::write(self.plugins().join(format!("{name}.toml")), toml).unwrap();
    }

    /// Plugs the witness, with a secret in this file and `more` in its toml.
    fn plug_witness_with_secret(&self, more: &str) {
        let secret = self.path("secret");
        let toml = format!(
            "{more}\n[grants]\nhttp = [\"https://a.example\"]\n[secrets.token]\nfile = {:?}\nto = [\"https://a.example\"]\n\
             [config]\nlabel = \"it\"\n",
            secret.display().to_string()
        );
        self.plug("witness", &built("NOTIFY_TEST_GUESTS", "witness.wasm"), &toml);
    }

    fn orders(&self, count: usize) {
        self.order(&["--quiet", "load", "--count", &count.to_string(), "--mix", "created=100"]);
    }

    fn listed(&self, plugin: &str) -> Value {
        let output = self.plugin_command(&["list", "--json"]);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let mut all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        all.find(|line| line["name"] == plugin).unwrap_or_else(|| panic!("{plugin} in {text}"))
    }
}

/// Returns the events that the witness saw.
fn seen(host: &Host) -> BTreeSet<String> {
    let log = host.child_guard.stderr();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let seen = lines.filter(|line| line["plugin"] == "witness" && line["message"] == "seen by it");
    seen.filter_map(|line| Some(line["event_id"].as_str()?.to_owned())).collect()
}

/// Kills every compiler process of a host until dropped.
struct Killer {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Killer {
    fn of(host: &Host) -> Self {
        let (ended, host) = (Arc::<AtomicBool>::default(), host.child_guard.id());
        let end = Arc::clone(&ended);
        let thread = thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                for compiler in compilers_of(host) {
                    let _ =
                        Command::new("sh").args(["-c", "kill -s KILL \"$1\" 2>/dev/null", "kill", &compiler]).status();
                }
                thread::park_timeout(Duration::from_millis(5));
            }
        });
        Self { ended, thread: Some(thread) }
    }
}

impl Drop for Killer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

fn compilers_of(host: u32) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let is_compiler = |path: &std::path::PathBuf| {
        let command = fs::read(path.join("cmdline")).unwrap_or_default();
        let status = fs::read_to_string(path.join("status")).unwrap_or_default();
        command.split(|byte| *byte == 0).nth(1) == Some(b"compile-plugin")
            && status.lines().any(|line| line == format!("PPid:\t{host}"))
    };
    processes.filter(is_compiler).filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect()
}

/// Runs a command of this world in a shell that has run `script` first.
fn below(script: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{script}; exec \"$@\""), "sh"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

on_both_engines! {
    fn a_compiler_that_is_killed_at_the_start_costs_no_event(world: &World) {
        world.without_compiled();
        world.plug_logger();
        // Compile the logger before the other plugin arrives.
        world.host().stop();
        world.plug_content("witness", &slow_to_compile(), "[config]\nlabel = \"it\"\n");
        let (host, admin) = world.host_with_admin(&[]);
        let killer = Killer::of(&host);
        host.wait_for("the compiler died of it (signal: 9 (SIGKILL)");
        host.wait_for("ready: ");
        world.orders(COUNT);
        let broker = world.broker();
        let waiting = || world.queue_state(&broker, &world.names().plugin("witness")).ready;
        eventually(SOON, "all wait for it", || waiting() == COUNT as u64);
        eventually(SOON, "its neighbour has them all", || host.distinct_orders().len() == COUNT);
        // Every way to ask reports it.
        let ready = admin.get("/readyz");
        assert!(ready.status == 503 && ready.body.contains("\\\"witness\\\" could not be loaded, is tried again"), "{ready:?}");
        let listed = world.listed("witness");
        assert!(listed["state"] == "not-loaded" && listed["tried_again_at"].is_string(), "{listed}");
        let metrics = admin.get("/metrics").body;
        for series in [
            "notify_plugin_state{plugin=\"witness\",state=\"not-loaded\"} 1".to_owned(),
            "notify_plugin_load_failed{plugin=\"witness\"} 1".to_owned(),
            format!("notify_spills_total{{plugin=\"witness\",reason=\"not-loaded\"}} {COUNT}"),
        ] {
            assert!(metrics.lines().any(|line| line == series), "{series}: {metrics}");
        }
        assert!(!host.logged("Tells which events it saw") && seen(&host).is_empty(), "it was killed each time");

        drop(killer);
        eventually(SOON, "all arrive", || seen(&host).len() == COUNT);
        eventually(SOON, "all is well", || admin.get("/readyz").status == 200);
        host.stop();
        assert_eq!((waiting(), world.queue_state(&broker, &world.names().dead()).ready), (0, 0));
    }

    fn what_waits_unrouted_is_routed_when_the_plugin_has_loaded(world: &World) {
        world.plug_logger();
        world.plug_witness_with_secret(
            "filter = 'subject != \"nobody\"'\n[[subscriptions]]\nevent-type = \"OrderCanceled\"",
        );
        let host = world.host();
        host.wait_for("its events wait in its queue until it has loaded");
        let (created, canceled) = (20, 7);
        let ids: Vec<_> = (0..created)
            .flat_map(|_| world.order(&["create", "--user", "u", "--product", "p"]))
            .collect();
        for id in &ids[..canceled] {
            world.order(&["cancel", id]);
        }
        let (broker, queue) = (world.broker(), world.names().plugin("witness"));
        eventually(SOON, "all wait for it", || world.queue_state(&broker, &queue).ready == (created + canceled) as u64);
        let marks = world.block_on(async {
            let mut consumer = broker.consume(&queue, 100).await.unwrap();
            let first = consumer.next().await.unwrap().unwrap();
            let marks = first.message.properties.headers.contains_key("x-notify-not-yet-routed");
            drop(first);
            consumer.close().await.unwrap();
            marks
        });
        assert!(marks, "what waits says that it is not yet routed");

        // The plugin folder does not change; only the secret appears.
        fs::write(world.path("secret"), "a-value-that-is-long-enough").unwrap();
        eventually(SOON, "it sees what it wants", || seen(&host).len() == canceled);
        eventually(SOON, "nothing waits", || world.queue_state(&broker, &queue).ready == 0);
        // From here on, events are routed on arrival.
        world.order(&["cancel", &ids[created - 1]]);
        eventually(SOON, "and goes on", || seen(&host).len() == canceled + 1);
        explained(world, &[&ids[created - 1]], &["witness: does not get it, now that it has loaded: its toml subscribes"]);
        host.stop();
        assert_eq!(seen(&host).len(), canceled + 1);
        let names = world.names();
        assert_eq!([&queue, &names.dead()].map(|queue| world.queue_state(&broker, queue).ready), [0, 0]);
    }

    fn plugins_whose_folder_comes_late_get_events_together(world: &World) {
        world.without_compiled();
        world.plug_logger();
        world.plug_content("witness", &slow_to_compile(), "[config]\nlabel = \"it\"\n");
        let away = world.path("away");
        fs::rename(world.plugins(), &away).unwrap();
        let host = world.host_with(&[]);
        host.wait_for("no plugin of ");
        world.orders(COUNT);
        fs::rename(&away, world.plugins()).unwrap();
        eventually(SOON, "the one has all", || host.distinct_orders().len() == COUNT);
        eventually(SOON, "so has the other", || seen(&host).len() == COUNT);
        host.stop();
    }
}

#[test]
fn a_queue_that_is_there_is_used_though_the_broker_refuses_to_make_it() {
    let node = Node::start();
    let world = World::new(tempfile::tempdir().unwrap(), node.url(), "orders".to_owned(), "notifications".to_owned());
    world.plug_logger();
    world.plug("witness", &built("NOTIFY_TEST_GUESTS", "witness.wasm"), "[config]\nlabel = \"it\"\n");
    world.host().stop();
    // RabbitMQ requires write permission on a queue to bind it.
    let all_but_its_queue = "^(?!notifications[.]plugin[.]witness)";
    node.ctl(&["set_permissions", "-p", "/", "guest", "^$", all_but_its_queue, ".*"]);
    let host = world.host();
    for id in world.order(&["demo"]) {
        host.wait_for_order(&id);
    }
    eventually(SOON, "it gets its events", || seen(&host).len() == 2);
    host.stop();
}

#[test]
fn a_plugin_that_is_switched_off_or_broken_is_not_waited_for() {
    let world = World::on_sqlite();
    world.plug_logger();
    world.plug_witness_with_secret("");
    let (host, admin) = world.host_with_admin(&[]);
    host.wait_for("its events wait in its queue until it has loaded");
    assert_eq!(admin.get("/readyz").status, 503);
    let (toml, wasm) = (world.plugins().join("witness.toml"), world.plugins().join("witness.wasm"));
    let text = fs::read_to_string(&toml).unwrap();
    for (text, said) in [
        (format!("enabled = false\n{text}"), "switched off by its toml"),
        (text.clone(), "its events wait in its queue until it has loaded"),
        (format!("enabledd = true\n{text}"), "it is left out"),
    ] {
        let times = || host.child_guard.stderr().matches(said).count();
        let before = times();
        fs::write(&toml, text).unwrap();
        eventually(SOON, said, || times() > before);
    }
    eventually(SOON, "that is as it should be", || admin.get("/readyz").status == 200);
    assert_eq!(world.listed("witness")["state"], "broken");
    // Nothing waits for it, and its old queue stays as it was.
    world.orders(3);
    eventually(SOON, "its neighbour has them", || host.distinct_orders().len() == 3);
    assert_eq!(world.queue_state(&world.broker(), &world.names().plugin("witness")).ready, 0);

    // The host waits for it again; then the plugin is removed.
    fs::write(&toml, &text).unwrap();
    eventually(SOON, "it is waited for", || admin.get("/readyz").status == 503);
    fs::remove_file(wasm).unwrap();
    eventually(SOON, "it is gone", || admin.get("/readyz").status == 200);
    host.stop();
}

#[test]
fn a_pause_holds_for_a_plugin_that_has_not_been_loaded() {
    let world = World::on_sqlite();
    world.plug_logger();
    world.plug_witness_with_secret("");
    let host = world.host();
    host.wait_for("its events wait in its queue until it has loaded");
    assert!(world.plugin_command(&["pause", "witness"]).status.success());
    world.orders(3);
    fs::write(world.path("secret"), "a-value-that-is-long-enough").unwrap();
    eventually(SOON, "it has loaded", || world.listed("witness")["state"] == "paused");
    let queue = world.names().plugin("witness");
    assert_eq!((world.queue_state(&world.broker(), &queue).ready, seen(&host).len()), (3, 0));
    assert!(world.plugin_command(&["resume", "witness"]).status.success());
    eventually(SOON, "it sees them", || seen(&host).len() == 3);
    host.stop();
}

#[test]
fn a_plugin_whose_code_no_disk_takes_runs_from_memory() {
    let world = World::on_sqlite();
    world.without_compiled();
    world.plug_content("witness", &large_when_compiled(), "[config]\nlabel = \"it\"\n");
    let mut command = world.host_command(&["run", "--log-format", "json"]);
    command.arg("--plugins").arg(world.plugins());
    // Simulate a full disk: no file can grow any more.
    let script = format!("trap '' XFSZ; ulimit -f {FILE_BLOCKS_MAX}");
    let host = Host { child_guard: ChildGuard::spawn(below(&script, &command)) };
    host.wait_for("its compiled code is not kept for the next start: File too large");
    host.wait_for("ready: ");
    world.orders(3);
    eventually(SOON, "it sees them", || seen(&host).len() == 3);
    host.stop();
    let folders = fs::read_dir(world.path("state/compiled")).unwrap().flatten();
    let left = folders.flat_map(|folder| fs::read_dir(folder.path()).unwrap()).count();
    assert_eq!(left, 0, "what was half written is gone");
}

#[test]
fn a_host_without_any_place_for_compiled_code_runs() {
    let world = World::on_sqlite();
    fs::remove_file(world.path("state/compiled")).unwrap();
    fs::write(world.path("state/compiled"), "in the way").unwrap();
    world.plug_content("witness", &witness_with("(module)"), "[config]\nlabel = \"it\"\n");
    let mut command = world.host_command(&["run", "--log-format", "json"]);
    command.arg("--plugins").arg(world.plugins()).env("TMPDIR", world.path("nowhere").as_os_str() as &OsStr);
    let host = Host { child_guard: ChildGuard::spawn(command) };
    host.wait_for("there is no place for compiled plugins, which are used from memory");
    host.wait_for("ready: ");
    world.orders(3);
    eventually(SOON, "it sees them", || seen(&host).len() == 3);
    host.stop();
}
