//! A TCP proxy for one test, which breaks connections in every way that networks do.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How often an idle thread checks whether the mode has changed.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How the proxy treats connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Forwards everything.
    Forward,
    /// Keeps connections open and accepts new ones, but forwards nothing in either direction.
    Stall,
    /// Closes new connections at once. Existing ones go on.
    Refuse,
    /// Forwards this many more bytes to each client, and then closes the connection.
    CutAfter(usize),
    /// Closes the server's side of connections. Clients see nothing, and get no answer.
    HalfOpen,
}

/// A proxy on 127.0.0.1. Dropping it stops it.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<ProxyShared>,
}

#[derive(Debug)]
struct ProxyShared {
    upstream: u16,
    state: Mutex<ProxyState>,
}

#[derive(Debug)]
struct ProxyState {
    mode: Mode,
    ended: bool,
    streams: Vec<TcpStream>,
}

impl Proxy {
    /// Starts a proxy that forwards to this port of 127.0.0.1.
    pub fn to(upstream: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = listener.unwrap_or_else(|error| panic!("cannot listen: {error}"));
        let address = listener.local_addr().unwrap_or_else(|error| panic!("no address: {error}"));
        let state = ProxyState { mode: Mode::Forward, ended: false, streams: Vec::new() };
        let shared = Arc::new(ProxyShared { upstream, state: Mutex::new(state) });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &accepting));
        Self { port: address.port(), shared }
    }

    /// Returns the port that clients connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes the mode.
    pub fn set(&self, mode: Mode) {
        let mut state = self.shared.state();
        state.mode = mode;
    }

    /// Closes the client's side of the oldest connection.
    pub fn drop_oldest_connection(&self) {
        if let Some(client) = self.shared.state().streams.first() {
            // It may be closed already.
            let _ = client.shutdown(Shutdown::Both);
        }
    }

    /// Sends these bytes to each client, as if they came from the server. They arrive between two
    /// frames if nothing else is under way.
    pub fn send_to_clients(&self, bytes: &[u8]) {
        // The list alternates between clients and servers.
        for mut client in self.shared.state().streams.iter().step_by(2) {
            // It may be closed already.
            let _ = client.write_all(bytes);
        }
    }

    /// Closes every connection.
    pub fn drop_connections(&self) {
        for stream in self.shared.state().streams.drain(..) {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.state().ended = true;
        self.drop_connections();
        // Wakes the accepting thread.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

impl ProxyShared {
    fn state(&self) -> MutexGuard<'_, ProxyState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mode(&self) -> Mode {
        self.state().mode
    }
}

fn accept(listener: &TcpListener, shared: &Arc<ProxyShared>) {
    for client in listener.incoming() {
        if shared.state().ended {
            return;
        }
        let Ok(client) = client else { continue };
        if shared.mode() == Mode::Refuse {
            continue;
        }
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, shared.upstream)) else { continue };
        for (from, to, to_client) in [(&client, &server, false), (&server, &client, true)] {
            let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { continue };
            let shared = Arc::clone(shared);
            thread::spawn(move || forward(from, to, to_client, &shared));
        }
        shared.state().streams.extend([client, server]);
    }
}

/// Copies from one side to the other, until one closes or the mode changes.
fn forward(mut from: TcpStream, mut to: TcpStream, to_client: bool, shared: &ProxyShared) {
    let mut buffer = [0; 16 << 10];
    let mut left = None;
    // Without a timeout, a blocked read would never notice a new mode.
    if from.set_read_timeout(Some(LOOK_EVERY)).is_err() {
        return;
    }
    loop {
        match shared.mode() {
            Mode::Stall => {
                thread::sleep(LOOK_EVERY);
                if shared.state().ended {
                    return;
                }
                continue;
            }
            Mode::HalfOpen => {
                let server = if to_client { &from } else { &to };
                let _ = server.shutdown(Shutdown::Both);
                // The proxy's list keeps the client's side open.
                return;
            }
            Mode::CutAfter(bytes) if to_client => left = left.or(Some(bytes)),
            Mode::Forward | Mode::Refuse | Mode::CutAfter(_) => left = None,
        }
        let read = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => break,
        };
        let allowed = left.map_or(read, |left| read.min(left));
        if to.write_all(&buffer[..allowed]).is_err() || left.is_some_and(|left| left <= read) {
            break;
        }
        left = left.map(|left| left - read);
    }
    if shared.mode() == Mode::HalfOpen {
        // The other direction has closed the server's side. The client must not notice.
        return;
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
