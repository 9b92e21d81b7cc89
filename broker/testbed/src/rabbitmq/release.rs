//! Which RabbitMQ: the one that is installed, or RabbitMQ 4 in a folder of its own.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

/// Names the folder with `rabbitmq-server` and `rabbitmqctl`.
const SBIN_VARIABLE: &str = "NOTIFY_RABBITMQ_SBIN";
/// Names the folder of a whole system with RabbitMQ 4 in it, which `cargo xtask test` makes.
pub const FOUR_VARIABLE: &str = "NOTIFY_TEST_RABBITMQ_4";

/// Where packages put RabbitMQ's programs: Debian, the official image, Homebrew.
const SBIN_PLACES: [&str; 3] =
    ["/opt/rabbitmq/sbin", "/opt/homebrew/opt/rabbitmq/sbin", "/usr/local/opt/rabbitmq/sbin"];
const DEBIAN: &str = "usr/lib/rabbitmq/lib";

/// The RabbitMQ that a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// What is installed, or named by `NOTIFY_RABBITMQ_SBIN`.
    Installed,
    /// RabbitMQ 4, which runs with its system's folder for a root.
    Four,
}

/// Whether there is a server that could be started.
pub fn is_installed() -> bool {
    find_installed().is_some()
}

/// Whether this folder is a system with RabbitMQ in it.
pub fn is_system(folder: &Path) -> bool {
    find_below(folder).is_some()
}

impl Release {
    /// A folder for a node's files, where the node can see it.
    pub(super) fn folder(self) -> TempDir {
        let mut builder = tempfile::Builder::new();
        builder.prefix("rabbitmq-");
        let folder = match self.root() {
            None => builder.tempdir(),
            Some(root) => builder.tempdir_in(root.join("tmp")),
        };
        folder.unwrap_or_else(|error| panic!("cannot make a temporary folder: {error}"))
    }

    /// This path, as the node sees it.
    pub(super) fn inside(self, path: &Path) -> PathBuf {
        match self.root().and_then(|root| path.strip_prefix(root).ok()) {
            Some(below) => Path::new("/").join(below),
            None => path.to_owned(),
        }
    }

    /// One of its programs.
    pub(super) fn command(self, program: &str) -> Command {
        let program = self.sbin().join(program);
        let Some(root) = self.root() else { return Command::new(program) };
        let mut command = Command::new("chroot");
        command.arg(root).arg(self.inside(&program));
        command
    }

    fn root(self) -> Option<&'static Path> {
        static FOUR: OnceLock<PathBuf> = OnceLock::new();
        match self {
            Self::Installed => None,
            Self::Four => Some(FOUR.get_or_init(|| {
                let folder = env::var_os(FOUR_VARIABLE).map(PathBuf::from);
                folder.filter(|folder| is_system(folder)).unwrap_or_else(|| {
                    panic!("{FOUR_VARIABLE} names no system with RabbitMQ 4: run the tests by `cargo xtask test`")
                })
            })),
        }
    }

    /// The folder with RabbitMQ's own programs. Not the ones on the PATH: Debian's switch the user.
    fn sbin(self) -> PathBuf {
        let found = match self.root() {
            Some(root) => find_below(root),
            None => find_installed(),
        };
        found.unwrap_or_else(|| {
            panic!(
                "no RabbitMQ server to test against: run `apt-get install rabbitmq-server`, \
                 or name the folder of its programs in {SBIN_VARIABLE}"
            )
        })
    }
}

fn find_installed() -> Option<PathBuf> {
    match env::var_os(SBIN_VARIABLE).map(PathBuf::from) {
        Some(named) => newest([named]),
        None => newest(SBIN_PLACES.map(PathBuf::from)).or_else(|| find_below(Path::new("/"))),
    }
}

fn find_below(root: &Path) -> Option<PathBuf> {
    let versions = fs::read_dir(root.join(DEBIAN)).into_iter().flatten().flatten();
    newest(versions.map(|entry| entry.path().join("sbin")))
}

fn newest(places: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    places.into_iter().filter(|place| place.join(OsStr::new("rabbitmq-server")).is_file()).max()
}
