//! An HTTP server for one test. It records what it receives, answers as the test says, and
//! misbehaves in every way that servers do.

mod certificate;
mod request;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

pub use certificate::{Authority, Identity, signing_key};
pub use request::Request;

/// Interval between two bytes of [`Reply::Drip`].
const DRIP_EVERY: Duration = Duration::from_secs(1);

/// How the server treats a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Sends a whole answer and keeps the connection open.
    Answer(Answer),
    /// Sends a whole answer, and closes the connection without announcing it.
    AnswerAndClose(Answer),
    /// Sends `100 Continue` before the answer.
    ContinueAndAnswer(Answer),
    /// Sends the answer in chunks, with trailers.
    Chunked(Answer),
    /// Resets the connection.
    Reset,
    /// Closes the connection without an answer.
    Close,
    /// Sends nothing and keeps the connection open.
    Hang,
    /// Sends a head, and then one byte a second without end.
    Drip,
    /// Sends a body of this many bytes.
    Flood(u64),
    /// Sends half of the announced body, and closes the connection.
    Half,
    /// Sends bytes that are not HTTP.
    Garbage,
    /// Sends this many headers.
    Headers(usize),
    /// Sends `101 Switching Protocols`.
    Switch,
    /// Sends these bytes, and closes the connection.
    Raw(Vec<u8>),
}

/// A whole answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers besides Content-Length.
    pub headers: Vec<(String, String)>,
    /// Body, of any kind.
    pub body: Vec<u8>,
}

impl Answer {
    /// Creates an answer without headers and body.
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// Adds this header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Sets this body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    fn head(&self, framing: &str) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} Some Reason\r\n", self.status);
        for (name, value) in &self.headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head.extend([framing, "\r\n"]);
        head.into_bytes()
    }

    fn whole(&self) -> Vec<u8> {
        let mut bytes = self.head(&format!("Content-Length: {}\r\n", self.body.len()));
        bytes.extend(&self.body);
        bytes
    }

    fn in_chunks(&self) -> Vec<u8> {
        let mut bytes = self.head("Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n");
        for chunk in self.body.chunks(3) {
            bytes.extend(format!("{:x};name=value\r\n", chunk.len()).into_bytes());
            bytes.extend(chunk);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\nX-Sum: 1\r\n\r\n");
        bytes
    }
}

/// A server on 127.0.0.1. Dropping it stops it and closes all its connections.
#[derive(Debug)]
pub struct Receiver {
    port: u16,
    is_secure: bool,
    shared: Arc<Shared>,
}

struct Shared {
    reply: Box<dyn Fn(&Request) -> Reply + Send + Sync>,
    tls: Option<Arc<ServerConfig>>,
    connections: AtomicUsize,
    has_ended: AtomicBool,
    state: Mutex<ReceiverState>,
    ended: Condvar,
}

#[derive(Default)]
struct ReceiverState {
    requests: Vec<Request>,
    open: Vec<TcpStream>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Receiver {
    /// Starts a server that replies to each request like this.
    pub fn start(reply: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::of(None, Box::new(reply))
    }

    /// Starts a server that answers each request with this status and nothing else.
    pub fn answering(status: u16) -> Self {
        Self::start(move |_| Reply::Answer(Answer::status(status)))
    }

    /// Starts a server that speaks TLS with this certificate.
    pub fn secure(identity: &Identity, reply: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::of(Some(identity.server()), Box::new(reply))
    }

    fn of(tls: Option<Arc<ServerConfig>>, reply: Box<dyn Fn(&Request) -> Reply + Send + Sync>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = listener.unwrap_or_else(|error| panic!("cannot listen: {error}"));
        let address = listener.local_addr().unwrap_or_else(|error| panic!("no address: {error}"));
        let shared = Arc::new(Shared {
            reply,
            tls,
            connections: AtomicUsize::new(0),
            has_ended: AtomicBool::new(false),
            state: Mutex::default(),
            ended: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &accepting));
        Self { port: address.port(), is_secure: shared.tls.is_some(), shared }
    }

    /// Returns the port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns its address.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Returns `http://127.0.0.1:PORT`, or `https://localhost:PORT` to match the certificate.
    pub fn origin(&self) -> String {
        if self.is_secure {
            format!("https://localhost:{}", self.port)
        } else {
            format!("http://127.0.0.1:{}", self.port)
        }
    }

    /// Returns the URL of a path on this server.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin())
    }

    /// Returns the requests so far, in order.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state().requests.clone()
    }

    /// Returns how many connections there have been.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Returns how many connections are open on this side.
    pub fn open_connections(&self) -> usize {
        self.shared.state().open.len()
    }

    /// Closes all open connections.
    pub fn drop_connections(&self) {
        for stream in &self.shared.state().open {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.has_ended.store(true, Ordering::SeqCst);
        self.shared.ended.notify_all();
        self.drop_connections();
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address());
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, ReceiverState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits this long, or until the server stops. Returns false if it has stopped.
    fn pause(&self, time: Duration) -> bool {
        let ended = |_: &mut ReceiverState| !self.has_ended.load(Ordering::SeqCst);
        let waited = self.ended.wait_timeout_while(self.state(), time, ended);
        drop(waited);
        !self.has_ended.load(Ordering::SeqCst)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.has_ended.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let (Ok(own), Ok(peer)) = (stream.try_clone(), stream.peer_addr()) else { continue };
        shared.state().open.push(own);
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // Errors do not matter here: tests check the client's side.
            let _ = serve(stream, &shared);
            shared.state().open.retain(|open| open.peer_addr().is_ok_and(|address| address != peer));
        });
    }
}

fn serve(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let raw = stream.try_clone()?;
    let served = match &shared.tls {
        Some(config) => {
            let connection = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
            speak(&mut StreamOwned::new(connection, stream), &raw, shared)
        }
        None => speak(&mut { stream }, &raw, shared),
    };
    let is_reset = served.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset);
    if !is_reset {
        // The list of open connections holds the socket too, so closing must be explicit.
        let _ = raw.shutdown(Shutdown::Both);
    }
    served
}

/// Serves requests, until one side ends the connection.
fn speak(stream: &mut (impl Read + Write), raw: &TcpStream, shared: &Shared) -> io::Result<()> {
    let mut unread = Vec::new();
    while let Some(request) = Request::read(stream, &mut unread)? {
        let reply = (shared.reply)(&request);
        shared.state().requests.push(request);
        match reply {
            Reply::Answer(answer) => stream.write_all(&answer.whole())?,
            Reply::AnswerAndClose(answer) => {
                // Answer and close leave together: a client that has read the answer can know that
                // it was the last.
                rustix::net::sockopt::set_tcp_cork(raw, true)?;
                return stream.write_all(&answer.whole());
            }
            Reply::ContinueAndAnswer(answer) => {
                stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
                stream.write_all(&answer.whole())?;
            }
            Reply::Chunked(answer) => stream.write_all(&answer.in_chunks())?,
            Reply::Reset => return reset(raw),
            Reply::Close => return Ok(()),
            Reply::Hang => while shared.pause(DRIP_EVERY) {},
            Reply::Drip => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")?;
                while shared.pause(DRIP_EVERY) {
                    stream.write_all(b".")?;
                    stream.flush()?;
                }
            }
            Reply::Flood(bytes) => flood(stream, bytes)?,
            Reply::Half => return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf-"),
            Reply::Garbage => return stream.write_all(b"\x16\x03\x01 220 mail.example.com ESMTP\r\n\r\n"),
            Reply::Headers(count) => {
                let mut answer = Answer::status(200);
                answer.headers = (0..count).map(|number| (format!("x-{number}"), "y".repeat(50))).collect();
                stream.write_all(&answer.whole())?;
            }
            Reply::Switch => {
                stream
                    .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n")?;
            }
            Reply::Raw(bytes) => return stream.write_all(&bytes),
        }
        stream.flush()?;
    }
    Ok(())
}

fn flood(stream: &mut impl Write, bytes: u64) -> io::Result<()> {
    stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n").as_bytes())?;
    io::copy(&mut io::repeat(b'x').take(bytes), stream).map(|_| ())
}

/// Makes the connection reset instead of close when its last handle is dropped.
fn reset(stream: &TcpStream) -> io::Result<()> {
    rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO))?;
    Err(io::ErrorKind::ConnectionReset.into())
}
