//! A guard for a child process, which is killed with the guard or with the test process.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::reaper::Reaper;

const WAIT_INTERVAL: Duration = Duration::from_millis(5);

/// A child process and its descendants, in their own process group. Dropping the guard kills them.
#[derive(Debug)]
pub struct ChildGuard {
    name: String,
    id: u32,
    child: Mutex<Child>,
    // Dropped in this order: the reaper kills and removes, so the folder has nothing left to do.
    _reaper: Reaper,
    folder: TempDir,
}

impl ChildGuard {
    /// Starts the command with empty standard input. Standard output and standard error are
    /// captured, see [`Self::stdout`] and [`Self::stderr`].
    pub fn spawn(command: Command) -> Self {
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("cannot make a temporary folder: {error}"));
        Self::spawn_in(command, folder)
    }

    /// Like [`Self::spawn`], but sends standard error to the given place instead of capturing it.
    pub fn spawn_with_stderr(command: Command, stderr: impl Into<Stdio>) -> Self {
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("cannot make a temporary folder: {error}"));
        Self::start(command, folder, Some(stderr.into()))
    }

    /// Like [`Self::spawn`], in a folder that is removed with the child.
    pub(crate) fn spawn_in(command: Command, folder: TempDir) -> Self {
        Self::start(command, folder, None)
    }

    fn start(mut command: Command, folder: TempDir, stderr: Option<Stdio>) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let output = |file| {
            let path = folder.path().join(file);
            File::create(&path).unwrap_or_else(|error| panic!("cannot create {}: {error}", path.display()))
        };
        let stderr = stderr.unwrap_or_else(|| output("stderr").into());
        command.stdin(Stdio::null()).stdout(output("stdout")).stderr(stderr).process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let id = child.id();
        let reaper = Reaper::over(id, folder.path());
        Self { name, id, child: Mutex::new(child), _reaper: reaper, folder }
    }

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Returns what the child has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.output("stdout")
    }

    /// Returns what the child has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.output("stderr")
    }

    /// Returns the file that captures standard error, for tests that follow a long one.
    pub fn stderr_file(&self) -> PathBuf {
        self.folder.path().join("stderr")
    }

    /// Kills the child and its descendants with SIGKILL, and waits until the child is gone.
    pub fn kill(&self) {
        signal("KILL", &format!("-{}", self.id));
        let _ = self.child().wait();
    }

    /// Asks the child to end, with SIGTERM. Its descendants get no signal.
    pub fn terminate(&self) {
        if self.wait_timeout(Duration::ZERO).is_none() {
            signal("TERM", &self.id.to_string());
        }
    }

    /// Sends a signal such as `ABRT` to the child only.
    pub fn send(&self, name: &str) {
        signal(name, &self.id.to_string());
    }

    /// Waits until the child has ended by itself; `None` if that takes longer than `timeout`.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<ExitStatus> {
        let started = Instant::now();
        loop {
            let status = self.child().try_wait();
            let status = status.unwrap_or_else(|error| panic!("cannot wait for {}: {error}", self.name));
            if status.is_some() || started.elapsed() >= timeout {
                return status;
            }
            sleep(WAIT_INTERVAL);
        }
    }

    fn output(&self, file: &str) -> String {
        let bytes = fs::read(self.folder.path().join(file)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal through the shell's own `kill`: the program is not installed everywhere, and the
/// system call is unsafe.
fn signal(name: &str, target: &str) {
    // A process that is already gone is fine too.
    let _ =
        Command::new("sh").args(["-c", r#"kill -s "$1" -- "$2""#, "kill", name, target]).stderr(Stdio::null()).status();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventually_some;

    const SOON: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> ChildGuard {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        ChildGuard::spawn(command)
    }

    fn alive(id: &str) -> bool {
        Command::new("sh").args(["-c", r#"kill -0 "$1" 2>/dev/null"#, "alive", id]).status().unwrap().success()
    }

    #[test]
    fn what_a_child_writes_can_be_read() {
        let child = shell("echo out; echo err >&2; exit 3");
        assert_eq!(child.wait_timeout(SOON).unwrap().code(), Some(3));
        assert_eq!((child.stdout().as_str(), child.stderr().as_str()), ("out\n", "err\n"));
    }

    #[test]
    fn a_child_can_be_asked_to_end() {
        let child = shell("trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done");
        eventually_some(SOON, "the trap is set", || child.stdout().contains("ready").then_some(()));
        assert!(child.wait_timeout(Duration::ZERO).is_none());
        child.terminate();
        assert_eq!(child.wait_timeout(SOON).unwrap().code(), Some(7));
    }

    #[test]
    fn dropping_the_leash_kills_the_descendants_too() {
        let child = shell("sleep 1000 & echo $!; wait");
        let descendant = eventually_some(SOON, "the descendant", || child.stdout().lines().next().map(str::to_owned));
        assert!(alive(&descendant));
        drop(child);
        crate::eventually(SOON, "the descendant is gone", || !alive(&descendant));
    }

    /// The inner half runs only as a child of the outer one.
    #[test]
    fn a_child_dies_with_a_test_process_that_is_killed() {
        const INNER: &str = "TESTBED_INNER";
        if std::env::var_os(INNER).is_some() {
            let child = shell("sleep 1000");
            println!("leashed {} {}", child.id(), child.folder.path().display());
            loop {
                sleep(SOON);
            }
        }
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child_guard::tests::a_child_dies_with_a_test_process_that_is_killed", "--nocapture"]);
        command.env(INNER, "1");
        let process = ChildGuard::spawn(command);
        let (id, folder) = eventually_some(SOON, "the inner child", || {
            let text = process.stdout();
            let line = text.split_inclusive('\n').find_map(|line| line.split_once("leashed ")?.1.strip_suffix('\n'))?;
            line.split_once(' ').map(|(id, folder)| (id.to_owned(), folder.to_owned()))
        });
        assert!(alive(&id));
        process.kill();
        crate::eventually(SOON, "the inner child is gone", || !alive(&id));
        crate::eventually(SOON, "its folder is gone", || !fs::exists(&folder).unwrap());
    }
}
