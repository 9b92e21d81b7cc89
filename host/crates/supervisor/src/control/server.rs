//! The host's end of the control socket.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use delivery::{Health, Registry, Runner};
use sandbox::is_plugin_name;
use state::private_folder;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::control::socket::SocketFolder;
use crate::control::{Answer, PluginReport, PluginState, REQUEST_BYTES_MAX, Reply, Request, sockets};
use crate::reconcile::{Catalog, Reload, Status};
use crate::reload::Reloader;

/// Maximum number of commands served at once.
const CONNECTIONS_MAX: usize = 8;
/// How long a command may take to send its request, or to read the answer.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a reloaded plugin may take to get events. Its queue has to be declared first.
const SERVED_TIME_MAX: Duration = Duration::from_secs(5);
/// Interval between checks that the socket still exists.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Pause after the system could not accept a connection.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Everything that requests work on.
#[derive(Clone)]
pub struct Server {
    pub registry: Arc<Registry>,
    pub catalog: Arc<Catalog>,
    pub reloads: mpsc::Sender<Reload>,
    pub settings: Arc<Reloader>,
}

/// A socket that commands can find.
pub struct Listening {
    folder: SocketFolder,
    listener: UnixListener,
    path: PathBuf,
    /// The state folder of the plugin folder.
    state: PathBuf,
}

impl Listening {
    /// Waits until commands can no longer find the socket.
    async fn is_removed(&self) {
        while self.path.exists() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // If this fails, a command that finds the socket later notices that nobody listens, and removes it.
        let _ = fs::remove_file(&self.path);
    }
}

/// Starts to listen. `state` is the state folder of the plugin folder.
pub fn listen(state: &Path) -> io::Result<Listening> {
    let path = sockets(state);
    private_folder(&path)?;
    let folder = SocketFolder::open(path)?;
    let (listener, path) = folder.listen()?;
    Ok(Listening { folder, listener, path, state: state.to_owned() })
}

impl Server {
    /// Serves until `stop`.
    pub async fn run(self, mut listening: Listening, stop: CancellationToken) {
        // Connecting to every socket removes the ones that killed hosts have left.
        drop(listening.folder.connect().await);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = listening.is_removed() => {}
                () = self.accept(&listening.listener, &mut connections) => {}
            }
            // The socket is gone: somebody may have cleaned up the state folder while this host runs.
            match listen(&listening.state) {
                Ok(again) => listening = again,
                Err(error) => debug!(%error, "cannot listen anew to commands"),
            }
        }
    }

    /// Accepts connections for as long as it is polled.
    async fn accept(&self, listener: &UnixListener, connections: &mut JoinSet<()>) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        // The semaphore is never closed.
        while let Ok(place) = Arc::clone(&room).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let server = self.clone();
                    connections.spawn(async move {
                        let _place = place;
                        if let Err(error) = server.serve(stream).await {
                            debug!(%error, "a command went away");
                        }
                    });
                }
                Err(error) => {
                    debug!(%error, "cannot take a command's connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
            while connections.try_join_next().is_some() {}
        }
    }

    async fn serve(&self, mut stream: UnixStream) -> io::Result<()> {
        let (input, mut output) = stream.split();
        let mut line = String::new();
        let mut input = BufReader::new(input.take(REQUEST_BYTES_MAX));
        let read = tokio::time::timeout(REQUEST_TIME_MAX, input.read_line(&mut line)).await;
        read.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let answer = match serde_json::from_str(&line) {
            Ok(request) => self.answer(request).await,
            Err(error) => {
                Err(format!("this host does not understand the command ({error}); is it of another version?"))
            }
        };
        let mut answer = serde_json::to_vec(&answer)?;
        answer.push(b'\n');
        let write = async {
            output.write_all(&answer).await?;
            output.shutdown().await
        };
        // Without a limit, a command that does not read would block a connection for others.
        tokio::time::timeout(REQUEST_TIME_MAX, write).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    pub async fn answer(&self, request: Request) -> Answer {
        if let Request::Pause { plugin } | Request::Resume { plugin } | Request::Reload { plugin } = &request
            && !is_plugin_name(plugin)
        {
            return Err(format!("{plugin:?} is no name of a plugin: that is made of a-z, 0-9 and -, up to 64 of them"));
        }
        match request {
            Request::List => Ok(Reply::Plugins { process: std::process::id(), plugins: self.list() }),
            Request::Pause { plugin } => {
                let runner = self.runner(&plugin)?;
                let keep = self.catalog.hold(&plugin, true);
                if runner.hold() {
                    info!(plugin, "paused by the operator: its events wait in its queue");
                }
                keep.map_err(|error| format!("{plugin} is paused, but only until the host stops: {error}"))?;
                Ok(Reply::Done(format!("{plugin} is paused: its events wait in its queue")))
            }
            Request::Resume { plugin } => {
                let keep = self.catalog.hold(&plugin, false);
                let news = self.runner(&plugin)?.let_go();
                keep.map_err(|error| format!("{plugin} is resumed, but only until the host stops: {error}"))?;
                if news {
                    info!(plugin, "resumed by the operator");
                    return Ok(Reply::Done(format!("{plugin} is resumed: it gets its events again")));
                }
                Ok(Reply::Done(format!("{plugin} was running already")))
            }
            Request::ReloadSettings => Ok(self.settings.reload().await.map_or_else(Reply::Refused, Reply::Reloaded)),
            Request::Reload { plugin } => {
                let (answer, answered) = oneshot::channel();
                let stopping = || "the host is stopping".to_owned();
                self.reloads.send(Reload { name: plugin.clone(), answer }).await.map_err(|_| stopping())?;
                let done = answered.await.map_err(|_| stopping())??;
                Ok(Reply::Done(match self.registry.get(&plugin) {
                    Some(runner) if !runner.is_served_within(SERVED_TIME_MAX).await => {
                        format!("{done}, but gets no events yet: the host has no queue for it in the broker")
                    }
                    Some(_) | None => done,
                }))
            }
        }
    }

    fn runner(&self, plugin: &str) -> Result<Arc<Runner>, String> {
        self.registry.get(plugin).ok_or_else(|| {
            let all = self.catalog.all();
            match all.get(plugin) {
                Some(Status { is_off: true, .. }) => {
                    format!("{plugin} is switched off by its toml: see `notify-host plugin enable {plugin}`")
                }
                Some(Status { problem: Some(problem), .. }) => format!("{plugin} does not load: {problem}"),
                Some(_) => format!("{plugin} is just being loaded"),
                None => {
                    let names: Vec<_> = all.keys().map(String::as_str).collect();
                    let those = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                    format!("there is no plugin {plugin:?}; there is: {those}")
                }
            }
        })
    }

    pub fn list(&self) -> Vec<PluginReport> {
        let all = self.catalog.all().into_iter();
        all.map(|(name, status)| report(self.registry.get(&name).as_deref(), name, status)).collect()
    }
}

fn report(runner: Option<&Runner>, name: String, status: Status) -> PluginReport {
    let state = match runner.map(Runner::health) {
        Some(Health::Well | Health::Quiet | Health::RateLimited) if !runner.is_some_and(Runner::is_served) => {
            PluginState::Waiting
        }
        Some(Health::LogBlocked) => PluginState::Waiting,
        Some(Health::Well) => PluginState::Running,
        Some(Health::Quiet) => PluginState::Quiet,
        Some(Health::RateLimited) => PluginState::RateLimited,
        Some(Health::Failing) => PluginState::Failing,
        Some(Health::Misconfigured) => PluginState::Misconfigured,
        Some(Health::Held) => PluginState::Paused,
        Some(Health::NotLoaded) => PluginState::NotLoaded,
        None if status.is_off => PluginState::Disabled,
        None if status.problem.is_some() => PluginState::Broken,
        None => PluginState::Loading,
    };
    let loaded = status.loaded;
    let standing = runner.and_then(Runner::standing);
    let log = runner.and_then(|runner| runner.plugin()?.trouble_with_log());
    PluginReport {
        name,
        state,
        version: loaded.as_ref().map(|loaded| loaded.version.clone()),
        description: loaded.as_ref().map(|loaded| loaded.description.clone()),
        sha256: loaded.as_ref().map(|loaded| loaded.sha256),
        wasm: loaded.as_ref().map(|loaded| loaded.wasm.clone()),
        loaded_at: loaded.as_ref().map(|loaded| loaded.at),
        in_flight: runner.map_or(0, Runner::in_flight),
        problem: status.problem,
        tried_again_at: status.tried_again_at,
        last_failure: runner.and_then(Runner::last_failure),
        waits_until: standing.as_ref().map(|standing| standing.until),
        waits_for: log.or(standing.map(|standing| standing.reason)),
    }
}
