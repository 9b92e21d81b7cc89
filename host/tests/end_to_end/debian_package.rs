//! Installs the Debian package into a private Debian: an overlay on the one that `cargo xtask test` set up for
//! RabbitMQ 4. The overlay is invisible to other processes and disappears afterwards. The test needs root. The service
//! is started with the settings of its unit.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use tempfile::TempDir;
use testbed::{ChildGuard, eventually, rabbitmq};

use crate::service_manager::Manager;
use crate::world::{SOON, built};

const UNIT: &str = "/lib/systemd/system/notify-host.service";
/// The default of `drain-timeout`. Stop timeouts must be longer.
const DRAIN: Duration = Duration::from_secs(25);
const PROGRAM: &str = "/usr/bin/notify-host";
const CONFIG: &str = "/etc/notify-host/notify-host.toml";
/// Stands in for the dynamic user that systemd allocates.
const USER: &str = "65534";
const AS_USER: &str = "setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs";

/// A Debian system of the test's own.
struct Debian {
    /// Keeps the mounts alive.
    holder: ChildGuard,
    folder: TempDir,
}

impl Debian {
    fn new() -> Self {
        let below = env::var(rabbitmq::FOUR_VARIABLE).expect("run the tests by `cargo xtask test`, as root");
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        for name in ["upper", "work", "root", "shared"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        fs::copy(built("NOTIFY_TEST_PACKAGE", "notify-host.deb"), folder.path().join("upper/notify-host.deb")).unwrap();
        let layers = format!("lowerdir={below},upperdir={},workdir={}", path("upper"), path("work"));
        let script = "set -e; mount -t overlay overlay -o \"$1\" \"$2\"; mount -t proc proc \"$2/proc\"; \
            mount --bind /dev \"$2/dev\"; mount --bind \"$3\" \"$2/mnt\"; echo mounted; exec sleep infinity";
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            "sh",
            &layers,
            &path("root"),
            &path("shared"),
        ]);
        let holder = ChildGuard::spawn(command);
        eventually(SOON, "the layers are mounted", || {
            assert!(holder.wait_timeout(std::time::Duration::ZERO).is_none(), "{}", holder.stderr());
            holder.stdout().contains("mounted")
        });
        Self { holder, folder }
    }

    /// Returns a command that runs in this system, as the service's user or as root.
    fn command(&self, is_user: bool, line: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.holder.id().to_string(), "--mount", "--", "chroot"]);
        command.arg(self.folder.path().join("root"));
        if is_user {
            command.args(AS_USER.split(' '));
        }
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("NOTIFY_")) {
            command.env_remove(name);
        }
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/").env_remove("XDG_STATE_HOME").args(line);
        command
    }

    fn run(&self, line: &[&str]) -> Output {
        self.command(false, line).output().unwrap()
    }

    fn succeed(&self, line: &[&str]) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{line:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts the service from its unit and waits until it reports that it is ready.
    fn service(&self) -> Service<'_> {
        let unit = self.succeed(&["cat", UNIT]);
        let of = |key: &str| setting(&unit, key).to_owned();
        // The rest of this function relies on these values.
        assert_eq!((of("Type"), of("NotifyAccess"), of("KillMode")), ("notify".into(), "main".into(), "mixed".into()));
        assert_eq!((of("DynamicUser"), of("StateDirectory")), ("yes".into(), "notify-host".into()));
        let state = format!("/var/lib/{}", of("StateDirectory"));
        let mode = of("StateDirectoryMode");
        self.succeed(&["install", "--directory", "--owner", USER, "--group", USER, "--mode", &mode, &state]);
        let environment = of("EnvironmentFile").trim_start_matches('-').to_owned();
        assert!(!self.exists(&environment), "nothing ships for {environment}");

        let socket = self.folder.path().join("shared/notify.sock");
        let _ = fs::remove_file(&socket);
        let mut manager = Manager::at(socket.clone());
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).unwrap();
        // Set the limits first: only root may raise them, and not on every machine.
        let limits = format!("ulimit -c {} && {{ ulimit -n {} || true; }}", of("LimitCORE"), of("LimitNOFILE"));
        let script = format!("{limits} && umask {} && exec {AS_USER} {}", of("UMask"), of("ExecStart"));
        let mut command = self.command(false, &["sh", "-c", &script]);
        command.env("NOTIFY_SOCKET", "/mnt/notify.sock").env("STATE_DIRECTORY", &state);
        command.env("WATCHDOG_USEC", time(&of("WatchdogSec")).as_micros().to_string());
        let host = ChildGuard::spawn(command);
        manager.wait_long_for("READY=1", &host, time(&of("TimeoutStartSec")));
        manager.wait_long_for("STATUS=ready: consuming", &host, SOON);
        Service { debian: self, unit, host, manager }
    }

    fn exists(&self, path: &str) -> bool {
        self.run(&["test", "-e", path]).status.success()
    }

    /// Lists our files on the system, without dpkg's own records.
    fn of_ours(&self) -> Vec<String> {
        let found = self.succeed(&[
            "find",
            "/etc",
            "/lib",
            "/usr",
            "/var",
            "-name",
            "*notify-host*",
            "-not",
            "-path",
            "/var/lib/dpkg/*",
        ]);
        found.lines().map(str::to_owned).collect()
    }
}

/// Returns the value of a unit's setting, which must occur once.
fn setting<'u>(unit: &'u str, key: &str) -> &'u str {
    let mut values = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let value = values.next().unwrap_or_else(|| panic!("the unit has no {key}"));
    assert_eq!(values.next(), None, "{key}");
    value
}

/// Parses a systemd time span like `40s` or `5min`.
fn time(text: &str) -> Duration {
    let (number, unit) = text.split_at(text.find(|digit: char| !digit.is_ascii_digit()).unwrap());
    let seconds = if unit == "min" { 60 } else { 1 };
    assert!(["s", "min"].contains(&unit), "{text}: how long is that?");
    Duration::from_secs(number.parse::<u64>().unwrap() * seconds)
}

/// The running service.
struct Service<'d> {
    debian: &'d Debian,
    unit: String,
    host: ChildGuard,
    manager: Manager,
}

impl Service<'_> {
    /// Reloads it as `systemctl reload` does.
    fn reload(&self) {
        let line: Vec<_> = setting(&self.unit, "ExecReload").split_whitespace().collect();
        let reloaded = self.debian.command(true, &line).output().unwrap();
        assert!(reloaded.status.success(), "{reloaded:?}");
    }

    /// Stops it as `systemctl stop` does.
    fn stop(mut self) {
        let patience = time(setting(&self.unit, "TimeoutStopSec"));
        assert!(patience > DRAIN);
        self.host.terminate();
        let status = self.host.wait_timeout(patience).expect("it stops in time");
        assert!(status.success(), "{status}: {}", self.host.stderr());
        self.manager.wait_long_for("STOPPING=1", &self.host, SOON);
    }
}

#[test]
fn a_debian_package_installs_runs_keeps_what_is_the_operators_and_goes_without_a_trace() {
    let debian = Debian::new();
    debian.succeed(&["dpkg", "--install", "/notify-host.deb"]);
    assert_eq!(debian.succeed(&["dpkg-query", "--show", "--showformat", "${db:Status-Abbrev}", "notify-host"]), "ii ");
    assert_eq!(debian.succeed(&["dpkg", "--verify", "notify-host"]), "");
    let enabled = "/etc/systemd/system/multi-user.target.wants/notify-host.service";
    assert!(debian.run(&["test", "-L", enabled]).status.success(), "it is enabled");
    for page in ["notify-host.1", "notify-host-plugin-list.1", "order-cli.1"] {
        assert!(debian.exists(&format!("/usr/share/man/man1/{page}.gz")), "{page}");
    }

    // Like systemd, use an unprivileged user and a state folder of its own.
    let service = debian.service();
    let order = |subject: &str| {
        let line = ["order-cli", "--broker", "sqlite:/var/lib/notify-host/queue.db", "create", "--user", "u"];
        debian.succeed(&[&line[..], &["--product", "p", "--order-id", subject]].concat());
    };
    order("4711");
    eventually(SOON, "the logger tells of the order", || service.host.stderr().contains("4711"));
    service.reload();
    let list = debian.succeed(&[PROGRAM, "plugin", "list", "--config", CONFIG]);
    for (plugin, state) in [("chat", "disabled"), ("email", "disabled"), ("logger", "running"), ("webhook", "disabled")]
    {
        let line = list.lines().find(|line| line.starts_with(plugin));
        assert!(line.is_some_and(|line| line.contains(state)), "{list}");
    }
    let explained = debian.succeed(&[PROGRAM, "explain", "--subject", "4711", "--config", CONFIG]);
    assert!(explained.contains("logger: done"), "{explained}");
    service.stop();
    // Files that root's commands have opened still belong to the host's user.
    let service = debian.service();
    order("4712");
    eventually(SOON, "the logger tells of the next one", || service.host.stderr().contains("4712"));
    service.stop();

    // An upgrade keeps the settings and does not restore deleted files.
    debian.succeed(&["sh", "-c", &format!("echo '# mine' >> {CONFIG}; rm /etc/notify-host/plugins/chat.wasm")]);
    debian.succeed(&["dpkg", "--install", "--force-confold", "/notify-host.deb"]);
    assert!(debian.succeed(&["cat", CONFIG]).ends_with("# mine\n"));
    assert!(!debian.exists("/etc/notify-host/plugins/chat.wasm"));

    debian.succeed(&["dpkg", "--remove", "notify-host"]);
    assert!(!debian.exists(PROGRAM) && debian.exists(CONFIG) && debian.exists("/var/lib/notify-host/queue.db"));
    debian.succeed(&["sh", "-c", "echo x > /etc/notify-host/plugins/own.wasm"]);
    debian.succeed(&["dpkg", "--purge", "notify-host"]);
    assert_eq!(debian.of_ours(), ["/etc/notify-host"], "the operator's own plugin stays, and nothing else");
    assert_eq!(debian.succeed(&["find", "/etc/notify-host", "-type", "f"]), "/etc/notify-host/plugins/own.wasm\n");
}

#[test]
fn the_debian_packages_settings_are_good_and_its_files_are_not_for_others_to_write() {
    let package = built("NOTIFY_TEST_PACKAGE", "notify-host.deb");
    let folder = tempfile::tempdir().unwrap();
    let unpacked = Command::new("dpkg-deb").arg("--raw-extract").arg(package).arg(folder.path()).output().unwrap();
    assert!(unpacked.status.success(), "{unpacked:?}");
    let mut open = Vec::new();
    walk(folder.path(), &mut |path| {
        let mode = fs::symlink_metadata(path).unwrap().permissions().mode();
        if mode & 0o022 != 0 && !path.is_symlink() {
            open.push(path.to_owned());
        }
    });
    assert_eq!(open, Vec::<PathBuf>::new());
    let scripts = ["postinst", "prerm", "postrm"].map(|script| folder.path().join("DEBIAN").join(script));
    for script in scripts {
        assert!(Command::new("sh").arg("-n").arg(&script).status().unwrap().success(), "{}", script.display());
    }
}

fn walk(folder: &Path, visit: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        visit(&path);
        if path.is_dir() && !path.is_symlink() {
            walk(&path, visit);
        }
    }
}

#[test]
fn the_debian_package_holds_what_the_documents_speak_of() {
    let package = built("NOTIFY_TEST_PACKAGE", "notify-host.deb");
    let listed = Command::new("dpkg-deb").arg("--contents").arg(package).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    for path in [
        "/usr/bin/notify-host",
        "/usr/bin/order-cli",
        "/etc/notify-host/notify-host.toml",
        "/usr/share/notify-host/plugins/email.wasm",
        "/usr/share/doc/notify-host/operating.md",
        "/usr/share/doc/notify-host/examples/alerts.yml",
        "/usr/share/doc/notify-host/examples/notify-host.json",
    ] {
        assert!(listed.contains(path), "{path}: {listed}");
    }
}
