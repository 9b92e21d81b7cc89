//! Where a secret's value may be seen, and that it is nowhere else.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use tempfile::TempDir;
use testbed::{Leash, eventually, eventually_some};

use crate::assemble::Guest;
use crate::world::{Host, SOON, World, built};

const CANARY: &str = "canary/9dF1+K2=7q&xZ";
/// Two of one length: nothing that a guest sees may tell which of them it has.
const LOOKALIKES: [&str; 2] = ["canary09dF10K2070q0xZ", "canary/9dF1/%%2&&/xZ?"];
/// The signals that make a core dump.
const SEGMENTATION_FAULT: &str = "SEGV";

/// A server that answers each request with the request itself, in the body and in a header; or, as [`reply`] has it, with as
/// much of it and in the form that the path says.
struct Echo {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    fn start() -> Self {
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

    fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn requests(&self) -> Vec<String> {
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

/// `value` is the last one that came in a header.
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

/// The body that a path asks for, and the headers besides.
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
    let percent = || special(|char| format!("%{:02X}", u32::from(char)));
    let wide = || format!("<{value}>").encode_utf16().collect::<Vec<_>>();
    let text = match path.strip_prefix("/as/")? {
        "plain" => value.to_owned(),
        "json-slash" => value.replace('/', "\\/"),
        "json-unicode" => special(|char| format!("\\u{:04x}", u32::from(char))),
        "json-unicode-all" => value.chars().map(|char| format!("\\u{:04X}", u32::from(char))).collect(),
        "html" => value.replace('&', "&amp;").replace('/', "&sol;").replace('=', "&equals;"),
        "html-decimal" => special(|char| format!("&#{};", u32::from(char))),
        "html-hexadecimal" => special(|char| format!("&#x{:x};", u32::from(char))),
        "percent" => percent(),
        "percent-small" => percent().to_ascii_lowercase(),
        "percent-twice" => percent().replace('%', "%25"),
        "json-of-html" => value.replace('&', "\\u0026amp;"),
        "mail" => value.replace('=', "=3D"),
        "hexadecimal" => value.bytes().map(|byte| format!("{byte:02x}")).collect(),
        "base64" => STANDARD_NO_PAD.encode(value),
        "utf-16-le" => return Some((String::new(), wide().iter().flat_map(|unit| unit.to_le_bytes()).collect())),
        "utf-16-be" => return Some((String::new(), wide().iter().flat_map(|unit| unit.to_be_bytes()).collect())),
        _ => return None,
    };
    Some((format!("form: <{text}>\r\n"), format!("<{text}>").into_bytes()))
}

/// The forms that [`reply`] knows, in which a secret comes back.
const FORMS: [&str; 16] = [
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

/// A world with a guest that has the canary, in a file elsewhere.
struct Cage {
    world: World,
    echo: Echo,
    elsewhere: TempDir,
}

impl Cage {
    fn new() -> Self {
        let cage = Self { world: World::on_sqlite(), echo: Echo::start(), elsewhere: tempfile::tempdir().unwrap() };
        fs::write(cage.canary(), format!("{CANARY}\n")).unwrap();
        // Compiled for this test alone, so that all of it can be searched.
        fs::remove_file(cage.world.path("state/compiled")).unwrap();
        cage
    }

    fn canary(&self) -> PathBuf {
        self.elsewhere.path().join("canary")
    }

    fn toml(&self, act: &str, reveal: bool, to: &str) -> String {
        let (origin, canary) = (self.echo.origin(), self.canary().display().to_string());
        format!(
            "[grants]\nhttp = [{origin:?}, \"http://127.0.0.1:9\"]\nnetworks = [\"127.0.0.0/8\"]\n[secrets.token]\nfile = \
             {canary:?}\nto = [{to:?}]\nreveal = {reveal}\n[retry]\nattempts = 1\n[config]\nact = {act:?}\nsecret = \
             \"token\"\nurl = \"{origin}/hook\"\n[[subscriptions]]\nevent-type = \"OrderCreated\"\n"
        )
    }

    fn plug(&self, act: &str, reveal: bool) {
        self.plug_as(&format!("sender-{act}"), &self.toml(act, reveal, &self.echo.origin()));
    }

    fn plug_as(&self, name: &str, toml: &str) {
        self.world.plug(name, &built("NOTIFY_TEST_GUESTS", "sender.wasm"), toml);
    }

    /// One attempt at an event, in the folder of the secret.
    fn test(&self, name: &str, more: &[&str]) -> Output {
        let event = self.world.path("event.json");
        fs::write(&event, r#"{"event":"OrderCreated","order_id":"4711"}"#).unwrap();
        let wasm = self.world.plugins().join(format!("{name}.wasm"));
        let arguments = ["test", wasm.to_str().unwrap(), "--event", event.to_str().unwrap()];
        self.world.plugin_command(&[&arguments, more].concat())
    }

    /// What a command tells from the journal.
    fn journal(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_notify-host"));
        command.args(arguments).arg("--plugins").arg(self.world.plugins()).arg("--state").arg(self.world.path("state"));
        command.output().unwrap()
    }

    /// What it came to, as it is told.
    fn reason(&self, name: &str) -> String {
        let Output { stdout, stderr, .. } = self.test(name, &["--json"]);
        let report: serde_json::Value = serde_json::from_slice(&stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&stderr)));
        format!("{} {}", report["outcome"].as_str().unwrap(), report["reason"].as_str().unwrap_or_default())
    }
}

/// The forms in which the canary may not be found.
fn forms() -> Vec<String> {
    let mut forms = vec![CANARY.to_owned(), "canary%2F9dF1%2BK2%3D7q%26xZ".to_owned(), format!("{CANARY:?}")];
    for before in ["", "a", "ab"] {
        let encoded = STANDARD_NO_PAD.encode(format!("{before}{CANARY}"));
        // Without the ends, which depend on what stands beside it.
        forms.push(encoded[4..encoded.len() - 2].to_owned());
    }
    // Halves, of a line that was cut within it; and as a guest writes it that may not see it.
    forms.extend([CANARY[..9].to_owned(), CANARY[9..].to_owned(), CANARY.chars().rev().collect()]);
    forms.push(CANARY.bytes().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat());
    forms
}

fn assert_hidden(what: &str, bytes: &[u8]) {
    for form in forms() {
        let found = bytes.windows(form.len()).position(|window| window == form.as_bytes());
        if let Some(at) = found {
            let around = &bytes[at.saturating_sub(200)..bytes.len().min(at + 200)];
            panic!("{form:?} in {what}: {}", String::from_utf8_lossy(around));
        }
    }
}

/// Every file below the folder; how many.
fn assert_hidden_below(folder: &Path) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        assert_hidden("a name", path.as_os_str().as_encoded_bytes());
        if kind.is_dir() {
            count += assert_hidden_below(&path);
        } else if kind.is_file() {
            assert_hidden(&path.display().to_string(), &fs::read(&path).unwrap());
            count += 1;
        }
    }
    count
}

fn assert_hidden_by(what: &str, output: &Output) {
    assert_hidden(what, &output.stdout);
    assert_hidden(what, &output.stderr);
}

#[test]
fn a_secret_is_in_what_is_sent_and_nowhere_else() {
    let cage = Cage::new();
    cage.plug("send", false);
    for act in ["tell", "reject", "retry", "misconfigured", "panic"] {
        cage.plug(act, true);
    }
    cage.world.plug_logger();

    // In both formats of the log.
    let host = cage.world.host();
    let [id] = &cage.world.order(&["create", "--user", "u", "--product", "p"])[..] else { panic!("one order") };
    let broker = cage.world.broker();
    let dead = cage.world.names().dead();
    let dead_letters = |count| {
        eventually(SOON, "the failing ones are given up", || {
            cage.world.block_on(broker.inspect(&dead)).unwrap().is_some_and(|state| state.ready >= count)
        });
    };
    dead_letters(3);
    host.wait_for("the value is [secret token], as ");
    // What stands before the value has its own digits in base64.
    host.wait_for("answered POST /hook?basic=YW5uOm[secret token]");
    host.wait_for("answered echo: ");
    host.wait_for("]nekot terces[ reraeB :noitazirohtua");
    let list = cage.world.plugin_command(&["list", "--json"]);
    assert!(
        String::from_utf8_lossy(&list.stdout).contains("[secret token]"),
        "{}",
        String::from_utf8_lossy(&list.stdout)
    );
    assert_hidden_by("plugin list", &list);
    assert_hidden_by("plugin list", &cage.world.plugin_command(&["list"]));
    host.stop();
    let log = host.leash.stderr();
    assert!(log.matches("[secret token]").count() > 20, "{log}");
    assert_hidden("the log", log.as_bytes());

    let mut command = cage.world.host_command(&["run", "--log-format", "human", "--log-level", "trace"]);
    command.arg("--plugins").arg(cage.world.plugins());
    let host = Host { leash: Leash::spawn(command) };
    host.wait_for("ready: ");
    cage.world.order(&["create", "--user", "u", "--product", "p"]);
    dead_letters(6);
    host.stop();
    assert!(host.logged("[secret token]"), "{}", host.leash.stderr());
    assert_hidden("the log for people", host.leash.stderr().as_bytes());

    // What the operator's commands say.
    for name in ["sender-send", "sender-tell", "sender-reject", "sender-panic"] {
        for more in [&[][..], &["--json"], &["--dry-run"], &["--dry-run", "--json"], &["--log-level", "trace"]] {
            assert_hidden_by("plugin test", &cage.test(name, more));
        }
        let wasm = cage.world.plugins().join(format!("{name}.wasm"));
        assert_hidden_by("plugin inspect", &cage.world.plugin_command(&["inspect", wasm.to_str().unwrap(), "--json"]));
        assert_hidden_by("plugin grant", &cage.world.plugin_command(&["grant", name]));
    }
    for arguments in [&["dead-letters", "list"][..], &["dead-letters", "list", "--json"]] {
        let output = cage.world.host_command(arguments).output().unwrap();
        assert!(!output.stdout.is_empty(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert_hidden_by(&arguments.join(" "), &output);
    }
    for arguments in [&["explain", id][..], &["explain", id, "--json"], &["events"], &["events", "--json"]] {
        let told = cage.journal(arguments);
        assert!(String::from_utf8_lossy(&told.stdout).contains("[secret token]"), "{arguments:?}: {told:?}");
        assert_hidden_by(&arguments.join(" "), &told);
    }
    let letters = cage.world.host_command(&["dead-letters", "list", "--json"]).output().unwrap();
    let mut shown = 0;
    for line in String::from_utf8(letters.stdout).unwrap().lines() {
        let letter: serde_json::Value = serde_json::from_str(line).unwrap();
        let id = letter["id"].as_str().unwrap();
        let letter = cage.world.host_command(&["dead-letters", "show", id, "--json"]).output().unwrap();
        assert!(letter.status.success(), "{}", String::from_utf8_lossy(&letter.stderr));
        assert_hidden_by("dead-letters show", &letter);
        shown += 1;
    }
    assert_eq!(shown, 6);

    // The broker's file, the journal, the compiled code, and all else that the host keeps.
    assert!(assert_hidden_below(cage.world.path("state").parent().unwrap()) > 10);

    // And it was there: the receiver got it, and the signature is that of the value.
    let requests = cage.echo.requests();
    let sent = requests.iter().find(|request| request.contains(&format!("Bearer {CANARY}\r\n"))).expect("the header");
    let (head, body) = sent.split_once("\r\n\r\n").unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(CANARY.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    assert!(head.contains(&format!("signature: {signature}\r\n")), "{head}");
    let told = requests.iter().find(|request| request.starts_with("POST /hook?basic=")).expect("what was revealed");
    assert!(told.contains(&STANDARD.encode(format!("ann:{CANARY}"))), "{told}");
}

#[test]
fn a_plugin_uses_its_own_secrets_towards_their_destinations_alone() {
    let cage = Cage::new();
    let own = cage.toml("send", false, &cage.echo.origin());
    cage.plug_as("owner", &own);
    let reason = cage.reason("owner");
    assert!(reason.starts_with("done 200 POST /hook HTTP/1.1"), "{reason}");
    assert_eq!(cage.echo.requests().len(), 1);

    // Granted to the plugin, and not to the secret.
    cage.plug_as("astray", &cage.toml("send", false, "http://127.0.0.1:9"));
    let reason = cage.reason("astray");
    let origin = cage.echo.origin();
    assert!(
        reason.starts_with(&format!(
            "misconfigured the secret token may be sent only to http://127.0.0.1:9, and not to {origin}: see `to` below \
             [secrets.token]"
        )),
        "{reason}"
    );
    // Another plugin's.
    cage.plug_as("thief", &own.replace("[secrets.token]", "[secrets.other]"));
    let reason = cage.reason("thief");
    assert!(
        reason.starts_with("misconfigured the secret \"token\" is not granted: write [secrets.token] in"),
        "{reason}"
    );
    // Its own, and it may not see it.
    cage.plug_as("curious", &cage.toml("tell", false, &origin));
    let reason = cage.reason("curious");
    assert!(reason.starts_with("misconfigured the secret token may be used and not seen: "), "{reason}");
    assert_eq!(cage.echo.requests().len(), 1, "nothing more was sent");
    // As many as it may hold.
    cage.plug_as("hoarder", &cage.toml("hoard", false, &origin));
    let reason = cage.reason("hoarder");
    assert!(reason.contains("it holds more than its limit of 1024 handles"), "{reason}");
}

/// What the guest saw of each answer, as it tells it: by the contract, and by WASI.
fn views_of(cage: &Cage, name: &str, asks: &[String]) -> Vec<String> {
    let toml = cage.toml("look", false, &cage.echo.origin()).replace(
        "[config]\n",
        &format!(
            "[limits]\nresponse = \"1 KiB\"\ntime = \"60s\"\nlog-bytes = \"16 MiB\"\n[config]\nasks = [{}]\n",
            asks.join(", ")
        ),
    );
    cage.plug_as(name, &toml);
    let Output { stdout, stderr, .. } = cage.test(name, &["--json"]);
    let report: serde_json::Value =
        serde_json::from_slice(&stdout).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&stderr)));
    assert_eq!(report["outcome"], "done", "{report}");
    let log = report["log"].as_array().unwrap();
    let told = log.iter().map(|line| line["message"].as_str().unwrap().to_owned());
    told.filter(|line| line.starts_with("by ")).collect()
}

fn backwards(text: &str) -> String {
    text.chars().rev().collect()
}

#[test]
fn a_server_that_sends_a_secret_back_in_another_form_shows_its_name() {
    let cage = Cage::new();
    let origin = cage.echo.origin();
    let ask = |path: &str| format!("{{ url = \"{origin}{path}\" }}");
    let asks: Vec<_> = FORMS.iter().map(|form| ask(&format!("/as/{form}"))).collect();
    let views = views_of(&cage, "forms", &asks);
    assert_eq!(views.len(), 2 * FORMS.len(), "{views:#?}");
    let is_hidden = |(form, view): &(&str, &String)| {
        let is_wide = form.starts_with("utf-16");
        let body = backwards(view.split_once(": ").unwrap().1).replace('\0', "");
        body.starts_with("<[secret token]>") && (is_wide || view.contains("content-length=61 form=>]nekot terces[<: "))
    };
    let seen = FORMS.iter().flat_map(|form| [*form; 2]).zip(&views);
    let told: Vec<_> = seen.filter(|view| !is_hidden(view)).collect();
    assert!(told.is_empty(), "{told:#?}");
    // The host's own spelling, and what a plugin writes before it.
    let own = ["/path/{secret:token}", "/path/%{secret:token}", "/path/?q={secret:token}", "/path/?q=%{secret:token}"];
    let views = views_of(&cage, "own", &own.map(ask));
    assert_eq!(views.len(), own.len(), "{views:#?}");
    for view in &views {
        assert!(view.contains(">]nekot terces[") && view.contains("location=>]nekot terces["), "{view}");
        for part in ["canary", "9dF1", "xZ"] {
            assert!(!view.contains(&backwards(part)), "{view}");
        }
    }
    // What is wrapped up is not handed over, and not asked for.
    let codings = ["/coded/gzip", "/coded/deflate", "/coded/br", "/coded/zstd", "/coded/canary"];
    let views = views_of(&cage, "coded", &codings.map(ask));
    for (number, view) in views.iter().enumerate() {
        let told = codings[number / 2].strip_prefix("/coded/").filter(|told| *told != "canary");
        let told = format!("its answer is compressed ({})", told.unwrap_or("in a way of its own"));
        let is_told = if number % 2 == 0 {
            view.contains("error HostError::Refused") && view.contains(&told)
        } else {
            view.contains("HttpResponseContentCoding")
        };
        assert!(is_told, "{view}");
    }
    assert_eq!(views.len(), 2 * codings.len());
    for request in cage.echo.requests() {
        let head = request.split_once("\r\n\r\n").unwrap().0.to_lowercase();
        assert!(head.contains("\r\naccept-encoding: identity\r\n"), "{head}");
        for trick in ["\r\nrange:", "\r\nif-range:", "\r\na-im:", "gzip, br"] {
            assert!(!head.contains(trick), "{head}");
        }
    }
}

#[test]
fn nothing_that_a_plugin_sees_tells_a_part_of_a_secret() {
    let cage = Cage::new();
    let origin = cage.echo.origin();
    let mut asks = Vec::new();
    for guess in LOOKALIKES {
        for length in 1..guess.len() {
            let (beginning, end) = (&guess[..length], &guess[length..]);
            for part in [beginning, end] {
                let ask = |before: usize, after: usize| {
                    format!("{{ url = \"{origin}/say\", body = {part:?}, before = {before}, after = {after} }}")
                };
                // Up to the limit, beyond it, and well within.
                asks.push(ask(1024 - part.len(), if length % 2 == 0 { 1 } else { 3000 }));
                asks.push(ask(1024 - part.len() / 2, 0));
                if length % 5 == 0 {
                    asks.push(ask(10, 10));
                }
            }
        }
    }
    let seen = seen_with(&cage, &LOOKALIKES, &asks);
    assert!(seen[0].len() > asks.len() && seen[0].iter().any(|view| view.contains("cut")), "{}", seen[0].len());
    assert_eq!(LOOKALIKES[0].len(), LOOKALIKES[1].len());
    assert_same(&seen);
}

/// The views of one plugin, with one value and then with another.
fn seen_with(cage: &Cage, values: &[&str; 2], asks: &[String]) -> [Vec<String>; 2] {
    values.map(|value| {
        fs::write(cage.canary(), value).unwrap();
        views_of(cage, "oracle", asks)
    })
}

fn assert_same(seen: &[Vec<String>; 2]) {
    let told: Vec<_> = seen[0].iter().zip(&seen[1]).filter(|(one, other)| one != other).collect();
    assert!(told.is_empty(), "{} of {}: {told:#?}", told.len(), seen[0].len());
    assert_eq!(seen[0].len(), seen[1].len());
}

#[test]
fn what_there_is_room_for_does_not_tell_how_long_a_secret_is() {
    let cage = Cage::new();
    let origin = cage.echo.origin();
    let mut asks = Vec::new();
    for length in (8192 - 80..8192 + 20).step_by(5) {
        let path = "x".repeat(length - origin.len() - "/say/".len());
        asks.push(format!("{{ url = \"{origin}/say/{path}{{secret:token}}\" }}"));
    }
    for prefix in (32_768 - 160..32_768).step_by(8) {
        asks.push(format!("{{ url = \"{origin}/say\", prefix = {prefix} }}"));
    }
    let seen = seen_with(&cage, &["a-short-one", &CANARY.repeat(4)], &asks);
    assert_same(&seen);
    for refused in ["error HostError::Invalid", "error HostError::Quota"] {
        assert!(seen[0].iter().any(|view| view.contains(refused)), "{refused}");
    }
}

#[test]
fn a_secret_that_is_not_there_leaves_the_old_version_running_and_says_why() {
    let cage = Cage::new();
    cage.plug("send", false);
    let host = cage.world.host();
    let toml = cage.world.plugins().join("sender-send.toml");
    let good = fs::read_to_string(&toml).unwrap();
    let missing = cage.elsewhere.path().join("missing");
    fs::write(&toml, good.replace(cage.canary().to_str().unwrap(), missing.to_str().unwrap())).unwrap();
    host.wait_for("secrets.token: its value cannot be had from the file ");
    assert!(host.logged("sender-send.toml:4: secrets.token"), "{}", host.leash.stderr());
    cage.world.order(&["create", "--user", "u", "--product", "p"]);
    eventually(SOON, "the old version sends", || !cage.echo.requests().is_empty());
    // The new one takes over when there is a value, though no file of the plugin's changes.
    assert!(host.logged("version 0.1.0 goes on running; next try in "), "{}", host.leash.stderr());
    fs::write(&missing, "another-value-of-it").unwrap();
    host.wait_for("loaded anew");
    host.stop();
    fs::remove_file(&missing).unwrap();

    // Where nothing is sent, none is needed.
    let (plain, dry) = (cage.test("sender-send", &[]), cage.test("sender-send", &["--dry-run"]));
    assert_eq!(
        (plain.status.code(), dry.status.code()),
        (Some(1), Some(0)),
        "{}",
        String::from_utf8_lossy(&dry.stderr)
    );
    assert!(String::from_utf8_lossy(&dry.stderr).contains("another one is made up, as nothing is sent"));
}

#[test]
fn a_secret_is_rotated_while_the_host_runs() {
    let cage = Cage::new();
    cage.plug("send", false);
    let host = cage.world.host();
    let sends = |value: &str| {
        eventually(SOON, value, || {
            cage.world.order(&["create", "--user", "u", "--product", "p"]);
            cage.echo.requests().iter().any(|request| request.contains(&format!("Bearer {value}\r\n")))
        });
    };
    sends(CANARY);
    let next = cage.elsewhere.path().join("next");
    fs::write(&next, "another value\n").unwrap();
    fs::rename(&next, cage.canary()).unwrap();
    sends("another value");
    host.stop();
    assert!(!host.logged("another value") && !host.logged(CANARY), "{}", host.leash.stderr());
}

/// A host whose environment has the canary, and nothing against core dumps, in the current folder.
fn host_with_canary(cage: &Cage) -> Host {
    let run = cage.world.host_command(&["run", "--log-format", "json"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -c unlimited; exec \"$@\"", "sh"]).arg(run.get_program()).args(run.get_args());
    shell.arg("--plugins").arg(cage.world.plugins()).env("CANARY", CANARY).current_dir(cage.world.path(""));
    let host = Host { leash: Leash::spawn(shell) };
    host.wait_for("ready: ");
    host
}

#[test]
fn what_compiles_plugins_gets_nothing_of_the_hosts_environment() {
    let cage = Cage::new();
    cage.world.plug_logger();
    let host = host_with_canary(&cage);
    // The compiler never comes to the end of it, so that it can be looked at.
    let mut endless = Guest::default().assemble();
    let name = b"notify:plugin/log@";
    let at = endless.windows(name.len()).position(|window| window == name).unwrap();
    endless[at] = b'm';
    let file = cage.world.path("endless.wasm");
    fs::write(&file, endless).unwrap();
    cage.world.plug("endless", &file, "");
    let environment = eventually_some(SOON, "it is compiled", || {
        let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
        processes.into_iter().find_map(|process| {
            let status = fs::read_to_string(process.join("status")).ok()?;
            let is_child = status.lines().any(|line| line == format!("PPid:\t{}", host.leash.id()));
            let command = fs::read_to_string(process.join("cmdline")).ok()?;
            if is_child && command.contains("compile-plugin") { fs::read(process.join("environ")).ok() } else { None }
        })
    });
    assert_hidden("its environment", &environment);
    let environment = String::from_utf8(environment).unwrap();
    assert!(environment.contains("RAYON_NUM_THREADS=") && !environment.contains("PATH="), "{environment}");
    host.leash.kill();
}

#[test]
fn a_host_leaves_no_core_dump() {
    let cage = Cage::new();
    cage.plug("send", false);
    let toml = cage.world.plugins().join("sender-send.toml");
    let text = fs::read_to_string(&toml).unwrap();
    fs::write(&toml, text.replace(&format!("file = {:?}", cage.canary()), "env = \"CANARY\"")).unwrap();
    let host = host_with_canary(&cage);
    cage.world.order(&["create", "--user", "u", "--product", "p"]);
    eventually(SOON, "it is sent", || cage.echo.requests().iter().any(|request| request.contains(CANARY)));
    let limits = fs::read_to_string(format!("/proc/{}/limits", host.leash.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().rev().nth(1), Some("0"), "{core}");
    // Rust's own handler looks at the first one, finds that it is none of a full stack, and lets the next one through.
    eventually(SOON, "it is killed", || {
        let kill = [&format!("-{SEGMENTATION_FAULT}"), &host.leash.id().to_string()];
        Command::new("kill").args(kill).stderr(std::process::Stdio::null()).status().unwrap();
        host.leash.wait_timeout(Duration::from_millis(200)).is_some()
    });
    // Of the folder's files, none is one.
    assert!(assert_hidden_below(&cage.world.path("")) > 5);
    let dumps = fs::read_dir(cage.world.path("")).unwrap();
    let dumps = dumps.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("core"));
    assert_eq!(dumps.count(), 0);
}
