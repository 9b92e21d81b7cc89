//! The host's messages to a service manager, on a socket like systemd's.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use testbed::{ChildGuard, eventually, rabbitmq};

use crate::world::{SOON, World};

/// Stands in for systemd.
pub(crate) struct Manager {
    socket: UnixDatagram,
    path: std::path::PathBuf,
    heard: Vec<(Instant, String)>,
}

impl Manager {
    fn new(world: &World) -> Self {
        Self::at(world.path("notify.sock"))
    }

    /// Binds the socket at this path.
    pub(crate) fn at(path: std::path::PathBuf) -> Self {
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        Self { socket, path, heard: Vec::new() }
    }

    fn start(&self, world: &World, watchdog: Option<Duration>, arguments: &[&str]) -> ChildGuard {
        let mut command = world.host_command(&["run", "--log-format", "json"]);
        command.arg("--plugins").arg(world.plugins()).args(arguments).env("NOTIFY_SOCKET", &self.path);
        if let Some(watchdog) = watchdog {
            command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        }
        ChildGuard::spawn(command)
    }

    /// Reads everything that has arrived, and returns all messages so far.
    fn listen(&mut self) -> &[(Instant, String)] {
        let mut datagram = [0; 4096];
        while let Ok(length) = self.socket.recv(&mut datagram) {
            let text = String::from_utf8(datagram[..length].to_vec()).unwrap();
            self.heard.extend(text.lines().map(|line| (Instant::now(), line.to_owned())));
        }
        &self.heard
    }

    fn hears(&mut self, what: &str) -> bool {
        self.listen().iter().any(|(_, line)| line.starts_with(what))
    }

    fn wait_for(&mut self, what: &str, host: &ChildGuard) {
        self.wait_long_for(what, host, SOON);
    }

    pub(crate) fn wait_long_for(&mut self, what: &str, host: &ChildGuard, limit: Duration) {
        let started = Instant::now();
        loop {
            // Check for the exit first, so that the last messages of an ended host are still read.
            let ended = host.wait_timeout(Duration::ZERO).is_some();
            if self.hears(what) {
                return;
            }
            let waits = !ended && started.elapsed() < limit;
            assert!(waits, "{what} was not heard; {:?}\n{}", self.heard, host.stderr());
        }
    }

    fn count(&self, what: &str) -> usize {
        self.heard.iter().filter(|(_, line)| line == what).count()
    }

    fn place(&self, what: &str) -> usize {
        self.heard.iter().position(|(_, line)| line.starts_with(what)).unwrap_or_else(|| panic!("{what}"))
    }
}

#[test]
fn a_service_manager_is_told_of_the_start_the_state_and_the_stop_and_is_pinged() {
    let world = World::on_sqlite();
    world.plug_logger();
    let mut manager = Manager::new(&world);
    let host = manager.start(&world, Some(Duration::from_millis(300)), &[]);
    manager.wait_for("READY=1", &host);
    manager.wait_for("STATUS=ready: consuming queue \"notifications\" at sqlite:", &host);
    // The host is really ready when it says so.
    assert!(host.stderr().contains("ready: "), "{}", host.stderr());
    let begun = Instant::now();
    while manager.count("WATCHDOG=1") < 6 {
        manager.listen();
        assert!(begun.elapsed() < SOON, "{:?}", manager.heard);
    }
    let pings: Vec<_> = manager.heard.iter().filter(|(_, line)| line == "WATCHDOG=1").map(|(at, _)| *at).collect();
    assert!(pings.last().unwrap().duration_since(pings[0]) >= Duration::from_millis(300), "{pings:?}");
    host.terminate();
    manager.wait_for("STOPPING=1", &host);
    assert!(host.wait_timeout(SOON).unwrap().success());
    manager.listen();
    assert_eq!((manager.count("READY=1"), manager.count("STOPPING=1")), (1, 1), "{:?}", manager.heard);
    assert!(manager.place("READY=1") < manager.place("STOPPING=1"));
    assert!(manager.place("STATUS=not ready: ") < manager.place("READY=1"));
}

#[test]
fn a_host_without_plugins_has_started_and_says_what_lacks() {
    let world = World::on_sqlite();
    let mut manager = Manager::new(&world);
    let host = manager.start(&world, None, &[]);
    manager.wait_for("READY=1", &host);
    manager.wait_for("STATUS=not ready: no plugin of ", &host);
    world.plug_logger();
    manager.wait_for("STATUS=ready: consuming", &host);
    assert_eq!((manager.count("READY=1"), manager.count("WATCHDOG=1")), (1, 0), "{:?}", manager.heard);
}

#[test]
fn a_start_goes_on_without_the_broker_unless_it_must_answer() {
    let mut world = World::on_sqlite();
    world.plug_logger();
    world.host_url = format!("amqp://127.0.0.1:{}/%2F", testbed::free_port());
    let mut manager = Manager::new(&world);
    let host = manager.start(&world, Some(Duration::from_millis(300)), &[]);
    manager.wait_for("STATUS=not ready: there is no session with the broker amqp://127.0.0.1:", &host);
    manager.wait_for("READY=1", &host);
    // A missing broker is not a stall: a restart would not help.
    let before = manager.count("WATCHDOG=1");
    while manager.count("WATCHDOG=1") < before + 3 {
        manager.listen();
    }
    host.kill();

    let mut manager = Manager { heard: Vec::new(), ..manager };
    let host = manager.start(&world, None, &["--broker-timeout", "2s"]);
    assert_eq!(host.wait_timeout(SOON).unwrap().code(), Some(1), "{}", host.stderr());
    assert!(!manager.hears("READY=1"), "{:?}", manager.heard);
}

/// The broker blocks publishers, so the plugin's failures cannot be stored and nothing is settled any more.
#[test]
fn a_stalled_host_is_pinged_for_no_more_until_it_goes_on() {
    let node = rabbitmq::Node::start();
    let mut world =
        World::new(tempfile::tempdir().unwrap(), node.url(), "orders".to_owned(), "notifications".to_owned());
    // Each event takes a second, so that one is in flight whenever the broker begins to block.
    world.plug_misbehaver("loop");
    world.host_url = node.url();
    let config = std::fs::read_to_string(world.path("host.toml")).unwrap();
    std::fs::write(world.path("host.toml"), format!("prefetch = 1\n{config}")).unwrap();
    let mut manager = Manager::new(&world);
    let host = manager.start(&world, Some(Duration::from_secs(1)), &[]);
    manager.wait_for("STATUS=ready", &host);
    let load = world.order_cli(&["load", "--count", "100", "--quiet"]);
    assert!(load.status.success(), "{load:?}");
    node.ctl(&["set_vm_memory_high_watermark", "0.00001"]);
    // The host checks for a stall every half minute, and needs two checks.
    let begun = Instant::now();
    while !manager.hears("STATUS=not ready: stalled") {
        assert!(begun.elapsed() < 3 * SOON, "{:?}\n{}", manager.heard, host.stderr());
    }
    let silent_since = manager.count("WATCHDOG=1");
    let listened = Instant::now();
    while listened.elapsed() < Duration::from_secs(3) {
        manager.listen();
    }
    assert_eq!(manager.count("WATCHDOG=1"), silent_since, "{:?}", manager.heard);
    node.ctl(&["set_vm_memory_high_watermark", "0.4"]);
    let begun = Instant::now();
    while manager.count("WATCHDOG=1") == silent_since {
        manager.listen();
        assert!(begun.elapsed() < 2 * SOON, "no ping again; {}", host.stderr());
    }
}

#[test]
fn a_manager_that_hangs_keeps_nothing_waiting_and_hears_the_news_when_it_goes_on() {
    let world = World::on_sqlite();
    world.plug_logger();
    let mut manager = Manager::new(&world);
    // Fill its socket.
    let other = UnixDatagram::unbound().unwrap();
    other.set_nonblocking(true).unwrap();
    while other.send_to(b"old", &manager.path).is_ok() {}
    let host = manager.start(&world, None, &[]);
    eventually(SOON, "the host says so", || host.stderr().contains("cannot reach the service manager"));
    eventually(SOON, "it is ready", || host.stderr().contains("ready: "));
    let id = world.order(&["create", "--user", "u", "--product", "p"]).remove(0);
    eventually(SOON, "it works all the same", || host.stderr().contains(&id));
    manager.wait_for("READY=1", &host);
    while other.send_to(b"old", &manager.path).is_ok() {}
    host.terminate();
    assert!(host.wait_timeout(SOON).expect("it stops though nobody hears it").success());
}
