//! A server that sends back its request, in many forms.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::world::SOON;

/// A server that answers each request with the request itself, in the body and in a header. The path can select
/// another form or a part of it; see [`reply`].
pub(crate) struct Echo {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (requests, ended) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(AtomicBool::new(false)));
        let (kept, stop) = (Arc::clone(&requests), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            let mut value = String::new();
            while let Ok((stream, _)) = listener.accept() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                if let Some(request) = answer(stream, &mut value) {
                    kept.lock().unwrap().push(request);
                }
            }
        });
        Self { port, requests, ended, thread: Some(thread) }
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        self.thread.take().map(JoinHandle::join);
    }
}

/// Answers a request. `value` is the latest secret value that came in a header.
fn answer(mut stream: TcpStream, value: &mut String) -> Option<String> {
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    let text = loop {
        let count = stream.read(&mut piece).ok().filter(|count| *count > 0)?;
        request.extend(&piece[..count]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        if body.len() >= length.unwrap_or_default() {
            break text;
        }
    };
    let authorization = text.lines().find(|line| line.to_lowercase().starts_with("authorization:")).unwrap_or_default();
    if let Some((_, bearer)) = authorization.split_once("Bearer ") {
        bearer.trim().clone_into(value);
    }
    let path = text.split(' ').nth(1).unwrap_or_default();
    let (more, body) =
        reply(path, value, &text).unwrap_or((format!("echo: {authorization}\r\n"), text.clone().into_bytes()));
    let length = body.len();
    let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n{more}\r\n");
    let _ = stream.write_all(&body);
    Some(text)
}

/// Returns the body that a path asks for, and its additional headers.
fn reply(path: &str, value: &str, request: &str) -> Option<(String, Vec<u8>)> {
    if path.starts_with("/say") {
        let body = request.split_once("\r\n\r\n")?.1;
        return Some((format!("said: {}\r\n", &body[..body.len().min(4000)]), body.as_bytes().to_vec()));
    }
    if path.starts_with("/path/") {
        return Some((format!("location: <{path}>\r\n"), format!("<{path}>").into_bytes()));
    }
    if let Some(coding) = path.strip_prefix("/coded/") {
        return Some((format!("content-encoding: {coding}\r\n"), b"wrapped up".to_vec()));
    }
    let special = |write: fn(char) -> String| -> String {
        value.chars().map(|char| if char.is_ascii_alphanumeric() { char.to_string() } else { write(char) }).collect()
    };
    let each = |write: fn(char) -> String| -> String { value.chars().map(write).collect() };
    let percent = || special(|char| format!("%{:02X}", u32::from(char)));
    let wide = || format!("<{value}>").encode_utf16().collect::<Vec<_>>();
    let text = match path.strip_prefix("/as/")? {
        "plain" => value.to_owned(),
        "json-slash" => value.replace('/', "\\/"),
        "json-unicode" => special(|char| format!("\\u{:04x}", u32::from(char))),
        "json-unicode-all" => each(|char| format!("\\u{:04X}", u32::from(char))),
        "html" => value.replace('&', "&amp;").replace('/', "&sol;").replace('=', "&equals;"),
        "html-decimal" => special(|char| format!("&#{};", u32::from(char))),
        "html-hexadecimal" => special(|char| format!("&#x{:x};", u32::from(char))),
        "percent" => percent(),
        "percent-small" => percent().to_ascii_lowercase(),
        "percent-twice" => percent().replace('%', "%25"),
        "json-of-html" => value.replace('&', "\\u0026amp;"),
        "mail" => value.replace('=', "=3D"),
        "hexadecimal" => each(|char| format!("{:02x}", u32::from(char))),
        "base64" => STANDARD_NO_PAD.encode(value),
        "utf-16-le" => return Some((String::new(), wide().iter().flat_map(|unit| unit.to_le_bytes()).collect())),
        "utf-16-be" => return Some((String::new(), wide().iter().flat_map(|unit| unit.to_be_bytes()).collect())),
        _ => return None,
    };
    Some((format!("form: <{text}>\r\n"), format!("<{text}>").into_bytes()))
}

/// The forms that [`reply`] knows, in which a secret comes back.
pub(crate) const FORMS: [&str; 16] = [
    "plain",
    "json-slash",
    "json-unicode",
    "json-unicode-all",
    "html",
    "html-decimal",
    "html-hexadecimal",
    "percent",
    "percent-small",
    "percent-twice",
    "json-of-html",
    "mail",
    "hexadecimal",
    "base64",
    "utf-16-le",
    "utf-16-be",
];
