//! A stand-in for a container: runs the program with the environment, files and user that its container would provide.
//!
//! Paths map to a folder of the test's own, and addresses to local stand-ins for other services. When the
//! tests run as root, the rest of the file system is read-only if the container says so, `/tmp` is private,
//! and no capability is left.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use tempfile::TempDir;
use testbed::{ChildGuard, free_port};

use crate::shipped::image::Image;
use crate::world::built;

/// Makes the file system read-only except for the folders before `--`, and runs the command after it.
const READ_ONLY: &str = r#"
    set -e
    while [ "$1" != -- ]; do mount --bind "$1" "$1"; shift; done
    shift
    mount -t tmpfs tmpfs /tmp
    mount -o remount,bind,ro /
    exec "$@"
"#;

pub(super) struct Container {
    folder: TempDir,
    pub(super) environment: BTreeMap<String, String>,
    user: u32,
    is_read_only: bool,
    writable: Vec<PathBuf>,
    /// Paths and addresses inside the container, each with its local replacement.
    here: Vec<(String, String)>,
    /// The local port of the program.
    pub(super) port: u16,
}

impl Container {
    pub(super) fn of(image: &Image) -> Self {
        let folder = tempfile::Builder::new().prefix("container-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let port = free_port();
        Self {
            folder,
            environment: image.environment.clone(),
            user: image.user,
            is_read_only: false,
            writable: Vec::new(),
            here: vec![(format!(":{}", image.port), format!(":{port}"))],
            port,
        }
    }

    pub(super) fn make_read_only(&mut self) {
        self.is_read_only = true;
    }

    /// Maps another service's address to a local one.
    pub(super) fn reach(&mut self, address: &str, here: String) {
        self.here.push((address.to_owned(), here));
    }

    /// Adds a file at this path, owned by root.
    pub(super) fn file(&mut self, path: &str, content: &str, mode: u32, group: u32) {
        let content = self.translate(content);
        let file = self.mount(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        if is_root() {
            chown(&file, Some(0), Some(group)).unwrap();
        }
    }

    /// Adds a writable folder at this path.
    pub(super) fn volume(&mut self, path: &str, mode: u32, owner: u32, group: u32) {
        let folder = self.mount(path);
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(mode)).unwrap();
        if is_root() {
            chown(&folder, Some(owner), Some(group)).unwrap();
        }
        self.writable.push(folder);
    }

    /// Maps a path to an existing folder.
    pub(super) fn bind(&mut self, folder: &Path, path: &str) {
        self.here.push((path.to_owned(), folder.display().to_string()));
    }

    /// Maps a path into the test's folder, and returns the local path.
    fn mount(&mut self, path: &str) -> PathBuf {
        let here = self.folder.path().join(path.trim_start_matches('/'));
        self.here.push((path.to_owned(), here.display().to_string()));
        here
    }

    /// Replaces paths and addresses by their local counterparts. Replacements are not translated again.
    pub(super) fn translate(&self, text: &str) -> String {
        let mut translated = String::new();
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            let known = self.here.iter().filter(|(there, _)| rest.starts_with(there.as_str()));
            if let Some((there, here)) = known.max_by_key(|(there, _)| there.len()) {
                translated.push_str(here);
                rest = &rest[there.len()..];
            } else {
                translated.push(next);
                rest = &rest[next.len_utf8()..];
            }
        }
        translated
    }

    pub(super) fn start(&self, line: &[String]) -> ChildGuard {
        ChildGuard::spawn(self.command(line))
    }

    /// Runs a command in the container to its end, as `docker exec` would.
    pub(super) fn run(&self, line: &[String]) -> Output {
        self.command(line).output().unwrap()
    }

    pub(super) fn command(&self, line: &[String]) -> Command {
        let (program, arguments) = line.split_first().unwrap();
        let program = match program.as_str() {
            "notify-host" => PathBuf::from(env!("CARGO_BIN_EXE_notify-host")),
            "order-cli" => built("NOTIFY_TEST_BIN", "order-cli"),
            other => panic!("the image has no program {other:?}"),
        };
        let mut command = if is_root() { self.confined() } else { Command::new(&program) };
        if is_root() {
            command.arg(&program);
        }
        command.args(arguments.iter().map(|argument| self.translate(argument)));
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.envs(self.environment.iter().map(|(name, value)| (name, self.translate(value))));
        // Lets a command in the container find the host without options.
        command.env("NOTIFY_ADMIN_URL", format!("http://127.0.0.1:{}", self.port));
        command
    }

    /// Returns a command that runs a program as the container's user, without capabilities, and
    /// read-only if requested.
    fn confined(&self) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        if self.is_read_only {
            command.args([READ_ONLY, "sh"]).args(&self.writable).arg("--");
        } else {
            command.args(["exec \"$@\"", "sh"]);
        }
        let user = self.user.to_string();
        command.args(["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups", "--no-new-privs"]);
        command.args(["--bounding-set=-all", "--inh-caps=-all", "--"]);
        command
    }
}

/// Stops the host by the signal that the file names. It must exit within the grace period.
pub(super) fn stop(host: &ChildGuard, signal: &str, grace: Duration) {
    assert_eq!(signal, "SIGTERM", "the tests know how to send that one");
    host.terminate();
    let status = host.wait_timeout(grace).unwrap_or_else(|| panic!("it runs on after {grace:?}: {}", host.stderr()));
    assert!(status.success(), "{status}: {}", host.stderr());
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}
