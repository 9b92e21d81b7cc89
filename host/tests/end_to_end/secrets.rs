//! A secret's value is visible only where it may be.

mod echo;
mod views;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use tempfile::TempDir;
use testbed::{ChildGuard, eventually, eventually_some};

use crate::assemble::Guest;
use crate::secrets::echo::Echo;
use crate::world::{Host, SOON, World, built};

const CANARY: &str = "canary/9dF1+K2=7q&xZ";
/// A signal that normally leaves a core dump.
const SEGMENTATION_FAULT: &str = "SEGV";

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
        // A compile cache for this test alone, so that all of it can be searched.
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

    /// Runs one attempt at an event, in the secret's folder.
    fn test(&self, name: &str, more: &[&str]) -> Output {
        let event = self.world.path("event.json");
        fs::write(&event, r#"{"event":"OrderCreated","order_id":"4711"}"#).unwrap();
        let wasm = self.world.plugins().join(format!("{name}.wasm"));
        let arguments = ["test", wasm.to_str().unwrap(), "--event", event.to_str().unwrap()];
        self.world.plugin_command(&[&arguments, more].concat())
    }

    /// Runs a command that reads the journal.
    fn journal(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_notify-host"));
        command.args(arguments).arg("--plugins").arg(self.world.plugins()).arg("--state").arg(self.world.path("state"));
        command.output().unwrap()
    }

    /// Returns the outcome and reason of an attempt.
    fn reason(&self, name: &str) -> String {
        let Output { stdout, stderr, .. } = self.test(name, &["--json"]);
        let report: serde_json::Value = serde_json::from_slice(&stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&stderr)));
        format!("{} {}", report["outcome"].as_str().unwrap(), report["reason"].as_str().unwrap_or_default())
    }
}

/// Returns the forms in which the canary must not appear.
fn forms() -> Vec<String> {
    let mut forms = vec![CANARY.to_owned(), "canary%2F9dF1%2BK2%3D7q%26xZ".to_owned(), format!("{CANARY:?}")];
    for before in ["", "a", "ab"] {
        let encoded = STANDARD_NO_PAD.encode(format!("{before}{CANARY}"));
        // Without the ends, which depend on the neighbouring bytes.
        forms.push(encoded[4..encoded.len() - 2].to_owned());
    }
    // Halves from a line cut within the value, and the reversed value, as the guest logs it to bypass redaction.
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

/// Checks every file below the folder, and returns their number.
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

    // Check both log formats.
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
    // The text before the value keeps its own base64 digits.
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
    let log = host.child_guard.stderr();
    assert!(log.matches("[secret token]").count() > 20, "{log}");
    assert_hidden("the log", log.as_bytes());

    let mut command = cage.world.host_command(&["run", "--log-format", "human", "--log-level", "trace"]);
    command.arg("--plugins").arg(cage.world.plugins());
    let host = Host { child_guard: ChildGuard::spawn(command) };
    host.wait_for("ready: ");
    cage.world.order(&["create", "--user", "u", "--product", "p"]);
    dead_letters(6);
    host.stop();
    assert!(host.logged("[secret token]"), "{}", host.child_guard.stderr());
    assert_hidden("the log for people", host.child_guard.stderr().as_bytes());

    // The output of the operator's commands.
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

    // The broker's file, the journal, the compiled code, and everything else that the host keeps.
    assert!(assert_hidden_below(cage.world.path("state").parent().unwrap()) > 10);

    // The value was in use: the receiver got it, and the signature is made with it.
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

    // The origin is granted to the plugin, but not to the secret.
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
    // A secret of another plugin.
    cage.plug_as("thief", &own.replace("[secrets.token]", "[secrets.other]"));
    let reason = cage.reason("thief");
    assert!(
        reason.starts_with("misconfigured the secret \"token\" is not granted: write [secrets.token] in"),
        "{reason}"
    );
    // Its own secret, which it may use but not see.
    cage.plug_as("curious", &cage.toml("tell", false, &origin));
    let reason = cage.reason("curious");
    assert!(reason.starts_with("misconfigured the secret token may be used and not seen: "), "{reason}");
    assert_eq!(cage.echo.requests().len(), 1, "nothing more was sent");
    // More handles than it may hold.
    cage.plug_as("hoarder", &cage.toml("hoard", false, &origin));
    let reason = cage.reason("hoarder");
    assert!(reason.contains("it holds more than its limit of 1024 handles"), "{reason}");
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
    assert!(host.logged("sender-send.toml:4: secrets.token"), "{}", host.child_guard.stderr());
    cage.world.order(&["create", "--user", "u", "--product", "p"]);
    eventually(SOON, "the old version sends", || !cage.echo.requests().is_empty());
    // The new version takes over once there is a value, though no file of the plugin changes.
    assert!(host.logged("version 0.1.0 goes on running; next try in "), "{}", host.child_guard.stderr());
    fs::write(&missing, "another-value-of-it").unwrap();
    host.wait_for("loaded anew");
    host.stop();
    fs::remove_file(&missing).unwrap();

    // A dry run sends nothing and needs no secret.
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
    assert!(!host.logged("another value") && !host.logged(CANARY), "{}", host.child_guard.stderr());
}

/// Starts a host in the world's folder, with the canary in its environment and unlimited core dumps.
fn host_with_canary(cage: &Cage) -> Host {
    let run = cage.world.host_command(&["run", "--log-format", "json"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -c unlimited; exec \"$@\"", "sh"]).arg(run.get_program()).args(run.get_args());
    shell.arg("--plugins").arg(cage.world.plugins()).env("CANARY", CANARY).current_dir(cage.world.path(""));
    let host = Host { child_guard: ChildGuard::spawn(shell) };
    host.wait_for("ready: ");
    host
}

#[test]
fn what_compiles_plugins_gets_nothing_of_the_hosts_environment() {
    let cage = Cage::new();
    cage.world.plug_logger();
    let host = host_with_canary(&cage);
    // The compiler never finishes this guest, so the test can inspect it.
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
            let is_child = status.lines().any(|line| line == format!("PPid:\t{}", host.child_guard.id()));
            let command = fs::read_to_string(process.join("cmdline")).ok()?;
            if is_child && command.contains("compile-plugin") { fs::read(process.join("environ")).ok() } else { None }
        })
    });
    assert_hidden("its environment", &environment);
    let environment = String::from_utf8(environment).unwrap();
    assert!(environment.contains("RAYON_NUM_THREADS=") && !environment.contains("PATH="), "{environment}");
    host.child_guard.kill();
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
    let limits = fs::read_to_string(format!("/proc/{}/limits", host.child_guard.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().rev().nth(1), Some("0"), "{core}");
    // Rust's handler takes the first signal, sees that the stack has not overflowed, and lets the next one through.
    eventually(SOON, "it is killed", || {
        let kill = [&format!("-{SEGMENTATION_FAULT}"), &host.child_guard.id().to_string()];
        Command::new("kill").args(kill).stderr(std::process::Stdio::null()).status().unwrap();
        host.child_guard.wait_timeout(Duration::from_millis(200)).is_some()
    });
    // None of the files in the folder is a core dump.
    assert!(assert_hidden_below(&cage.world.path("")) > 5);
    let dumps = fs::read_dir(cage.world.path("")).unwrap();
    let dumps = dumps.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("core"));
    assert_eq!(dumps.count(), 0);
}
