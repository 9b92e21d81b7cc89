//! The socket files through which commands find the hosts of one plugin folder. Each running host has one.
//!
//! A socket that accepts no connection was left by a host that was killed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// Maximum bytes of a socket's path. Systems allow 104 or more.
const ADDRESS_BYTES_MAX: usize = 100;
/// File extension of a socket that accepts connections.
const EXTENSION: &str = "sock";

/// The folder in which the hosts of one plugin folder listen.
#[derive(Debug)]
pub(super) struct SocketFolder {
    path: PathBuf,
    opened: File,
}

impl SocketFolder {
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        Ok(Self { opened: File::open(&path)?, path })
    }

    /// Starts to listen on a new socket.
    pub(super) fn listen(&self) -> io::Result<(UnixListener, PathBuf)> {
        // Do not name it after the process: in containers the process id is always 1.
        let name = format!("{:08x}", fastrand::u32(..));
        // Publish the socket under its final name only once it accepts connections. A command might otherwise take
        // it for one that a killed host has left.
        let new = format!("{name}.new");
        let listener = UnixListener::bind(self.address(new.as_ref()))?;
        let path = self.path.join(name).with_extension(EXTENSION);
        fs::rename(self.path.join(new), &path)?;
        Ok((listener, path))
    }

    /// Connects to each socket, in the order of their names. Removes sockets that nobody listens on.
    pub(super) async fn connect(&self) -> Vec<UnixStream> {
        let mut streams = Vec::new();
        for path in self.sockets() {
            match UnixStream::connect(self.address(path.file_name().unwrap_or_default())).await {
                Ok(stream) => streams.push(stream),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    let _ = fs::remove_file(&path);
                }
                // The socket has just gone, or belongs to another user.
                Err(_) => {}
            }
        }
        streams
    }

    fn sockets(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(&self.path).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut files: Vec<_> = files.filter(|path| path.extension() == Some(EXTENSION.as_ref())).collect();
        files.sort();
        files
    }

    /// Returns the path to pass to the system. A path that is too long goes through the open folder's
    /// descriptor.
    fn address(&self, name: &OsStr) -> PathBuf {
        let path = self.path.join(name);
        if path.as_os_str().len() <= ADDRESS_BYTES_MAX {
            return path;
        }
        Path::new("/proc/self/fd").join(self.opened.as_raw_fd().to_string()).join(name)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener as StdListener;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_socket_is_made_and_reached_by_a_path_of_any_length() {
        for length in [1, 60, 120, 250] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("x".repeat(length)).join("y".repeat(length));
            fs::create_dir_all(&path).unwrap();
            let sockets = SocketFolder::open(path).unwrap();
            let (_listener, path) = sockets.listen().unwrap();
            assert!(path.exists());
            assert_eq!(sockets.connect().await.len(), 1, "{length}");
        }
    }

    #[tokio::test]
    async fn sockets_that_nobody_listens_on_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        drop(StdListener::bind(folder.path().join("0.sock")).unwrap());
        let sockets = SocketFolder::open(folder.path().to_owned()).unwrap();
        let (_listener, path) = sockets.listen().unwrap();
        assert_eq!(sockets.connect().await.len(), 1);
        assert_eq!(sockets.sockets(), [path]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_socket_is_removed_whose_host_is_just_beginning_to_listen() {
        const HOSTS: usize = 500;
        let folder = tempfile::tempdir().unwrap();
        let sockets = std::sync::Arc::new(SocketFolder::open(folder.path().to_owned()).unwrap());
        let done = std::sync::Arc::new(AtomicBool::new(false));
        let commands = tokio::spawn({
            let (sockets, done) = (sockets.clone(), done.clone());
            async move {
                while !done.load(Ordering::Relaxed) {
                    sockets.connect().await;
                }
            }
        });
        let lost = tokio::task::spawn_blocking({
            let runtime = tokio::runtime::Handle::current();
            move || {
                let _within = runtime.enter();
                let begin = || {
                    let (_listener, path) = sockets.listen().unwrap();
                    fs::remove_file(path)
                };
                (0..HOSTS).filter(|_| begin().is_err()).count()
            }
        });
        let lost = lost.await;
        done.store(true, Ordering::Relaxed);
        commands.await.unwrap();
        assert_eq!(lost.unwrap(), 0);
    }
}
