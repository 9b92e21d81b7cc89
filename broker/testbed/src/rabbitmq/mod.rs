//! A private RabbitMQ node, isolated from the system's own.
//!
//! It has its own name, its own port mapper (`epmd`) and its own files in a temporary folder, and
//! listens on 127.0.0.1 only. It can be killed and started again, and keeps its messages.

mod release;

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use std::{env, fs};

pub use self::release::{FOUR_VARIABLE, Release, is_installed, is_system};
use crate::receiver::Identity;
use crate::{ChildGuard, eventually, free_port};

/// Time limit for a start, which takes 5 s on a quiet machine.
const START_LIMIT: Duration = Duration::from_secs(90);
/// Wait for new quorum queues, far more than the half second that they need.
const QUEUE_SETTLE_TIME: Duration = Duration::from_secs(2);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A node, running or killed. Dropping it stops it and removes its files.
#[derive(Debug)]
pub struct Node {
    server: Mutex<Option<ChildGuard>>,
    // Holds the folder, so it is dropped last.
    home: Arc<Home>,
    /// Path of the folder as the node sees it.
    folder: PathBuf,
    port: u16,
    distribution_port: u16,
}

/// Shared by the nodes of a cluster: Erlang's port mapper and cookie, and a folder.
#[derive(Debug)]
struct Home {
    _port_mapper: ChildGuard,
    port_mapper_port: u16,
    release: Release,
    /// Path of the folder as the nodes see it.
    folder: PathBuf,
    /// Real path of the folder.
    folder_outside: PathBuf,
}

/// Returns the node that the tests of one process share. It is started on first use.
pub fn shared() -> &'static Node {
    static SHARED: OnceLock<Node> = OnceLock::new();
    SHARED.get_or_init(Node::start)
}

/// Like [`shared`], for RabbitMQ 4.
pub fn shared_four() -> &'static Node {
    static SHARED: OnceLock<Node> = OnceLock::new();
    SHARED.get_or_init(|| Node::start_release(Release::Four))
}

/// Waits until newly declared quorum queues survive a kill.
///
/// RabbitMQ 3.10 records the members of a new queue only after half a second, and does not show
/// when. A younger queue comes back without a leader, for good.
pub fn let_new_queues_settle() {
    std::thread::sleep(QUEUE_SETTLE_TIME);
}

/// Starts a cluster with this many nodes, for the caller alone.
pub fn cluster(size: usize) -> Vec<Node> {
    let home = Arc::new(Home::make(Release::Installed));
    let nodes: Vec<_> = (0..size).map(|_| Node::prepare(Arc::clone(&home))).collect();
    std::thread::scope(|scope| {
        for node in &nodes {
            scope.spawn(|| node.start_again());
        }
    });
    let Some((first, others)) = nodes.split_first() else { return nodes };
    for node in others {
        node.ctl(&["stop_app"]);
        node.ctl(&["join_cluster", &first.name()]);
        node.ctl(&["start_app"]);
    }
    nodes
}

impl Home {
    fn make(release: Release) -> Self {
        let folder = release.folder();
        let path = folder.path().to_owned();
        let port_mapper_port = free_port();
        // Erlang accepts the cookie only if nobody else can read it.
        let cookie = path.join(".erlang.cookie");
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o400).open(&cookie);
        file.and_then(|mut file| write!(file, "testbed-{port_mapper_port}"))
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", cookie.display()));

        let mut epmd = Command::new("epmd");
        epmd.args(["-address", "127.0.0.1", "-port", &port_mapper_port.to_string()]).env_remove("ERL_EPMD_PORT");
        let port_mapper = ChildGuard::spawn_in(epmd, folder);
        let answers = || TcpStream::connect((Ipv4Addr::LOCALHOST, port_mapper_port)).is_ok();
        eventually(ANSWER_LIMIT, "epmd, Erlang's port mapper, listens", answers);
        Self {
            _port_mapper: port_mapper,
            port_mapper_port,
            release,
            folder: release.inside(&path),
            folder_outside: path,
        }
    }
}

impl Node {
    /// Starts a node for the caller alone. Returns when it answers.
    pub fn start() -> Self {
        Self::start_release(Release::Installed)
    }

    /// Like [`Self::start`], with this release.
    pub fn start_release(release: Release) -> Self {
        let node = Self::prepare(Arc::new(Home::make(release)));
        node.start_again();
        node
    }

    /// Starts a node that also speaks TLS, with this certificate and key, and returns its TLS port.
    pub fn start_with_tls(identity: &Identity) -> (Self, u16) {
        let node = Self::prepare(Arc::new(Home::make(Release::Installed)));
        let port = free_port();
        let (outside, inside) = (node.home.folder_outside.join(node.port.to_string()), &node.folder);
        write(&outside.join("identity.pem"), identity.pem());
        let identity = inside.join("identity.pem");
        let identity = identity.display();
        let mut file = fs::OpenOptions::new()
            .append(true)
            .open(outside.join("rabbitmq.conf"))
            .unwrap_or_else(|error| panic!("cannot open the node's configuration: {error}"));
        write!(
            file,
            "listeners.ssl.default = 127.0.0.1:{port}\n\
             ssl_options.certfile = {identity}\n\
             ssl_options.keyfile = {identity}\n\
             ssl_options.verify = verify_none\n"
        )
        .unwrap_or_else(|error| panic!("cannot write the node's configuration: {error}"));
        node.start_again();
        (node, port)
    }

    /// Creates a node's files and picks its ports, without starting it.
    fn prepare(home: Arc<Home>) -> Self {
        let (port, distribution_port) = (free_port(), free_port());
        let outside = home.folder_outside.join(port.to_string());
        fs::create_dir(&outside).unwrap_or_else(|error| panic!("cannot create {}: {error}", outside.display()));
        write(&outside.join("enabled_plugins"), "[].\n");
        write(
            &outside.join("rabbitmq.conf"),
            &format!(
                "listeners.tcp.default = 127.0.0.1:{port}\n\
                 disk_free_limit.absolute = 1MB\n\
                 raft.wal_max_size_bytes = 67108864\n"
            ),
        );
        let folder = home.folder.join(port.to_string());
        Self { server: Mutex::new(None), home, folder, port, distribution_port }
    }

    /// Returns its AMQP port on 127.0.0.1. The port stays the same across restarts.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the URL to connect to.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2F", self.port)
    }

    /// Returns the RabbitMQ release that it runs.
    pub fn release(&self) -> Release {
        self.home.release
    }

    /// Returns its Erlang node name.
    pub fn name(&self) -> String {
        format!("testbed-{}@localhost", self.port)
    }

    /// Kills the node with SIGKILL.
    ///
    /// Call [`let_new_queues_settle`] first if queues are new.
    pub fn kill(&self) {
        if let Some(server) = self.lock().take() {
            server.kill();
        }
    }

    /// Starts the node after [`Self::kill`], with the same files. Returns when it answers.
    pub fn start_again(&self) {
        let mut server = self.lock();
        assert!(server.is_none(), "the RabbitMQ node on port {} runs already", self.port);
        let started = ChildGuard::spawn(self.command("rabbitmq-server"));
        eventually(START_LIMIT, "the private RabbitMQ node answers", || {
            if let Some(status) = started.wait_timeout(Duration::ZERO) {
                panic!("the private RabbitMQ node ended ({status}):\n{}\n{}", started.stdout(), started.stderr());
            }
            speaks_amqp(self.port)
        });
        *server = Some(started);
    }

    /// Kills the node and starts it again.
    pub fn restart(&self) {
        self.kill();
        self.start_again();
    }

    /// Runs `rabbitmqctl` against the node, and returns its output.
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

    /// Runs one of RabbitMQ's own programs against the node, such as `rabbitmq-diagnostics`.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Output {
        self.command(program).args(arguments).output().unwrap_or_else(|error| panic!("cannot run {program}: {error}"))
    }

    /// Returns the node's log since its last start.
    pub fn log(&self) -> String {
        self.lock().as_ref().map(ChildGuard::stdout).unwrap_or_default()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = self.home.release.command(program);
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RABBITMQ_")) {
            command.env_remove(name);
        }
        let settings: [(&str, OsString); 13] = [
            ("HOME", self.home.folder.clone().into()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
            ("ERL_EPMD_PORT", self.home.port_mapper_port.to_string().into()),
            ("RABBITMQ_NODENAME", self.name().into()),
            ("RABBITMQ_DIST_PORT", self.distribution_port.to_string().into()),
            ("RABBITMQ_CONFIG_FILE", self.folder.join("rabbitmq.conf").into()),
            ("RABBITMQ_CONF_ENV_FILE", self.folder.join("none").into()),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", self.folder.join("enabled_plugins").into()),
            ("RABBITMQ_MNESIA_BASE", self.folder.join("data").into()),
            ("RABBITMQ_LOG_BASE", self.folder.join("log").into()),
            ("RABBITMQ_PID_FILE", self.folder.join("pid").into()),
            ("RABBITMQ_LOGS", "-".into()),
            // Uses loopback only, and does not spin while idle: tests share the machine.
            (
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none".into(),
            ),
        ];
        command.envs(settings);
        command
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<ChildGuard>> {
        // A panic during a start leaves no server behind, which is a valid state.
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether the server answers the AMQP greeting. It does so only once it is up.
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
        let folder = node.home.folder_outside.clone();
        drop(node);
        assert!(!folder.exists());
    }

    #[test]
    fn the_nodes_of_a_cluster_know_each_other() {
        let nodes = cluster(2);
        let status = nodes[0].ctl(&["cluster_status", "--formatter", "json"]);
        for node in &nodes {
            assert!(status.contains(&node.name()), "{status}");
        }
    }
}
