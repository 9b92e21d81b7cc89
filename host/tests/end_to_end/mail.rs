//! Mail from order-cli through the host to a real relay (aiosmtpd), parsed by Python's own parser.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use testbed::receiver::{Authority, Identity, signing_key};
use testbed::{ChildGuard, eventually, eventually_some, free_port};

use crate::on_both_engines;
use crate::world::{Host, SOON, World, built};

const LOGIN: &str = "shop:wörd pass";
/// Retries fast enough for a test, with a breaker that stays closed until the relay is back.
const PATIENT: &str = "[retry]\npause-min = \"1s\"\npause-max = \"1s\"\nattempts = 100\n[breaker]\ncalls = 1000\n";

/// A relay that can be killed and restarted on the same port.
pub(crate) struct Relay {
    port: u16,
    authority: Authority,
    identity: PathBuf,
}

impl Relay {
    /// Creates a relay with a certificate for this host name. `mail` goes into the host's file below `[mail]`.
    fn new(world: &World, host: &str, mail: &str) -> Self {
        let authority = Authority::new();
        let identity = world.path("relay.pem");
        fs::write(&identity, authority.issue(host).pem()).unwrap();
        fs::write(world.path("authority.pem"), authority.pem()).unwrap();
        fs::write(world.path("password"), format!("{}\n", LOGIN.split_once(':').unwrap().1)).unwrap();
        let relay = Self { port: free_port(), authority, identity };
        let toml = fs::read_to_string(world.path("host.toml")).unwrap();
        let more = format!(
            "[egress]\nca = [\"authority.pem\"]\n[mail]\nfrom = \"Büro „Süd“ <shop@example.com>\"\n{}",
            mail.replace("PORT", &relay.port.to_string())
        );
        fs::write(world.path("host.toml"), toml + &more).unwrap();
        relay
    }

    /// Creates the usual relay, with STARTTLS and a login.
    pub(crate) fn usual(world: &World) -> Self {
        let login = "username = \"shop\"\n[mail.password]\nfile = \"password\"\n";
        Self::new(world, "localhost", &format!("relay = \"smtp://localhost:PORT\"\n{login}"))
    }

    fn start(&self, arguments: &[&str]) -> ChildGuard {
        let python = std::env::var_os("NOTIFY_TEST_PYTHON");
        let python = python.expect("NOTIFY_TEST_PYTHON is not set: run the tests by `cargo xtask test`");
        let mut command = Command::new(python);
        command.arg(format!("{}/tests/mail/relay.py", env!("CARGO_MANIFEST_DIR")));
        command.args(["--port", &self.port.to_string()]).args(arguments);
        let relay = ChildGuard::spawn(command);
        eventually(SOON, "the relay is ready", || {
            assert!(relay.wait_timeout(std::time::Duration::ZERO).is_none(), "{}", relay.stderr());
            relay.stdout().contains("ready")
        });
        relay
    }

    pub(crate) fn start_usual(&self, arguments: &[&str]) -> ChildGuard {
        let identity = self.identity.display().to_string();
        self.start(&[&["--identity", &identity, "--login", LOGIN], arguments].concat())
    }
}

/// Returns the mails that a relay has accepted so far.
fn mails(relay: &ChildGuard) -> Vec<Value> {
    said(relay).into_iter().filter(|line| line.get("mail").is_some()).collect()
}

fn said(relay: &ChildGuard) -> Vec<Value> {
    relay.stdout().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn wait_for_mails(relay: &ChildGuard, host: &Host, count: usize) -> Vec<Value> {
    eventually_some(SOON, &format!("{count} mails"), || Some(mails(relay)).filter(|mails| mails.len() >= count));
    let mails = mails(relay);
    assert_eq!(mails.len(), count, "{}\n{}", relay.stderr(), host.child_guard.stderr());
    mails
}

pub(crate) fn plug_email(world: &World, toml: &str) {
    let toml = format!("{PATIENT}[grants]\nmail = [\"*@example.com\", \"*@bücher.example\"]\n[config]\n{toml}");
    world.plug("email", &built("NOTIFY_TEST_PLUGINS", "email.wasm"), &toml);
}

pub(crate) fn publish(world: &World, events: &[Value]) {
    let file = world.path("events.jsonl");
    let lines = events.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    fs::write(&file, lines).unwrap();
    world.order(&["send", &file.display().to_string()]);
}

pub(crate) fn order(number: usize, email: &str) -> Value {
    json!({"event": "OrderCreated", "event_id": format!("e{number}"), "order_id": number.to_string(), "product": "iPhone 15", "email": email})
}

/// Returns the reasons of the dead letters by order number.
fn dead_letters(world: &World, count: usize) -> BTreeMap<String, String> {
    let letters = world.dead_letters(&world.broker(), count);
    letters
        .into_iter()
        .map(|letter| {
            let data: Value = serde_json::from_slice(&letter.message.body).unwrap();
            let headers = &letter.message.properties.headers;
            let text = |name: &str| headers.get(name).and_then(broker::Value::to_text).unwrap_or_default().clone();
            (
                data["order_id"].as_str().unwrap().to_owned(),
                format!("{}: {}", text("x-notify-given-up"), text("x-notify-reason")),
            )
        })
        .collect()
}

on_both_engines! {
    fn an_event_becomes_a_mail_as_it_was_meant(world: &World) {
        let relay = Relay::usual(world);
        plug_email(
            world,
            "to = \"{{ data.name }} <{{ data.email }}>\"\nbcc = \"archive@example.com\"\nreply-to = \"Hilfe <help@example.com>\"\n\
             subject = \"Bestellung {{ data.order_id }}: {{ data.product }}\"\nattach-event = true\n\
             headers = { List-Unsubscribe = \"<https://example.com/u/{{ data.user_id }}>\", X-Order = \"{{ data.order_id }}\" }\n",
        );
        let server = relay.start_usual(&[]);
        let host = world.host();
        let product = format!("Bücherregal „Eiche“ 📚 {}", "x".repeat(3000));
        let event = json!({"event": "OrderCreated", "order_id": "4711", "user_id": "user123", "product": product,
            "name": "Jürgen, der Große", "email": "juergen@bücher.example"});
        publish(world, std::slice::from_ref(&event));
        let mail = wait_for_mails(&server, &host, 1).remove(0);
        host.stop();
        let subject = mail["subject"].as_str().unwrap();
        assert!(subject.starts_with("Bestellung 4711: Bücherregal „Eiche“ 📚 xxx") && subject.ends_with("x…"), "{subject}");
        assert_eq!(mail["from"], json!([["Büro „Süd“", "shop@example.com"]]));
        assert_eq!(mail["to"], json!([["Jürgen, der Große", "juergen@xn--bcher-kva.example"]]));
        assert_eq!(mail["envelope_from"], "shop@example.com");
        assert_eq!(mail["envelope_to"], json!(["archive@example.com", "juergen@xn--bcher-kva.example"]));
        assert_eq!((&mail["tls"], &mail["user"]), (&json!(true), &json!("shop")));
        assert_eq!(mail["hello"], "example.com");
        let headers: BTreeMap<String, String> =
            serde_json::from_value::<Vec<(String, String)>>(mail["headers"].clone()).unwrap().into_iter().collect();
        assert!(!headers.contains_key("Bcc"), "{headers:?}");
        assert_eq!(headers["Auto-Submitted"], "auto-generated");
        assert_eq!(headers["List-Unsubscribe"], "<https://example.com/u/user123>");
        assert_eq!(headers["Reply-To"], "Hilfe <help@example.com>");
        assert!(headers.contains_key("Date") && headers["Message-ID"].ends_with("@example.com>"), "{headers:?}");
        assert!(mail["text"].as_str().unwrap().contains(&format!("\nProduct: {}", &product[..500])), "{mail}");
        let html = mail["html"].as_str().unwrap();
        assert!(html.starts_with("<!doctype html>") && html.contains("Bücherregal „Eiche“ 📚"), "{html}");
        let attachment = &mail["attachments"][0];
        assert_eq!((&attachment[0], &attachment[1]), (&json!("event.json"), &json!("application/json")));
        assert_eq!(serde_json::from_str::<Value>(attachment[2].as_str().unwrap()).unwrap(), event, "as it came");
        assert!(mail["is_ascii"] == true && mail["longest_line"].as_u64().unwrap() <= 998, "{mail}");
    }

    fn nothing_is_lost_or_sent_twice_while_the_relay_is_away(world: &World) {
        let relay = Relay::usual(world);
        plug_email(world, "");
        let host = world.host();
        publish(world, &(0..20).map(|number| order(number, &format!("u{number}@example.com"))).collect::<Vec<_>>());
        host.wait_for("failed while the host connected to it");
        let server = relay.start_usual(&[]);
        let before = wait_for_mails(&server, &host, 20);
        drop(server);
        publish(world, &(20..30).map(|number| order(number, &format!("u{number}@example.com"))).collect::<Vec<_>>());
        let server = relay.start_usual(&[]);
        let after = wait_for_mails(&server, &host, 10);
        host.stop();
        let ids: std::collections::BTreeSet<_> = before.iter().chain(&after).map(|mail| mail["mail"].to_string()).collect();
        assert_eq!(ids.len(), 30, "each once, with a Message-ID of its own");
        assert_eq!(mails(&server).len(), 10);
    }
}

#[test]
fn a_mail_that_was_under_way_when_the_relay_died_comes_again_with_its_message_id() {
    let world = World::on_sqlite();
    let relay = Relay::usual(&world);
    plug_email(&world, "");
    let server = relay.start_usual(&["--hold"]);
    let host = world.host();
    publish(&world, &[order(1, "held@example.com")]);
    let held = || said(&server).into_iter().find(|line| line["talk"] == "held").map(|line| line["message_id"].clone());
    let id = eventually_some(SOON, "the relay holds the mail", held);
    server.kill();
    let server = relay.start_usual(&[]);
    let mail = wait_for_mails(&server, &host, 1).remove(0);
    assert_eq!(mail["mail"], id);
    assert!(host.logged("it was given the mail (DATA)"), "{}", host.child_guard.stderr());
    host.stop();
}

#[test]
fn a_call_that_is_cut_off_leaves_no_connection_to_the_next_mail() {
    let world = World::on_sqlite();
    let relay = Relay::usual(&world);
    let toml = "[limits]\ntime = \"1s\"\nconcurrency = 1\n[retry]\nattempts = 1\n[breaker]\ncalls = 1000\n\
                [grants]\nmail = [\"*@example.com\"]\n";
    world.plug("email", &built("NOTIFY_TEST_PLUGINS", "email.wasm"), toml);
    let server = relay.start_usual(&["--hold"]);
    let host = world.host();
    publish(&world, &[order(1, "first@example.com")]);
    wait_for_mails(&server, &host, 1);
    publish(&world, &[order(2, "held@example.com")]);
    let letters = dead_letters(&world, 1);
    assert!(letters["2"].contains("the time ran out while it was given the mail (DATA)"), "{letters:?}");
    publish(&world, &[order(3, "last@example.com")]);
    let mails = wait_for_mails(&server, &host, 2);
    assert_eq!(mails[1]["envelope_to"], json!(["last@example.com"]));
    host.stop();
}

#[test]
fn what_the_relay_says_no_to_ends_as_what_it_says() {
    let world = World::on_sqlite();
    let relay = Relay::usual(&world);
    plug_email(&world, "to = [\"{{ data.email }}\", \"{{ data.other }}\"]\n");
    let server = relay.start_usual(&["--busy", "2"]);
    let host = world.host();
    let mut several = order(1, "ann@example.com");
    several["other"] = json!("nobody@example.com");
    let events = [
        several,
        order(2, "full@example.com"),
        order(3, "greylisted@example.com"),
        order(4, "eve@elsewhere.example"),
        order(5, "no address"),
        json!({"event": "OrderCreated", "event_id": "e6", "order_id": "6", "product": "p"}),
        order(7, "bob@example.com"),
    ];
    publish(&world, &events);
    let letters = dead_letters(&world, 5);
    for (number, expected) in [
        ("1", "refused the recipient nobody@example.com (550 5.1.1 no such user); the others were not sent it, either"),
        ("2", "refused the mail: 552 5.2.2 mailbox full"),
        ("4", "the recipient eve@elsewhere.example is not granted to this plugin: add \"eve@elsewhere.example\" or"),
        ("5", "\"no address\" is no mail address"),
        ("6", "the event has no address for it"),
    ] {
        assert!(letters[number].contains(expected), "{number}: {expected} in {letters:?}");
    }
    let mails = wait_for_mails(&server, &host, 2);
    let mut to: Vec<_> = mails.iter().map(|mail| mail["envelope_to"].clone()).collect();
    to.sort_by_key(Value::to_string);
    assert_eq!(to, [json!(["bob@example.com"]), json!(["greylisted@example.com"])], "nobody else got anything");
    assert!(!host.logged("paused"), "an event's fault stops no other mail: {}", host.child_guard.stderr());
    host.stop();
}

#[test]
fn no_event_can_add_a_header_or_a_recipient() {
    let world = World::on_sqlite();
    let relay = Relay::usual(&world);
    plug_email(
        &world,
        "to = \"{{ data.name }} <{{ data.email }}>\"\nsubject = \"{{ data.product }}\"\nheaders = { X-User = \"{{ data.user_id }}\" }\n",
    );
    let server = relay.start_usual(&[]);
    let host = world.host();
    let evil = "x\r\nBcc: eve@example.com\r\n\r\nbody";
    let event = |number: usize, key: &str, value: &str| {
        let mut event = order(number, "ann@example.com");
        event["name"] = json!("Ann");
        event["user_id"] = json!("user");
        event[key] = json!(value);
        event
    };
    let events = [
        event(1, "email", "ann@example.com\r\nRCPT TO:<eve@example.com>"),
        event(2, "name", evil),
        event(3, "email", "ann@example.com, eve@example.com"),
        event(4, "email", "a> <eve@elsewhere.example"),
        event(5, "product", evil),
        event(6, "user_id", evil),
    ];
    publish(&world, &events);
    let letters = dead_letters(&world, 4);
    assert_eq!(letters.keys().collect::<Vec<_>>(), ["1", "2", "3", "4"], "{letters:?}");
    for mail in wait_for_mails(&server, &host, 2) {
        assert_eq!(mail["envelope_to"], json!(["ann@example.com"]));
        let names: Vec<_> =
            mail["headers"].as_array().unwrap().iter().map(|header| header[0].as_str().unwrap()).collect();
        assert!(!names.contains(&"Bcc"), "{mail}");
        assert!(!mail["text"].as_str().unwrap().starts_with("body"), "{mail}");
    }
    host.stop();
}

#[test]
fn a_wrong_password_pauses_the_plugin_and_keeps_its_events() {
    let world = World::on_sqlite();
    let relay = Relay::usual(&world);
    plug_email(&world, "");
    let server = relay.start_usual(&[]);
    fs::write(world.path("password"), "a wrong one").unwrap();
    let host = world.host();
    publish(&world, &[order(1, "ann@example.com")]);
    host.wait_for("does not accept the host's login (535");
    host.wait_for("paused: it says that it is misconfigured");
    // The relay echoes the login, and the host must not repeat it.
    assert!(host.logged("535 5.7.8 not [secret mail.password], nor c2hvcD"), "{}", host.child_guard.stderr());
    assert!(!host.logged("wörd") && !host.logged("wrong one"), "{}", host.child_guard.stderr());
    // The password is read again for each connection.
    fs::write(world.path("password"), LOGIN.split_once(':').unwrap().1).unwrap();
    let resumed = world.plugin_command(&["resume", "email"]);
    assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
    wait_for_mails(&server, &host, 1);
    host.stop();
}

#[test]
fn nothing_is_sent_over_a_connection_that_is_not_safe() {
    let world = World::on_sqlite();
    let relay = Relay::usual(&world);
    plug_email(&world, "");
    let host = world.host();
    publish(&world, &[order(1, "ann@example.com")]);
    let identity = relay.identity.display().to_string();
    // Each of these takes the relay's place in turn.
    let other = |name: &str, identity: &Identity| {
        let file = world.path(name);
        fs::write(&file, identity.pem()).unwrap();
        file.display().to_string()
    };
    for (arguments, expected) in [
        (vec!["--identity", &identity, "--hide-starttls"], "does not offer STARTTLS, and nothing is sent unencrypted"),
        (
            vec!["--identity", &other("unknown.pem", &Identity::self_signed("localhost"))],
            "became a TLS one (STARTTLS): invalid peer certificate",
        ),
        (
            vec!["--identity", &other("name.pem", &relay.authority.issue("other.example"))],
            "certificate not valid for name \\\"localhost\\\"",
        ),
        (vec!["--identity", &other("expired.pem", &relay.authority.issue_expired("localhost"))], "certificate expired"),
    ] {
        let server = relay.start(&arguments);
        eventually(SOON, &format!("{expected} in\n{}", host.child_guard.stderr()), || host.logged(expected));
        assert!(said(&server).iter().all(|line| line["talk"] == "ready"), "{}", server.stdout());
    }
    let server = relay.start_usual(&[]);
    wait_for_mails(&server, &host, 1);
    host.stop();
}

#[test]
fn tls_from_the_start_and_none_at_all_work_where_the_operator_says_so() {
    for (mail, arguments) in [
        ("relay = \"smtps://localhost:PORT\"\n", &["--implicit", "--identity"][..]),
        ("relay = \"smtp://localhost:PORT\"\ntls = \"none\"\n", &[]),
    ] {
        let world = World::on_sqlite();
        let relay = Relay::new(&world, "localhost", mail);
        plug_email(&world, "");
        let identity = relay.identity.display().to_string();
        let mut arguments = arguments.to_vec();
        if !arguments.is_empty() {
            arguments.push(&identity);
        }
        let server = relay.start(&arguments);
        let host = world.host();
        publish(&world, &[order(1, "ann@example.com"), order(2, "bob@example.com")]);
        wait_for_mails(&server, &host, 2);
        host.stop();
    }
}

#[test]
fn a_mail_is_signed_so_that_others_can_verify_it() {
    for (kind, is_rsa) in [("rsa", true), ("ed25519", false)] {
        let world = World::on_sqlite();
        let (private, public) = signing_key(is_rsa);
        fs::write(world.path("dkim.pem"), private).unwrap();
        let dkim = "relay = \"smtp://localhost:PORT\"\ntls = \"none\"\n\
                    [mail.dkim]\ndomain = \"example.com\"\nselector = \"s1\"\nkey = \"dkim.pem\"\n";
        let relay = Relay::new(&world, "localhost", dkim);
        plug_email(&world, "attach-event = true\nheaders = { X-Long = \"{{ data.product }}\" }\n");
        let server = relay.start(&["--dkim", &public, "--dkim-kind", kind]);
        let host = world.host();
        let mut event = order(1, "ann@example.com");
        event["product"] = json!(format!("Bücherregal  „Eiche“ {}", "sehr schön ".repeat(20)));
        publish(&world, &[event]);
        let mail = wait_for_mails(&server, &host, 1).remove(0);
        assert_eq!(mail["dkim"], true, "{kind}: {mail}\n{}", server.stderr());
        host.stop();
    }
}

#[test]
fn what_inspect_prints_to_be_written_works() {
    let world = World::on_sqlite();
    let relay = Relay::usual(&world);
    let wasm = built("NOTIFY_TEST_PLUGINS", "email.wasm");
    let printed = world.plugin_command(&["inspect", &wasm.display().to_string()]);
    let printed = String::from_utf8(printed.stdout).unwrap();
    let (_, toml) = printed.split_once("\n[grants]").unwrap();
    // As its comment says, uncomment every setting.
    let lines = toml.lines().map(|line| line.strip_prefix("# ").filter(|rest| rest.contains(" = ")).unwrap_or(line));
    world.plug("email", &wasm, &format!("[grants]{}\n", lines.collect::<Vec<_>>().join("\n")));
    let server = relay.start_usual(&[]);
    let host = world.host();
    publish(&world, &[order(1, "ann@example.com")]);
    let mail = wait_for_mails(&server, &host, 1).remove(0);
    assert_eq!(mail["subject"], "Thank you for your order (1)");
    assert!(mail["html"].as_str().unwrap().contains("iPhone 15"), "{mail}");
    host.stop();
}

#[test]
fn a_host_without_a_relay_says_what_to_write() {
    let world = World::on_sqlite();
    plug_email(&world, "");
    let host = world.host();
    publish(&world, &[order(1, "ann@example.com")]);
    host.wait_for("this host has no mail relay: write [mail] with relay and from into the host's file");
    host.wait_for("paused: it says that it is misconfigured");
    host.stop();
}
