//! An HTTP server that a test owns: it keeps what it receives, answers as the test says, and misbehaves in every way
//! that servers do.

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

/// Between two bytes of [`Reply::Drip`].
const DRIP_EVERY: Duration = Duration::from_secs(1);

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A whole answer, and the connection stays open.
    Answer(Answer),
    /// The same, but the connection is closed behind it, which nothing announces.
    AnswerAndClose(Answer),
    /// The same, with `100 Continue` in front of it.
    ContinueAndAnswer(Answer),
    /// The same, in chunks and with trailers.
    Chunked(Answer),
    /// The connection is reset.
    Reset,
    /// The connection is closed without an answer.
    Close,
    /// No answer, and the connection stays open.
    Hang,
    /// A head, and then a byte a second, without end.
    Drip,
    /// A body of so many bytes.
    Flood(u64),
    /// Half of what the head announces, and the connection is closed.
    Half,
    /// What is no HTTP.
    Garbage,
    /// So many headers.
    Headers(usize),
    /// `101 Switching Protocols`.
    Switch,
    /// These bytes, and the connection is closed.
    Raw(Vec<u8>),
}

/// A whole answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Of the status line.
    pub status: u16,
    /// Besides Content-Length.
    pub headers: Vec<(String, String)>,
    /// Of any kind.
    pub body: Vec<u8>,
}

impl Answer {
    /// One with nothing in it.
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// The same with this header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The same with this body.
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

/// A server on 127.0.0.1. Dropping it ends it, with all its connections.
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
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    open: Vec<TcpStream>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Receiver {
    /// One that does this with each request.
    pub fn start(reply: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::of(None, Box::new(reply))
    }

    /// One that answers each request with this status, and nothing in it.
    pub fn answering(status: u16) -> Self {
        Self::start(move |_| Reply::Answer(Answer::status(status)))
    }

    /// One that speaks TLS, and shows this certificate.
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

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// `http://127.0.0.1:PORT`, or `https://localhost:PORT`: whom a certificate names.
    pub fn origin(&self) -> String {
        if self.is_secure {
            format!("https://localhost:{}", self.port)
        } else {
            format!("http://127.0.0.1:{}", self.port)
        }
    }

    /// The URL of a path on it.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin())
    }

    /// What has come so far, in its order.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state().requests.clone()
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many of them are open on this side.
    pub fn open_connections(&self) -> usize {
        self.shared.state().open.len()
    }

    /// Closes all that are open.
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
        // Wakes up the one that accepts.
        let _ = TcpStream::connect(self.address());
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits so long, or for the end; false if that has come.
    fn pause(&self, time: Duration) -> bool {
        let ended = |_: &mut State| !self.has_ended.load(Ordering::SeqCst);
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
            // However it ends: what a test wants to know is on its client's side.
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
        // The list of open connections has it, too.
        let _ = raw.shutdown(Shutdown::Both);
    }
    served
}

/// Request by request, until one side has enough.
fn speak(stream: &mut (impl Read + Write), raw: &TcpStream, shared: &Shared) -> io::Result<()> {
    let mut unread = Vec::new();
    while let Some(request) = Request::read(stream, &mut unread)? {
        let reply = (shared.reply)(&request);
        shared.state().requests.push(request);
        match reply {
            Reply::Answer(answer) => stream.write_all(&answer.whole())?,
            Reply::AnswerAndClose(answer) => {
                // They leave together: whoever has read the answer can know that it was the last.
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

/// From now on the connection is reset when the last one that has it lets go of it.
fn reset(stream: &TcpStream) -> io::Result<()> {
    rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO))?;
    Err(io::ErrorKind::ConnectionReset.into())
}
