//! The fixture of each test: a queue, a plugin folder, and the programs.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use broker::{Broker, BrokerUrl, ConnectOptions, Delivery, QueueNames, QueueState};
use tempfile::TempDir;
use testbed::{ChildGuard, eventually, eventually_some, rabbitmq};

/// Maximum wait. On a quiet machine everything takes well under a second.
pub(crate) const SOON: Duration = Duration::from_mins(1);

pub(crate) struct World {
    folder: TempDir,
    pub(crate) url: String,
    /// URL that the host connects to. Equal to `url` unless a test changes it.
    pub(crate) host_url: String,
    pub(crate) exchange: String,
    pub(crate) queue: String,
    runtime: tokio::runtime::Runtime,
}

impl World {
    pub(crate) fn on_sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("queue.db").display());
        Self::new(folder, url, "orders".to_owned(), "notifications".to_owned())
    }

    /// Uses the RabbitMQ node that the tests share, with an exchange and a queue of its own.
    pub(crate) fn on_rabbitmq() -> Self {
        static WORLDS: AtomicUsize = AtomicUsize::new(0);
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let names = (format!("orders-{number}"), format!("notifications-{number}"));
        Self::new(tempfile::tempdir().unwrap(), rabbitmq::shared().url(), names.0, names.1)
    }

    pub(crate) fn new(folder: TempDir, url: String, exchange: String, queue: String) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let world = Self { folder, host_url: url.clone(), url, exchange, queue, runtime };
        fs::create_dir(world.plugins()).unwrap();
        // All worlds share the compile cache, because compiling takes seconds.
        let compiled = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled");
        DirBuilder::new().recursive(true).mode(0o700).create(&compiled).unwrap();
        fs::create_dir(world.path("state")).unwrap();
        symlink(compiled, world.path("state/compiled")).unwrap();
        fs::write(
            world.path("host.toml"),
            format!(
                "state = \"state\"\nadmin = \"off\"\n[source]\nexchange = {:?}\nqueue = {:?}\n",
                world.exchange, world.queue
            ),
        )
        .unwrap();
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn plugins(&self) -> PathBuf {
        self.path("plugins")
    }

    /// Copies a plugin into the folder.
    pub(crate) fn plug(&self, name: &str, wasm: &Path, toml: &str) {
        fs::copy(wasm, self.plugins().join(format!("{name}.wasm")))
            .unwrap_or_else(|error| panic!("cannot copy {}: {error}", wasm.display()));
        fs::write(self.plugins().join(format!("{name}.toml")), toml).unwrap();
    }

    /// Puts a FIFO in place of a file. A process that opens it blocks until another one writes to it.
    pub(crate) fn plug_fifo(&self, file: &str) {
        let made = Command::new("mkfifo").arg(self.plugins().join(file)).status().unwrap();
        assert!(made.success());
    }

    /// Plugs the logger, which writes each event as a line of JSON.
    pub(crate) fn plug_logger(&self) {
        self.plug("logger", &built("NOTIFY_TEST_PLUGINS", "logger.wasm"), "[config]\nformat = \"json\"\n");
    }

    /// Plugs a guest that does `act` for every event, with one attempt each.
    pub(crate) fn plug_misbehaver(&self, act: &str) {
        self.plug_misbehaver_with(act, "[retry]\nattempts = 1\n");
    }

    pub(crate) fn plug_misbehaver_with(&self, act: &str, toml: &str) {
        let toml = format!("{toml}[limits]\ntime = \"1s\"\nmemory = \"16 MiB\"\n[config]\nact = {act:?}\n");
        self.plug(&format!("misbehaver-{act}"), &built("NOTIFY_TEST_GUESTS", "misbehaver.wasm"), &toml);
    }

    /// Starts a host, and waits until it is ready.
    pub(crate) fn host(&self) -> Host {
        let host = self.host_with(&[]);
        eventually(SOON, &format!("the host is ready; it wrote:\n{}", host.child_guard.stderr()), || {
            host.logged("ready: ") || host.child_guard.wait_timeout(Duration::ZERO).is_some()
        });
        assert!(host.logged("ready: "), "{}", host.child_guard.stderr());
        host
    }

    pub(crate) fn host_with(&self, arguments: &[&str]) -> Host {
        let mut command = self.host_command(&["run", "--log-format", "json"]);
        command.arg("--plugins").arg(self.plugins()).args(arguments);
        Host { child_guard: ChildGuard::spawn(command) }
    }

    /// Returns notify-host with this world's broker and configuration.
    pub(crate) fn host_command(&self, arguments: &[&str]) -> Command {
        let mut command = Self::notify_host(arguments);
        command.args(["--broker", &self.host_url]).arg("--config").arg(self.path("host.toml"));
        command
    }

    /// Runs `notify-host plugin …` on this world's folder to its end.
    pub(crate) fn plugin_command(&self, arguments: &[&str]) -> Output {
        let mut command = Self::notify_host(&[&["plugin"], arguments].concat());
        command.arg("--config").arg(self.path("host.toml")).arg("--plugins").arg(self.plugins());
        command.output().unwrap()
    }

    /// Runs a command that queries the journal of this world's hosts, to its end.
    pub(crate) fn journal_command(&self, arguments: &[&str]) -> Output {
        let mut command = Self::notify_host(arguments);
        command.arg("--config").arg(self.path("host.toml")).arg("--plugins").arg(self.plugins());
        command.output().unwrap()
    }

    pub(crate) fn notify_host(arguments: &[&str]) -> Command {
        let mut command = Self::clean(env!("CARGO_BIN_EXE_notify-host"));
        command.args(arguments);
        command
    }

    /// Returns a command without the user's own settings in its environment.
    pub(crate) fn clean(program: &str) -> Command {
        let mut command = Command::new(program);
        for (name, _) in env::vars_os()
            .filter(|(name, _)| ["NOTIFY_", "OTEL_"].iter().any(|own| name.to_string_lossy().starts_with(own)))
        {
            command.env_remove(name);
        }
        command
    }

    /// Runs order-cli to its end.
    pub(crate) fn order_cli(&self, arguments: &[&str]) -> Output {
        self.order_cli_command(arguments).output().unwrap()
    }

    pub(crate) fn order_cli_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(built("NOTIFY_TEST_BIN", "order-cli"));
        command.args(["--broker", &self.url, "--exchange", &self.exchange]).args(arguments);
        command
    }

    /// Publishes with order-cli, and returns the orders' ids.
    pub(crate) fn order(&self, arguments: &[&str]) -> Vec<String> {
        let output = self.order_cli(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    pub(crate) fn names(&self) -> QueueNames {
        QueueNames::new(&self.queue)
    }

    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { tokio::time::timeout(SOON, future).await.expect("not in time") })
    }

    /// Connects to the broker with a session of the test's own.
    pub(crate) fn broker(&self) -> Broker {
        let url: BrokerUrl = self.url.parse().unwrap();
        let options = ConnectOptions { name: "test".to_owned(), timeout: SOON };
        self.block_on(Broker::connect(&url, &options)).unwrap()
    }

    pub(crate) fn queue_state(&self, broker: &Broker, queue: &str) -> QueueState {
        self.block_on(broker.inspect(queue)).unwrap().unwrap_or_else(|| panic!("there is no queue {queue}"))
    }

    /// Takes this many dead letters.
    pub(crate) fn dead_letters(&self, broker: &Broker, count: usize) -> Vec<Delivery> {
        self.block_on(async {
            let mut consumer = broker.consume(&self.names().dead(), 100).await.unwrap();
            let mut letters = Vec::new();
            while letters.len() < count {
                letters.push(consumer.next().await.unwrap().unwrap());
            }
            consumer.close().await.unwrap();
            letters
        })
    }
}

/// A running host.
pub(crate) struct Host {
    pub(crate) child_guard: ChildGuard,
}

impl Host {
    /// Returns whether the log contains this text.
    pub(crate) fn logged(&self, text: &str) -> bool {
        self.child_guard.stderr().contains(text)
    }

    /// Returns the ids of the orders that the logger wrote, in order, with repetitions.
    pub(crate) fn orders(&self) -> Vec<String> {
        let log = self.child_guard.stderr();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines
            .filter(|line| line["plugin"] == "logger")
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line["message"].as_str()?).ok())
            .filter_map(|event| Some(event["data"]["order_id"].as_str()?.to_owned()))
            .collect()
    }

    /// Returns a plugin's log messages with their times.
    pub(crate) fn said(&self, plugin: &str) -> Vec<(jiff::Timestamp, String)> {
        let log = self.child_guard.stderr();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines
            .filter(|line| line["plugin"] == plugin && line["event_id"].is_string())
            .filter_map(|line| Some((line["timestamp"].as_str()?.parse().ok()?, line["message"].as_str()?.to_owned())))
            .collect()
    }

    pub(crate) fn distinct_orders(&self) -> BTreeSet<String> {
        self.orders().into_iter().collect()
    }

    pub(crate) fn wait_for_order(&self, id: &str) {
        self.wait_for(id);
    }

    /// Waits until the log contains this text.
    pub(crate) fn wait_for(&self, text: &str) {
        eventually_some(SOON, &format!("{text} in the log"), || self.logged(text).then_some(()));
    }

    /// Stops the host, which must exit successfully.
    pub(crate) fn stop(&self) {
        self.child_guard.terminate();
        let status = self.child_guard.wait_timeout(SOON).expect("the host stops");
        assert!(status.success(), "{status}: {}", self.child_guard.stderr());
    }
}

/// Returns a file that `cargo xtask test` has built.
pub(crate) fn built(variable: &str, file: &str) -> PathBuf {
    let folder =
        env::var_os(variable).unwrap_or_else(|| panic!("{variable} is not set: run the tests by `cargo xtask test`"));
    let path = Path::new(&folder).join(file);
    assert!(path.exists(), "there is no {}: run the tests by `cargo xtask test`", path.display());
    path
}
