//! Talks to the service manager that started this host: systemd, or another one that sets `NOTIFY_SOCKET`.
//!
//! Reports when the start is complete, the host's status, and when it stops. While work proceeds it sends watchdog
//! pings, as often as the manager wants; a stalled host sends none and is restarted. Without such a manager this module
//! does nothing.

use std::ffi::OsStr;
use std::io;
#[cfg(target_os = "linux")]
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use delivery::DeliveryState;
use event::text::counted;
use jiff::Timestamp;
use sd_notify::NotifyState;
use supervisor::readiness::RunningHost;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::warn;

/// Variable in which the manager names its socket.
const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";
/// Interval of status checks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Interval of status checks during the start, which others may wait for.
const LOOK_AT_START: Duration = Duration::from_millis(100);
/// Number of pings per watchdog timeout.
const PINGS: u32 = 3;
/// How long a session may take to set up the plugins' queues before the start counts as complete without them.
const QUEUES_TIME_MAX: Duration = Duration::from_secs(5);
/// Maximum characters of the status line.
const STATUS_CHARACTERS_MAX: usize = 400;

/// Keeps the manager informed. Dropping it reports the stop, if that has not happened yet.
pub(crate) struct Informed {
    task: JoinHandle<()>,
    socket: Arc<ManagerSocket>,
}

impl Drop for Informed {
    fn drop(&mut self) {
        self.task.abort();
        self.socket.stopping();
    }
}

/// Starts to inform the manager, if there is one. If the host may give up on an absent broker (`broker_must_answer`),
/// the start is complete only after the broker has answered.
pub(crate) fn inform(host: RunningHost, broker_must_answer: bool) -> Option<Informed> {
    std::env::var_os(SOCKET_VARIABLE)?;
    let socket = Arc::new(ManagerSocket::default());
    let task = tokio::spawn(watch(host, Arc::clone(&socket), broker_must_answer));
    Some(Informed { task, socket })
}

async fn watch(host: RunningHost, socket: Arc<ManagerSocket>, broker_must_answer: bool) {
    let watchdog = sd_notify::watchdog_enabled().filter(|time| !time.is_zero());
    let ping_every = watchdog.map(|time| time / PINGS);
    let mut pinged: Option<Instant> = None;
    let (mut started, mut is_ready_told) = (false, false);
    let mut told = String::new();
    loop {
        let (delivery_state, reasons) = (host.status.look(), host.reasons());
        let runs_no_plugin = host.control.registry.runners().is_empty();
        let mut news = Vec::new();
        if !started && start_is_over(&delivery_state, reasons.is_empty(), runs_no_plugin, broker_must_answer) {
            started = true;
        }
        if started && !is_ready_told {
            news.push(NotifyState::Ready);
        }
        let status = status(&host, &reasons);
        if status != told {
            news.push(NotifyState::Status(&status));
        }
        let is_due = ping_every.is_some_and(|every| pinged.is_none_or(|at| at.elapsed() >= every));
        if is_due && !delivery_state.is_stalled {
            pinged = Some(Instant::now());
            news.push(NotifyState::Watchdog);
        }
        let is_told = news.is_empty() || socket.say(&news);
        // A message that was not delivered is sent again at the next check.
        if is_told {
            (told, is_ready_told) = (status, started);
        } else {
            (told, pinged) = (String::new(), None);
        }
        let look = if started { LOOK_EVERY } else { LOOK_AT_START };
        let pause = tokio::time::sleep(ping_every.map_or(look, |every| every.min(look)));
        tokio::select! {
            () = pause => {}
            () = host.stop.cancelled(), if !socket.is_stopping.load(Ordering::Relaxed) => socket.stopping(),
        }
    }
}

/// Whether the start is complete, so that the manager can start dependent services. An absent broker does not delay it:
/// the host keeps trying, and a restart would not help.
fn start_is_over(
    delivery_state: &DeliveryState,
    is_ready: bool,
    runs_no_plugin: bool,
    broker_must_answer: bool,
) -> bool {
    match &delivery_state.connected {
        Some((_, since)) => {
            let open = Duration::try_from(Timestamp::now().duration_since(*since)).unwrap_or_default();
            is_ready || runs_no_plugin || open >= QUEUES_TIME_MAX
        }
        None => delivery_state.away.is_some() && !broker_must_answer,
    }
}

/// Describes the host's condition on one line.
fn status(host: &RunningHost, reasons: &[String]) -> String {
    let text = if reasons.is_empty() {
        let (queue, plugins) = (host.config.source.names.source(), host.control.registry.runners().len());
        format!("ready: consuming queue {queue:?} at {} with {}", host.broker, counted(plugins, "plugin"))
    } else {
        format!("not ready: {}", reasons.join("; "))
    };
    one_line(&text)
}

fn one_line(text: &str) -> String {
    text.chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .take(STATUS_CHARACTERS_MAX)
        .collect()
}

/// The manager's socket.
#[derive(Default)]
struct ManagerSocket {
    is_stopping: AtomicBool,
    has_failed: AtomicBool,
}

impl ManagerSocket {
    fn stopping(&self) {
        if !self.is_stopping.swap(true, Ordering::Relaxed) {
            self.say(&[NotifyState::Stopping]);
        }
    }

    /// Sends a datagram without blocking. Returns whether the manager got it.
    fn say(&self, states: &[NotifyState<'_>]) -> bool {
        let said = send(states);
        if let Err(error) = &said
            && !self.has_failed.load(Ordering::Relaxed)
        {
            warn!("cannot reach the service manager at the socket in NOTIFY_SOCKET: {error}");
        }
        self.has_failed.store(said.is_err(), Ordering::Relaxed);
        said.is_ok()
    }
}

/// Sends the states. The crate's own function would block if the manager hangs and its socket is full.
fn send(states: &[NotifyState<'_>]) -> io::Result<()> {
    let Some(at) = std::env::var_os(SOCKET_VARIABLE) else { return Ok(()) };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address(&at)?)?;
    let lines: Vec<_> = states.iter().map(ToString::to_string).collect();
    socket.send(lines.join("\n").as_bytes()).map(drop)
}

fn address(at: &OsStr) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = at.as_bytes().strip_prefix(b"@") {
        return <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name);
    }
    SocketAddr::from_pathname(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_over_when_it_is_ready_or_when_waiting_makes_nothing_better() {
        let away = DeliveryState { away: Some("refused".to_owned()), ..DeliveryState::default() };
        let opened =
            |since| DeliveryState { connected: Some(("sqlite:q".parse().unwrap(), since)), ..DeliveryState::default() };
        let (just_now, long_ago) = (opened(Timestamp::now()), opened(Timestamp::UNIX_EPOCH));
        for (delivery_state, is_ready, runs_no_plugin, must, expected) in [
            (&DeliveryState::default(), false, false, false, false),
            (&away, false, false, false, true),
            (&away, false, false, true, false),
            (&just_now, true, false, true, true),
            (&just_now, false, true, true, true),
            (&just_now, false, false, false, false),
            (&long_ago, false, false, false, true),
        ] {
            assert_eq!(start_is_over(delivery_state, is_ready, runs_no_plugin, must), expected, "{delivery_state:?}");
        }
    }

    #[test]
    fn the_status_is_one_line() {
        assert_eq!(one_line("no\nroute\u{1b}"), "no route ");
        assert_eq!(one_line(&"x".repeat(5000)).chars().count(), STATUS_CHARACTERS_MAX);
    }
}
