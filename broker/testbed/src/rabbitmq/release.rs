//! Selects the RabbitMQ release: the installed one, or RabbitMQ 4 in a folder of its own.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

/// Environment variable with the folder of `rabbitmq-server` and `rabbitmqctl`.
const SBIN_VARIABLE: &str = "NOTIFY_RABBITMQ_SBIN";
/// Environment variable with the root of a whole system that contains RabbitMQ 4;
/// `cargo xtask test` creates it.
pub const FOUR_VARIABLE: &str = "NOTIFY_TEST_RABBITMQ_4";

/// Folders where packages install RabbitMQ's programs: Debian, the official image, Homebrew.
const SBIN_PLACES: [&str; 3] =
    ["/opt/rabbitmq/sbin", "/opt/homebrew/opt/rabbitmq/sbin", "/usr/local/opt/rabbitmq/sbin"];
const DEBIAN: &str = "usr/lib/rabbitmq/lib";

/// The RabbitMQ release that a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The installed RabbitMQ, or the one in `NOTIFY_RABBITMQ_SBIN`.
    Installed,
    /// RabbitMQ 4, which runs with its system's folder as the root.
    Four,
}

/// Returns whether there is a server to start.
pub fn is_installed() -> bool {
    find_installed().is_some()
}

/// Returns whether this folder is a system that contains RabbitMQ.
pub fn is_system(folder: &Path) -> bool {
    find_below(folder).is_some()
}

impl Release {
    /// Creates a folder for a node's files, where the node can see it.
    pub(super) fn folder(self) -> TempDir {
        let mut builder = tempfile::Builder::new();
        builder.prefix("rabbitmq-");
        let folder = match self.root() {
            None => builder.tempdir(),
            Some(root) => builder.tempdir_in(root.join("tmp")),
        };
        folder.unwrap_or_else(|error| panic!("cannot make a temporary folder: {error}"))
    }

    /// Converts a path to the one that the node sees.
    pub(super) fn inside(self, path: &Path) -> PathBuf {
        match self.root().and_then(|root| path.strip_prefix(root).ok()) {
            Some(below) => Path::new("/").join(below),
            None => path.to_owned(),
        }
    }

    /// Creates a command for one of its programs.
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

    /// Returns the folder with RabbitMQ's own programs. The ones on the PATH do not work here:
    /// Debian's switch the user.
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
