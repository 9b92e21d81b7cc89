//! A TCP proxy that a test owns, to break connections in every way that networks do.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How often a thread that has nothing to do looks whether the mode has changed.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What the proxy does with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// All goes through.
    Forward,
    /// Connections stay open, new ones are accepted, and nothing goes through either way.
    Stall,
    /// New connections are closed at once. Those that are open go on.
    Refuse,
    /// So many more bytes go to each client, and then the connection is reset.
    CutAfter(usize),
    /// The server sees the end of its connections; clients see nothing, and get no answer.
    HalfOpen,
}

/// A proxy on 127.0.0.1. Dropping it ends it.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    upstream: u16,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    ended: bool,
    streams: Vec<TcpStream>,
}

impl Proxy {
    /// Forwards to this port of 127.0.0.1.
    pub fn to(upstream: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = listener.unwrap_or_else(|error| panic!("cannot listen: {error}"));
        let address = listener.local_addr().unwrap_or_else(|error| panic!("no address: {error}"));
        let state = State { mode: Mode::Forward, ended: false, streams: Vec::new() };
        let shared = Arc::new(Shared { upstream, state: Mutex::new(state) });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &accepting));
        Self { port: address.port(), shared }
    }

    /// Where clients connect.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on.
    pub fn set(&self, mode: Mode) {
        let mut state = self.shared.state();
        state.mode = mode;
    }

    /// Closes the oldest connection, on the client's side.
    pub fn drop_oldest_connection(&self) {
        if let Some(client) = self.shared.state().streams.first() {
            // It may be closed already.
            let _ = client.shutdown(Shutdown::Both);
        }
    }

    /// Sends these bytes to each client, as if the server had. Between two frames that is, if nothing else is under way.
    pub fn send_to_clients(&self, bytes: &[u8]) {
        // A client and a server each, in turn.
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
        // Wakes up the one that accepts.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mode(&self) -> Mode {
        self.state().mode
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
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

/// Until one side closes, or the mode says so.
fn forward(mut from: TcpStream, mut to: TcpStream, to_client: bool, shared: &Shared) {
    let mut buffer = [0; 16 << 10];
    let mut left = None;
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
                // The client's end stays with the proxy's list, so that it stays open.
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
        // It was the other direction that closed the server's end: the client must not hear of it.
        return;
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
