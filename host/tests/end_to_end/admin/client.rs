//! A client of the admin server: one request per connection.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;
use testbed::eventually_some;

use crate::world::{Host, SOON, World};

#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// Address and port.
    pub(crate) at: String,
    /// Headers sent with every request.
    pub(crate) headers: Vec<(String, String)>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Header lines, with lower-case names.
    pub(crate) headers: Vec<String>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_else(|| panic!("no error: {self:?}")).to_owned()
    }
}

impl World {
    /// Starts a host with an admin server and waits until the server answers.
    pub(crate) fn host_with_admin(&self, arguments: &[&str]) -> (Host, Client) {
        let host = self.host_with(&[&["--admin", "127.0.0.1:0"], arguments].concat());
        let client = host.admin();
        (host, client)
    }
}

impl Host {
    /// Returns a client of the host's admin server, once the server is up.
    pub(crate) fn admin(&self) -> Client {
        let at = eventually_some(SOON, "the admin surface's address in the log", || {
            let log = self.child_guard.stderr();
            let (_, rest) = log.split_once("admin surface: http://")?;
            Some(rest.split_once('"')?.0.to_owned())
        });
        Client { at, headers: Vec::new() }
    }
}

impl Client {
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "")
    }

    /// Fetches JSON; the request must succeed.
    pub(crate) fn json(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        self.ask("POST", path, &[("content-type", "application/json")], body)
    }

    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut stream = self.send(method, path, headers, body);
        let (status, headers) = head(&mut stream);
        let mut body = String::new();
        if headers.iter().any(|line| line == "transfer-encoding: chunked") {
            while let Some(chunk) = chunk(&mut stream) {
                body.push_str(&chunk);
            }
        } else {
            stream.read_to_string(&mut body).unwrap();
        }
        Answer { status, headers, body }
    }

    /// Opens a stream of server-sent events.
    pub(crate) fn stream(&self, path: &str) -> Events {
        let mut stream = self.send("GET", path, &[], "");
        let (status, headers) = head(&mut stream);
        assert_eq!(status, 200, "{path}");
        assert!(headers.iter().any(|line| line == "content-type: text/event-stream"), "{headers:?}");
        Events { stream, text: String::new() }
    }

    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(&self.at).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let (at, length) = (self.at.as_str(), body.len().to_string());
        let own = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut all: Vec<_> = own.chain(headers.iter().copied()).collect();
        if !all.iter().any(|(name, _)| *name == "host") {
            all.push(("host", at));
        }
        all.extend([("connection", "close"), ("content-length", &length)]);
        let lines: String = all.iter().flat_map(|(name, value)| [name, ": ", value, "\r\n"]).collect();
        stream.write_all(format!("{method} {path} HTTP/1.1\r\n{lines}\r\n{body}").as_bytes()).unwrap();
        BufReader::new(stream)
    }
}

fn head(stream: &mut BufReader<TcpStream>) -> (u16, Vec<String>) {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        lines.push(format!("{}:{value}", name.to_lowercase()));
    }
    let status = lines.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_else(|| panic!("no answer"));
    let status = status.trim_end_matches(':').parse().unwrap();
    (status, lines)
}

/// Reads one chunk of a chunked body. Returns `None` after the last one.
fn chunk(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut size = String::new();
    stream.read_line(&mut size).unwrap();
    let size = usize::from_str_radix(size.trim(), 16).ok()?;
    let mut chunk = vec![0; size + 2];
    stream.read_exact(&mut chunk).unwrap();
    chunk.truncate(size);
    (size > 0).then(|| String::from_utf8(chunk).unwrap())
}

/// A stream of server-sent events.
pub(crate) struct Events {
    stream: BufReader<TcpStream>,
    text: String,
}

impl Events {
    /// Returns the next event's name and data, or `None` at the end of the stream.
    pub(crate) fn next(&mut self) -> Option<(String, Value)> {
        loop {
            while let Some((one, rest)) =
                self.text.split_once("\n\n").map(|(one, rest)| (one.to_owned(), rest.to_owned()))
            {
                self.text = rest;
                let of = |name: &str| one.lines().find_map(|line| line.strip_prefix(name).map(str::trim));
                if let (Some(event), Some(data)) = (of("event:"), of("data:")) {
                    return Some((event.to_owned(), serde_json::from_str(data).unwrap()));
                }
            }
            let more = chunk(&mut self.stream)?;
            self.text.push_str(&more);
        }
    }
}
