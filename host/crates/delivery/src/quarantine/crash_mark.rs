//! Leaves a crash mark when a signal that program faults raise ends the process, and says which signal it was.
//!
//! A kill from outside leaves no mark: SIGKILL, a power failure and `process::exit` run no handler. The next
//! start can therefore tell a crash from a kill. Rust ends a stack overflow, a failed allocation and a panic
//! within a panic with one of these signals.

use std::fs::File;
use std::os::fd::{AsRawFd as _, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use libc::{SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, c_int, c_void, sigaction, siginfo_t};

const SIGNALS: [c_int; 5] = [SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE];
const NO_FILE: RawFd = -1;

/// The file that the handler writes to. A handler may only use async-signal-safe operations, which rules out
/// locks and memory allocation.
static FILE: AtomicI32 = AtomicI32::new(NO_FILE);
/// The previous action of each of [`SIGNALS`].
static FORMER: [OnceLock<sigaction>; SIGNALS.len()] = [const { OnceLock::new() }; SIGNALS.len()];

/// Makes a crash leave its mark at the beginning of this file, until the returned value is dropped.
pub(super) fn into(file: &File) -> Marking {
    FILE.store(file.as_raw_fd(), Ordering::Release);
    for (signal, former) in SIGNALS.into_iter().zip(&FORMER) {
        install(signal, former);
    }
    Marking(())
}

/// Crashes leave marks for as long as this lives. The file must live longer.
#[derive(Debug)]
pub(crate) struct Marking(());

impl Drop for Marking {
    fn drop(&mut self) {
        FILE.store(NO_FILE, Ordering::Release);
    }
}

/// Returns the name of the signal in a marked file, or `None` if there is no mark.
pub(super) fn read(content: &[u8]) -> Option<&'static str> {
    let signal = c_int::from(*content.first()?);
    Some(match signal {
        SIGABRT => "SIGABRT",
        SIGSEGV => "SIGSEGV",
        SIGBUS => "SIGBUS",
        SIGILL => "SIGILL",
        SIGFPE => "SIGFPE",
        _ => "a signal",
    })
}

#[expect(unsafe_code, reason = "no crate in the tree sets handlers of these signals and keeps what was there before")]
fn install(signal: c_int, former: &OnceLock<sigaction>) {
    if former.get().is_some() {
        return;
    }
    // SAFETY: both are plain structs for which all zeroes are valid, and the pointers point to them. The
    // handler only does what POSIX calls async-signal-safe.
    unsafe {
        let mut ours: sigaction = std::mem::zeroed();
        let mut theirs: sigaction = std::mem::zeroed();
        ours.sa_sigaction = mark as extern "C" fn(c_int, *mut siginfo_t, *mut c_void) as usize;
        // Use the alternate stack: the thread's own may have overflowed.
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&raw mut ours.sa_mask);
        if libc::sigaction(signal, std::ptr::null(), &raw mut theirs) == 0 && former.set(theirs).is_ok() {
            libc::sigaction(signal, &raw const ours, std::ptr::null_mut());
        }
    }
}

/// Writes the mark, then lets the signal take its usual effect.
#[expect(unsafe_code, reason = "a signal handler calls the C library, whose functions have no safe names")]
extern "C" fn mark(signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    // SAFETY: pwrite, sigaction and raise are async-signal-safe, `OnceLock::get` is one atomic load, and the system
    // hands a valid `info` to a handler with SA_SIGINFO.
    unsafe {
        let file = FILE.load(Ordering::Acquire);
        if file != NO_FILE {
            let byte = u8::try_from(signal).unwrap_or(u8::MAX);
            libc::pwrite(file, (&raw const byte).cast(), 1, 0);
        }
        let mut action: sigaction = std::mem::zeroed();
        if let Some(former) =
            SIGNALS.iter().position(|known| *known == signal).and_then(|position| FORMER[position].get())
        {
            action = *former;
        }
        // A processor fault recurs when the handler returns, and then reaches the previous handler: Rust's own,
        // which reports a stack overflow. A signal that was sent arrives only once, so raise it again.
        let was_sent = (*info).si_code <= 0;
        if was_sent {
            action = std::mem::zeroed();
            action.sa_sigaction = libc::SIG_DFL;
        }
        libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        if was_sent {
            libc::raise(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    use super::*;

    const INNER: &str = "NOTIFY_TEST_CRASH";
    const FILE_NAME: &str = "NOTIFY_TEST_CRASH_FILE";

    /// Ends this process. Only a child of the test below gets here.
    fn crash(how: &str) {
        #[expect(unconditional_recursion, reason = "to use up the stack")]
        #[inline(never)]
        fn recurse(depth: &mut [u64; 64]) -> u64 {
            let mut deeper = *depth;
            deeper[0] += 1;
            std::hint::black_box(recurse(std::hint::black_box(&mut deeper)) + depth[0])
        }
        match how {
            "abort" => std::process::abort(),
            "overflow" => {
                println!("{}", std::thread::spawn(|| recurse(&mut [0; 64])).join().unwrap());
            }
            "exit" => std::process::exit(3),
            // Wait for the signal that the test sends.
            _ => loop {
                std::thread::park();
            },
        }
    }

    #[test]
    fn a_crash_leaves_a_mark_and_a_kill_none() {
        if let Ok(how) = std::env::var(INNER) {
            let file = File::options().write(true).open(std::env::var_os(FILE_NAME).unwrap()).unwrap();
            let _marking = into(&file);
            println!("marking");
            return crash(&how);
        }
        let folder = tempfile::tempdir().unwrap();
        for (how, sent, ended_by, mark) in [
            ("abort", None, Some(SIGABRT), Some("SIGABRT")),
            ("overflow", None, Some(SIGABRT), Some("SIGABRT")),
            ("exit", None, None, None),
            ("sent", Some("ABRT"), Some(SIGABRT), Some("SIGABRT")),
            ("sent", Some("SEGV"), Some(SIGSEGV), Some("SIGSEGV")),
            ("sent", Some("BUS"), Some(SIGBUS), Some("SIGBUS")),
            ("sent", Some("KILL"), Some(libc::SIGKILL), None),
            ("sent", Some("TERM"), Some(libc::SIGTERM), None),
        ] {
            let path = folder.path().join("mark");
            fs::write(&path, "").unwrap();
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args([
                "--exact",
                "quarantine::crash_mark::tests::a_crash_leaves_a_mark_and_a_kill_none",
                "--nocapture",
            ]);
            command.env(INNER, how).env(FILE_NAME, &path);
            let child = testbed::ChildGuard::spawn(command);
            if let Some(signal) = sent {
                let soon = std::time::Duration::from_secs(30);
                testbed::eventually(soon, "it marks", || child.stdout().contains("marking"));
                let id = child.id().to_string();
                assert!(Command::new("sh").args(["-c", "kill -s $0 $1", signal, &id]).status().unwrap().success());
            }
            let status = child.wait_timeout(std::time::Duration::from_secs(30)).expect("it ends");
            assert_eq!(status.signal(), ended_by, "{how} {sent:?}: {status}");
            assert_eq!(read(&fs::read(&path).unwrap()), mark, "{how} {sent:?}");
        }
    }
}
