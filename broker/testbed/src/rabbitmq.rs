//! A private RabbitMQ node, which touches nothing of the system's own.
//!
//! It has its own name, its own port mapper (`epmd`) and its own files in a temporary folder, and
//! listens on 127.0.0.1 only. It may be killed and started again, and keeps its messages.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use std::{env, fs};

use crate::{Leash, eventually, free_port};

/// Names the folder with `rabbitmq-server` and `rabbitmqctl`.
const SBIN_VARIABLE: &str = "NOTIFY_RABBITMQ_SBIN";

/// Where packages put that folder: Debian, the official image, Homebrew.
const SBIN_PLACES: [&str; 3] =
    ["/opt/rabbitmq/sbin", "/opt/homebrew/opt/rabbitmq/sbin", "/usr/local/opt/rabbitmq/sbin"];
const DEBIAN: &str = "/usr/lib/rabbitmq/lib";

/// It takes 5 s on a quiet machine.
const START_LIMIT: Duration = Duration::from_secs(90);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A node, running or killed. Dropping it ends it and removes its files.
#[derive(Debug)]
pub struct Node {
    server: Mutex<Option<Leash>>,
    // Holds the folder too, and so goes last.
    _port_mapper: Leash,
    folder: PathBuf,
    port: u16,
    port_mapper_port: u16,
    distribution_port: u16,
}

/// The node that the tests of one process share; started when first asked for.
pub fn shared() -> &'static Node {
    static SHARED: OnceLock<Node> = OnceLock::new();
    SHARED.get_or_init(Node::start)
}

impl Node {
    /// Starts a node of its own for the caller. Returns when it answers.
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("rabbitmq-").tempdir();
        let folder = folder.unwrap_or_else(|error| panic!("cannot make a temporary folder: {error}"));
        let path = folder.path().to_owned();
        let (port, port_mapper_port, distribution_port) = (free_port(), free_port(), free_port());

        write(&path.join("enabled_plugins"), "[].\n");
        write(
            &path.join("rabbitmq.conf"),
            &format!(
                "listeners.tcp.default = 127.0.0.1:{port}\n\
                 disk_free_limit.absolute = 1MB\n\
                 raft.wal_max_size_bytes = 67108864\n"
            ),
        );
        // Erlang accepts the cookie only if nobody else can read it.
        let cookie = path.join(".erlang.cookie");
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o400).open(&cookie);
        file.and_then(|mut file| write!(file, "testbed-{port}"))
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", cookie.display()));

        let mut epmd = Command::new("epmd");
        epmd.args(["-address", "127.0.0.1", "-port", &port_mapper_port.to_string()]).env_remove("ERL_EPMD_PORT");
        let port_mapper = Leash::spawn_in(epmd, folder);
        let answers = || TcpStream::connect((Ipv4Addr::LOCALHOST, port_mapper_port)).is_ok();
        eventually(ANSWER_LIMIT, "epmd, Erlang's port mapper, listens", answers);

        let node = Self {
            server: Mutex::new(None),
            _port_mapper: port_mapper,
            folder: path,
            port,
            port_mapper_port,
            distribution_port,
        };
        node.start_again();
        node
    }

    /// The port it speaks AMQP on, at 127.0.0.1. It stays the same over restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where to connect.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2F", self.port)
    }

    /// Kills it with SIGKILL.
    ///
    /// RabbitMQ 3.10 writes down the members of a new quorum queue only after half a second. A queue
    /// that is younger than that comes back without a leader, for good: let it be a second old.
    pub fn kill(&self) {
        if let Some(server) = self.lock().take() {
            server.kill();
        }
    }

    /// Starts it after [`Self::kill`], on the same files. Returns when it answers.
    pub fn start_again(&self) {
        let mut server = self.lock();
        assert!(server.is_none(), "the RabbitMQ node on port {} runs already", self.port);
        let started = Leash::spawn(self.command("rabbitmq-server"));
        eventually(START_LIMIT, "the private RabbitMQ node answers", || {
            if let Some(status) = started.wait_timeout(Duration::ZERO) {
                panic!("the private RabbitMQ node ended ({status}):\n{}\n{}", started.stdout(), started.stderr());
            }
            speaks_amqp(self.port)
        });
        *server = Some(started);
    }

    /// Kills it and starts it again.
    pub fn restart(&self) {
        self.kill();
        self.start_again();
    }

    /// Runs `rabbitmqctl` against it, and returns what that prints.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let output = self.command("rabbitmqctl").arg("--quiet").args(arguments).output();
        let output = output.unwrap_or_else(|error| panic!("cannot run rabbitmqctl: {error}"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "rabbitmqctl {arguments:?} failed ({}): {}{}",
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// What it has logged since it was last started.
    pub fn log(&self) -> String {
        self.lock().as_ref().map(Leash::stdout).unwrap_or_default()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(sbin().join(program));
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RABBITMQ_")) {
            command.env_remove(name);
        }
        let settings: [(&str, OsString); 13] = [
            ("HOME", self.folder.clone().into()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
            ("ERL_EPMD_PORT", self.port_mapper_port.to_string().into()),
            ("RABBITMQ_NODENAME", format!("testbed-{}@localhost", self.port).into()),
            ("RABBITMQ_DIST_PORT", self.distribution_port.to_string().into()),
            ("RABBITMQ_CONFIG_FILE", self.folder.join("rabbitmq.conf").into()),
            ("RABBITMQ_CONF_ENV_FILE", self.folder.join("none").into()),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", self.folder.join("enabled_plugins").into()),
            ("RABBITMQ_MNESIA_BASE", self.folder.join("data").into()),
            ("RABBITMQ_LOG_BASE", self.folder.join("log").into()),
            ("RABBITMQ_PID_FILE", self.folder.join("pid").into()),
            ("RABBITMQ_LOGS", "-".into()),
            // Only loopback, and no spinning while idle: tests share the machine.
            (
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none".into(),
            ),
        ];
        command.envs(settings);
        command
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Leash>> {
        // A panic while starting leaves no server, which is a fine state.
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether there is a server that could be started.
pub fn is_installed() -> bool {
    find_sbin().is_some()
}

fn sbin() -> &'static Path {
    static SBIN: OnceLock<PathBuf> = OnceLock::new();
    SBIN.get_or_init(|| {
        find_sbin().unwrap_or_else(|| {
            panic!(
                "no RabbitMQ server to test against: run `apt-get install rabbitmq-server`, \
                 or name the folder of its programs in {SBIN_VARIABLE}"
            )
        })
    })
}

/// The folder with RabbitMQ's own programs. Not the ones on the PATH: Debian's switch the user.
fn find_sbin() -> Option<PathBuf> {
    let named = env::var_os(SBIN_VARIABLE).map(PathBuf::from);
    let debian = fs::read_dir(DEBIAN).into_iter().flatten().flatten().map(|entry| entry.path().join("sbin"));
    let places = debian.chain(SBIN_PLACES.map(PathBuf::from));
    let mut candidates: Vec<_> = named.map_or_else(|| places.collect(), |named| vec![named]);
    candidates.retain(|place| place.join("rabbitmq-server").is_file());
    // The newest of several versions.
    candidates.sort();
    candidates.pop()
}

/// Whether the server answers the AMQP greeting: it does when it is up and not before.
fn speaks_amqp(port: u16) -> bool {
    const METHOD_FRAME: u8 = 1;
    let greeting = || -> std::io::Result<u8> {
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        connection.set_read_timeout(Some(ANSWER_LIMIT))?;
        connection.write_all(b"AMQP\x00\x00\x09\x01")?;
        let mut frame_type = [0];
        connection.read_exact(&mut frame_type)?;
        Ok(frame_type[0])
    };
    greeting().is_ok_and(|frame_type| frame_type == METHOD_FRAME)
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_node_comes_back_with_what_it_kept() {
        let node = Node::start();
        node.ctl(&["add_user", "somebody", "secret"]);
        node.kill();
        assert!(!speaks_amqp(node.port()));
        node.start_again();
        assert!(node.ctl(&["list_users"]).contains("somebody"));
        assert!(node.log().contains("started TCP listener on 127.0.0.1"), "{}", node.log());
        let folder = node.folder.clone();
        drop(node);
        assert!(!folder.exists());
    }
}
