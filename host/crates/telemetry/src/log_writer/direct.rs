//! Writes to standard error without ever waiting for its reader.
//!
//! An attempt whose log lines are its work writes them itself where that is possible: to be suspended until the writer's
//! thread has written them costs several times as much as the write.

use std::io::{self, IoSlice};

use rustix::fs::FileType;
use rustix::io::{ReadWriteFlags, pwritev2};

/// Writes some bytes at once, or returns an error. Never waits for a reader.
pub(super) type Write = fn(&[u8]) -> io::Result<usize>;

/// The position of a stream that has none, and of a file that is written where it is.
const CURRENT_POSITION: u64 = u64::MAX;

/// Returns the way to write to standard error without waiting. `None` if there is none, as for a terminal.
pub(super) fn to_standard_error() -> Option<Write> {
    let status = rustix::fs::fstat(io::stderr()).ok()?;
    match FileType::from_raw_mode(status.st_mode) {
        // A file has no reader to wait for.
        FileType::RegularFile => Some(write_to_file),
        FileType::Fifo | FileType::Socket => Some(write_without_waiting),
        _ => None,
    }
}

fn write_to_file(bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::io::write(io::stderr(), bytes)?)
}

/// Fails where the buffer of the pipe or socket is full, and on systems that do not know how (Linux before 6.4).
fn write_without_waiting(bytes: &[u8]) -> io::Result<usize> {
    Ok(pwritev2(io::stderr(), &[IoSlice::new(bytes)], CURRENT_POSITION, ReadWriteFlags::NOWAIT)?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_full_pipe_is_an_error_and_not_a_wait() {
        let (_reader, writer) = io::pipe().unwrap();
        let write =
            |bytes: &[u8]| pwritev2(writer.as_fd(), &[IoSlice::new(bytes)], CURRENT_POSITION, ReadWriteFlags::NOWAIT);
        let line = [b'x'; 4096];
        let error = (0..1000).find_map(|_| write(&line).err()).expect("a pipe does not take 4 MB");
        assert!([rustix::io::Errno::AGAIN, rustix::io::Errno::OPNOTSUPP].contains(&error), "{error}");
    }
}
