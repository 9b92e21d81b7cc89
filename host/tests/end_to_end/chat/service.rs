//! A service as its documents describe it, and a receiver that plays it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use testbed::receiver::{Answer, Receiver, Reply, Request};

/// The rules of one service.
pub(super) struct Service {
    pub(super) name: &'static str,
    /// The target as the operator writes it. HOST stands for the receiver's address.
    pub(super) target: &'static str,
    /// Name and value.
    pub(super) secret: (&'static str, &'static str),
    /// Checks a request and returns its violation. Each rule cites its document.
    pub(super) rules: fn(&Request) -> Result<(), String>,
    pub(super) taken: fn() -> Answer,
    /// Builds the service's answer to a bad request.
    pub(super) refused: fn(&str) -> Answer,
    /// The body of a 429.
    pub(super) busy: &'static str,
}

/// A receiver that enforces the rules.
pub(super) struct Counter {
    service: &'static Service,
    receiver: Receiver,
    book: Arc<Mutex<Book>>,
}

#[derive(Default)]
struct Book {
    violations: Vec<String>,
    next: Option<Answer>,
    taken: Vec<Request>,
}

impl Counter {
    pub(super) fn open(service: Service) -> Self {
        let service: &'static Service = Box::leak(Box::new(service));
        let book = Arc::new(Mutex::new(Book::default()));
        let own = Arc::clone(&book);
        let receiver = Receiver::start(move |request| {
            let mut book = own.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(violation) = (service.rules)(request) {
                book.violations.push(violation.clone());
                return Reply::Answer((service.refused)(&violation));
            }
            if let Some(answer) = book.next.take() {
                return Reply::Answer(answer);
            }
            book.taken.push(request.clone());
            Reply::Answer((service.taken)())
        });
        Self { service, receiver, book }
    }

    fn book<T>(&self, read: impl FnOnce(&mut Book) -> T) -> T {
        read(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn name(&self) -> &'static str {
        self.service.name
    }

    pub(super) fn secret_value(&self) -> &'static str {
        self.service.secret.1
    }

    pub(super) fn busy(&self) -> &'static str {
        self.service.busy
    }

    pub(super) fn toml(&self, settings: &str) -> String {
        let target = self.service.target.replace("HOST", &format!("127.0.0.1:{}", self.receiver.port()));
        let (secret, origin) = (self.service.secret.0, self.receiver.origin());
        format!(
            "[grants]\nhttp = [{origin:?}]\nnetworks = [\"127.0.0.0/8\"]\n[secrets.{secret}]\nfile = \"{secret}.secret\"\n\
             [config]\ntargets = [{target:?}]\n{settings}"
        )
    }

    /// Writes the secret beside the toml.
    pub(super) fn write_secret(&self, folder: &Path) {
        let (name, value) = self.service.secret;
        write_secret(&folder.join(format!("{name}.secret")), value);
    }

    /// Gives this answer to the next valid request, instead of accepting it.
    pub(super) fn answer_next(&self, answer: Answer) {
        self.book(|book| book.next = Some(answer));
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.book(|book| book.violations.clone())
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.receiver.requests()
    }

    pub(super) fn taken(&self) -> usize {
        self.book(|book| book.taken.len())
    }

    /// Counts the accepted requests that contain this text.
    pub(super) fn told_of(&self, text: &str) -> usize {
        // Messages to Discord and Mattermost have a backslash before punctuation.
        let holds = |request: &&Request| request.text().replace("\\\\", "").contains(text);
        self.book(|book| book.taken.iter().filter(holds).count())
    }
}

/// Writes a file with mode 0600, because the host warns of secrets that others can read.
pub(super) fn write_secret(file: &Path, value: &str) {
    fs::write(file, value).unwrap();
    fs::set_permissions(file, Permissions::from_mode(0o600)).unwrap();
}

/// Checks a rule; `wrong` describes its violation.
pub(super) fn must(is_so: bool, wrong: impl Into<String>) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(wrong.into()) }
}

/// Returns the body, which must be a JSON object, as all services require.
pub(super) fn json(request: &Request, method: &str) -> Result<Value, String> {
    must(request.method == method, format!("the method is {}", request.method))?;
    let content_type = request.header("content-type").unwrap_or_default();
    must(content_type.starts_with("application/json"), format!("the content type is {content_type:?}"))?;
    let body: Value = serde_json::from_slice(&request.body).map_err(|error| format!("the body is no JSON: {error}"))?;
    must(body.is_object(), "the body is no object")?;
    Ok(body)
}

pub(super) fn path(request: &Request, expected: &str) -> Result<(), String> {
    must(request.path == expected, format!("the path is {:?}", request.path))
}

pub(super) fn header(request: &Request, name: &str, expected: &str) -> Result<(), String> {
    must(request.header(name) == Some(expected), format!("the header {name} is {:?}", request.header(name)))
}

/// Returns a text of 1 to `max` characters in UTF-16, the longest count that a service uses.
pub(super) fn text(value: &Value, max: usize) -> Result<&str, String> {
    let text = value.as_str().ok_or_else(|| format!("{value} is no text"))?;
    let size = text.encode_utf16().count();
    must(
        (1..=max).contains(&size),
        format!("a text of {size} characters: {}", text.chars().take(60).collect::<String>()),
    )?;
    Ok(text)
}

/// Returns the names after an `@` that a service would mention. An `@` inside a word does not count.
pub(super) fn called(text: &str) -> Vec<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut called = Vec::new();
    for (place, _) in text.match_indices('@') {
        let name: String = text[place + 1..].chars().take_while(|c| is_word(*c)).collect();
        let is_within = text[..place].chars().next_back().is_some_and(is_word);
        if !name.is_empty() && !is_within {
            called.push(name);
        }
    }
    called
}
