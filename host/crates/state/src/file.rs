//! Reads files that other parties put in place. Such a file may have any size, or be no regular file: a FIFO
//! that blocks until somebody writes, or a device without end.

use std::fs::{self, File, FileType};
use std::io::{self, Error, ErrorKind, Read as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// Reads a regular file of at most `bytes_max` bytes. The error names the kind of any other file.
pub fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    // Check before opening, because opening a device can already have side effects.
    check(fs::metadata(path)?.file_type())?;
    // The path may lead to another file by now. `NONBLOCK` keeps the open from waiting for a FIFO's writer.
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    let file = File::from(file);
    check(file.metadata()?.file_type())?;
    // Reserve the full size. A growing buffer would leave copies of the content, perhaps a secret, in freed
    // memory.
    let bytes = file.metadata()?.len().min(bytes_max);
    let mut content = Vec::with_capacity(usize::try_from(bytes).unwrap_or_default() + 1);
    // Read one byte more than allowed, to notice a file that is too large or has grown.
    file.take(bytes_max + 1).read_to_end(&mut content)?;
    if content.len() as u64 > bytes_max {
        return Err(Error::new(ErrorKind::FileTooLarge, format!("it has more than {}", in_units(bytes_max))));
    }
    Ok(content)
}

fn check(kind: FileType) -> io::Result<()> {
    let what = match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "a folder",
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    };
    Err(Error::new(ErrorKind::InvalidInput, format!("it is {what}: put a regular file in its place, or remove it")))
}

fn in_units(bytes: u64) -> String {
    if bytes < 1 << 20 { format!("{} KiB", bytes >> 10) } else { format!("{} MiB", bytes >> 20) }
}

/// Runs blocking work, such as disk access, on a thread where no other task has to wait for it.
pub async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime cancelled the work because it is shutting down, and the caller ends with it.
        Err(Err(_)) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::process::Command;
    use std::time::Duration;

    use testbed::eventually;

    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn what_is_no_regular_file_or_too_large_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("full"), vec![1; MIB]).unwrap();
        fs::write(path("large"), vec![1; MIB + 1]).unwrap();
        assert!(Command::new("mkfifo").arg(path("fifo")).status().unwrap().success());
        symlink(path("fifo"), path("link")).unwrap();
        symlink("/dev/zero", path("endless")).unwrap();
        let _listener = UnixListener::bind(path("socket")).unwrap();
        for (name, expected) in [
            ("large", "it has more than 1 MiB"),
            ("fifo", "it is a FIFO: put a regular file in its place"),
            ("link", "it is a FIFO: "),
            ("endless", "it is a device: "),
            ("socket", "it is a socket: "),
            (".", "it is a folder: "),
        ] {
            let file = path(name);
            let reading = std::thread::spawn(move || read_bounded(&file, MIB as u64));
            eventually(Duration::from_secs(20), name, || reading.is_finished());
            let error = reading.join().unwrap().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{name}: {error}");
        }
        assert_eq!(read_bounded(&path("full"), MIB as u64).unwrap().len(), MIB);
        assert_eq!(read_bounded(&path("none"), 1).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[tokio::test]
    #[should_panic(expected = "a fault")]
    async fn a_panic_apart_is_a_panic_of_who_waits() {
        apart(|| panic!("a fault")).await;
    }
}
