//! A reaper is a tiny shell that outlives the test process for a moment and cleans up after it.
//!
//! It blocks on a pipe whose other end only the test process holds. Any end of the test process (return,
//! panic, SIGKILL) closes the pipe. The reaper then kills a process group and removes a folder.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

/// `$1` is the process group, `$2` the folder. A dying process may still be writing, hence the
/// second try. The line on stdout tells that the reaper is ready.
const SCRIPT: &str = r#"
echo ready
read -r _
kill -s KILL -- "-$1" 2>/dev/null
rm -rf -- "$2" 2>/dev/null || { sleep 1; rm -rf -- "$2"; }
"#;

#[derive(Debug)]
pub(crate) struct Reaper {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Reaper {
    /// Starts a reaper, and returns once it is ready.
    pub(crate) fn over(process_group: u32, folder: &Path) -> Self {
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "reaper", &process_group.to_string()])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C on a terminal goes to the test process's group, but not to the reaper.
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start sh, which cleans up after tests: {error}"));
        let pipe = shell.stdin.take();
        if let Some(mut ready) = shell.stdout.take() {
            let mut line = [0; 6];
            ready.read_exact(&mut line).unwrap_or_else(|error| panic!("the reaper did not start: {error}"));
        }
        Self { shell, pipe }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        drop(self.pipe.take());
        // Otherwise the next test could find leftovers of this one.
        let _ = self.shell.wait();
    }
}
