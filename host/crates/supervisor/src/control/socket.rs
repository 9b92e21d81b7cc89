//! The socket files through which commands find the hosts of one plugin folder. Each running host has one.
//!
//! A socket that accepts no connection was left by a host that was killed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use state::private_folder;
use tokio::net::{UnixListener, UnixStream};
use tracing::debug;

/// Maximum bytes of a socket's path. Systems allow 104 or more.
const ADDRESS_BYTES_MAX: usize = 100;
/// File extension of a socket that accepts connections.
const EXTENSION: &str = "sock";
/// Interval between checks that the socket still exists.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Pause after the system could not accept a connection.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Connects to every running host of a plugin folder. `state` is the state folder of the plugin folder.
pub async fn connect(state: &Path) -> Vec<UnixStream> {
    // The folder does not exist if no host has ever run.
    match SocketFolder::open(sockets(state)) {
        Ok(folder) => folder.connect().await,
        Err(_) => Vec::new(),
    }
}

/// Returns the folder of the sockets.
fn sockets(state: &Path) -> PathBuf {
    state.join("hosts")
}

/// A socket that commands can find.
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    /// The state folder of the plugin folder.
    state: PathBuf,
}

impl ControlSocket {
    /// Starts to listen. `state` is the state folder of the plugin folder.
    pub async fn listen(state: &Path) -> io::Result<Self> {
        let path = sockets(state);
        private_folder(&path)?;
        let folder = SocketFolder::open(path)?;
        let (listener, path) = folder.listen()?;
        // Connecting to every socket removes the ones that killed hosts have left.
        drop(folder.connect().await);
        Ok(Self { listener, path, state: state.to_owned() })
    }

    /// Accepts the next connection. Listens anew if the socket is gone: somebody may have cleaned up the state folder
    /// while this host runs.
    pub async fn accept(&mut self) -> UnixStream {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => return stream,
                    Err(error) => {
                        debug!(%error, "cannot take a command's connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                () = removal(&self.path) => match Self::listen(&self.state).await {
                    Ok(again) => *self = again,
                    Err(error) => debug!(%error, "cannot listen anew to commands"),
                },
            }
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // If this fails, a command that finds the socket later notices that nobody listens, and removes it.
        let _ = fs::remove_file(&self.path);
    }
}

/// Waits until commands can no longer find the socket.
async fn removal(socket: &Path) {
    while socket.exists() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    tokio::time::sleep(LOOK_EVERY).await;
}

/// The folder in which the hosts of one plugin folder listen.
#[derive(Debug)]
struct SocketFolder {
    path: PathBuf,
    opened: File,
}

impl SocketFolder {
    fn open(path: PathBuf) -> io::Result<Self> {
        Ok(Self { opened: File::open(&path)?, path })
    }

    /// Starts to listen on a new socket.
    fn listen(&self) -> io::Result<(UnixListener, PathBuf)> {
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
    async fn connect(&self) -> Vec<UnixStream> {
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
