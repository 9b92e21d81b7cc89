//! `notify-host plugin test` shows the requests and mails of a plugin, and sends nothing with `--dry-run`.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{World, built};

/// A receiver that counts connections and refuses everything.
struct Receiver {
    port: u16,
    connections: Arc<AtomicUsize>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&connections);
        let thread = std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                // The final connection comes from the test, to end this loop.
                if counted.fetch_add(1, Ordering::Relaxed) > 1000 {
                    return;
                }
                stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                let _ = std::io::Read::read(&mut stream, &mut [0; 4096]);
                let _ = stream.write_all(b"HTTP/1.1 422 No\r\ncontent-length: 4\r\nconnection: close\r\n\r\nnope");
            }
        });
        Self { port, connections, thread: Some(thread) }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.connections.fetch_add(10_000, Ordering::Relaxed);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// A guest that sends, with its toml, in a folder where the commands run.
struct Desk {
    world: World,
    receiver: Receiver,
}

impl Desk {
    fn new(act: &str) -> Self {
        let desk = Self { world: World::on_sqlite(), receiver: Receiver::start() };
        let port = desk.receiver.port;
        let toml = format!(
            "[grants]\nhttp = [\"http://127.0.0.1:{port}\"]\nnetworks = [\"127.0.0.0/8\"]\nmail = [\"*@example.com\"]\n\
             [secrets.token]\nfile = \"token\"\n[config]\nact = {act:?}\nsecret = \"token\"\n\
             url = \"http://127.0.0.1:{port}/hook?a=b\"\nto = [\"ann@example.com\", \"bob@example.com\"]\n"
        );
        desk.world.plug("sender", &built("NOTIFY_TEST_GUESTS", "sender.wasm"), &toml);
        fs::write(desk.world.plugins().join("token"), "a token of the test\n").unwrap();
        fs::write(
            desk.world.path("event.json"),
            r#"{"event":"OrderCreated","order_id":"4711","id":"e-1","total":1.50}"#,
        )
        .unwrap();
        let host = fs::read_to_string(desk.world.path("host.toml")).unwrap();
        let mail = format!(
            "[mail]\nrelay = \"smtp://127.0.0.1:{port}\"\ntls = \"none\"\nfrom = \"Bücher <shop@example.com>\"\n"
        );
        fs::write(desk.world.path("host.toml"), host + &mail).unwrap();
        desk
    }

    fn test(&self, more: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_notify-host"));
        command.args(["plugin", "test"]).arg(self.world.plugins().join("sender.wasm")).arg("--config");
        command.arg(self.world.path("host.toml")).arg("--event").arg(self.world.path("event.json")).args(more);
        let Output { status, stdout, stderr } = command.current_dir(self.world.path("")).output().unwrap();
        (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    }

    fn json(&self, more: &[&str]) -> (i32, Value) {
        let (code, told, said) = self.test(&[more, &["--json"]].concat());
        (code, serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}{said}")))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.world.path(name)
    }
}

#[test]
fn a_request_is_shown_with_the_name_of_its_secret_and_sent_unless_it_is_a_dry_run() {
    let desk = Desk::new("send");
    let port = desk.receiver.port;
    let (code, told, said) = desk.test(&["--dry-run"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("nothing is sent: each request is answered with status 200 and nothing in it"), "{said}");
    let shown =
        format!("request     POST http://127.0.0.1:{port}/hook?a=b\n            content-type: application/json\n");
    assert!(told.starts_with(&shown), "{told}");
    for part in [
        "            authorization: Bearer [secret token]\n",
        // The body as it was published, pretty-printed.
        "\n\n            {\n              \"event\": \"OrderCreated\",\n              \"order_id\": \"4711\",\n              \"id\": \"e-1\",\n              \
         \"total\": 1.50\n            }\n\n",
        "outcome     done\n",
        "reason      200\n",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert_eq!(desk.receiver.connections(), 0);

    let (_, report) = desk.json(&["--dry-run", "--repeat", "3"]);
    assert_eq!((&report["dry_run"], &report["attempts"]), (&json!(true), &json!(3)));
    let sent = report["sent"].as_array().unwrap();
    assert_eq!(sent.len(), 1, "of the first attempt");
    assert_eq!((&sent[0]["kind"], &sent[0]["method"]), (&json!("http"), &json!("POST")));
    assert_eq!(sent[0]["headers"][2], json!(["authorization", "Bearer [secret token]"]));
    assert_eq!(sent[0]["body"], r#"{"event":"OrderCreated","order_id":"4711","id":"e-1","total":1.50}"#);
    assert_eq!(desk.receiver.connections(), 0);

    // Without --dry-run the output is the same, but the answer is the receiver's.
    let (_, report) = desk.json(&[]);
    assert_eq!((&report["dry_run"], &report["reason"]), (&json!(false), &json!("422 nope")));
    assert_eq!(report["sent"][0]["url"], format!("http://127.0.0.1:{port}/hook?a=b"));
    assert_eq!(desk.receiver.connections(), 1);
    let (_, _, said) = desk.test(&["--dry-run", "--html", "no.html"]);
    assert!(said.contains("no mail with HTML was sent, and no.html not written"), "{said}");
}

#[test]
fn a_mail_is_shown_as_its_reader_sees_it_and_its_html_is_in_a_file() {
    let desk = Desk::new("mail");
    let (code, told, said) = desk.test(&["--dry-run"]);
    assert_eq!(code, 0, "{said}");
    assert!(told.starts_with("mail        to ann@example.com, bob@example.com\n"), "{told}");
    for part in [
        "            From: Bücher <shop@example.com>\n",
        "            To: ann@example.com, bob@example.com\n",
        "            Subject: Grüße aus dem Test\n",
        "\n\n            Grüße: e-1\n",
        "html        sender.html\n",
    ] {
        assert!(told.replace("\r\n", "\n").contains(part), "{part} in {told}");
    }
    let html = "<p>Grüße: e-1</p>";
    assert_eq!(fs::read_to_string(desk.file("sender.html")).unwrap(), html);

    let (_, report) = desk.json(&["--dry-run", "--html", "mail.html"]);
    let mail = &report["sent"][0];
    assert_eq!((&mail["kind"], &mail["html"], &mail["html_file"]), (&json!("mail"), &json!(html), &json!("mail.html")));
    assert_eq!(mail["recipients"], json!(["ann@example.com", "bob@example.com"]));
    assert_eq!(fs::read_to_string(desk.file("mail.html")).unwrap(), html);
    // A dry run counts as sent; the Message-ID is the one that the mail would have.
    assert!(report["reason"].as_str().is_some_and(|id| id.ends_with("@example.com>")), "{report}");
    assert_eq!(desk.receiver.connections(), 0);

    let (code, report) = desk.json(&[]);
    assert_eq!(code, 1, "a receiver that speaks no SMTP");
    assert_eq!(report["sent"][0]["kind"], "mail");
    assert!(desk.receiver.connections() > 0);
}
