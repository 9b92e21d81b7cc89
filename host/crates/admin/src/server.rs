//! The HTTP server: one router for two listeners, an address and the control socket. Connections are bounded.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use axum::serve::{Listener, ListenerExt as _};
use config::{AdminConfig, Listen};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use supervisor::control::ControlSocket;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use crate::guard::{Guard, stand_guard};
use crate::token::Access;
use crate::{Admin, api, health, metrics, page};

/// Maximum number of concurrent connections. Further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 128;
/// Maximum number of commands served at once.
const COMMANDS_MAX: usize = 8;
/// How long a command may take to read its answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// Time limit for a request's head, and for the idle time before the next request of a connection.
const HEAD_TIME_MAX: Duration = Duration::from_secs(15);
const HEAD_BYTES_MAX: usize = 32 << 10;
const BODY_BYTES_MAX: usize = 1 << 20;

/// A bound listener.
pub struct Listening {
    listener: TcpListener,
    guard: Arc<Guard>,
}

/// Binds the listener. `None` if the server is off, or if the default address is taken and none was configured.
pub async fn listen(config: &AdminConfig) -> anyhow::Result<Option<Listening>> {
    let Some(address) = config.listen.address() else { return Ok(None) };
    let access = Access::read(config)?;
    let listener = match TcpListener::bind(address).await {
        Ok(listener) => listener,
        Err(error) if config.listen == Listen::IfFree => {
            warn!(
                "there is no admin surface: cannot listen at {address}: {error}; is there another host? Name an address by \
                 --admin, or switch it off by --admin off"
            );
            return Ok(None);
        }
        Err(error) => {
            let problem = format!("cannot listen at {address}, where the admin surface is to be (--admin)");
            return Err(anyhow::Error::new(error).context(problem));
        }
    };
    let address = listener.local_addr()?;
    info!(%address, "admin surface: http://{address}");
    let guard = Arc::new(Guard::new(address, config.hosts.clone(), access));
    Ok(Some(Listening { listener, guard }))
}

/// Serves for as long as the future is polled. By TCP that includes the shutdown, so that clients can see its progress.
/// The socket is closed when the host is asked to stop: commands no longer count this host.
pub(super) async fn serve(admin: Arc<Admin>, listening: Option<Listening>, socket: Option<ControlSocket>) {
    let tcp = async {
        let Some(Listening { listener, guard }) = listening else { return };
        let router = router(Arc::clone(&admin)).layer(from_fn_with_state(guard, stand_guard));
        // Responses are small, and clients wait for them.
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        accept(listener, CONNECTIONS_MAX, |stream| connect(stream, router.clone())).await;
    };
    let commands = async {
        let Some(socket) = socket else { return };
        // No guard: the folder's permissions are the protection, and no browser reaches a Unix socket.
        let router = router(Arc::clone(&admin));
        let serve = accept(Socket(socket), COMMANDS_MAX, |stream| answer_command(stream, router.clone()));
        admin.sources.host.stop.run_until_cancelled(serve).await;
    };
    tokio::join!(tcp, commands);
}

/// Serves each connection in a task of its own. Dropping this function's future ends all connections.
async fn accept<L: Listener, S>(mut listener: L, connections_max: usize, serve: impl Fn(L::Io) -> S)
where
    S: Future<Output = hyper::Result<()>> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(connections_max));
    let mut connections = JoinSet::new();
    // The loop is endless: the semaphore is never closed.
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        let (stream, _) = listener.accept().await;
        let served = serve(stream);
        connections.spawn(async move {
            let _permit = permit;
            if let Err(error) = served.await {
                debug!(%error, "an admin connection ended");
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Lets the control socket be served as any other listener.
struct Socket(ControlSocket);

impl Listener for Socket {
    type Io = UnixStream;
    type Addr = ();

    async fn accept(&mut self) -> (UnixStream, ()) {
        (self.0.accept().await, ())
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

async fn connect(stream: TcpStream, router: Router) -> hyper::Result<()> {
    http().serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).await
}

/// Serves one request. The time limit of the answer frees the connection for others if the command does not read, and
/// it ends a stream.
async fn answer_command(stream: UnixStream, router: Router) -> hyper::Result<()> {
    let (router, answered) = (TowerToHyperService::new(router), Notify::new());
    let service = service_fn(async |request| {
        let answer = router.call(request).await;
        answered.notify_one();
        answer
    });
    let connection = http().keep_alive(false).serve_connection(TokioIo::new(stream), service);
    let too_late = async {
        answered.notified().await;
        tokio::time::sleep(ANSWER_TIME_MAX).await;
    };
    tokio::select! {
        served = connection => served,
        () = too_late => Ok(()),
    }
}

fn http() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME_MAX).max_buf_size(HEAD_BYTES_MAX);
    http
}

fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::show))
        .route("/", get(page::index))
        .route("/assets/{*path}", get(page::asset))
        .nest("/api/v1", api::routes())
        .fallback(api::nothing)
        .method_not_allowed_fallback(api::not_so)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(admin)
}

#[cfg(test)]
mod tests {
    use config::BadConfig;

    use super::*;

    #[tokio::test]
    async fn a_token_that_is_no_good_is_refused_and_not_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let config =
            AdminConfig { listen: "127.0.0.1:0".parse().unwrap(), token_file: Some(file.clone()), hosts: Vec::new() };
        let tried = async |content: &[u8]| {
            std::fs::write(&file, content).unwrap();
            listen(&config).await.map(|listening| listening.is_some()).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(tried(b"0123456789abcdef\n").await, Ok(true));
        for (content, expected) in [
            (&b"hunter2"[..], "too short"),
            (b"", "it is empty"),
            (b"hunter2 hunter2 hunter2", "without spaces"),
            (b"\xff", "no text"),
        ] {
            let error = tried(content).await.unwrap_err();
            assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
        }
        std::fs::remove_file(&file).unwrap();
        let error = listen(&config).await.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("there is no file") && error.is::<BadConfig>(), "{error}");
    }

    #[tokio::test]
    async fn an_address_that_was_named_must_be_free() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = taken.local_addr().unwrap();
        let config = AdminConfig { listen: Listen::At(at), ..AdminConfig::default() };
        let error = listen(&config).await.map(|_| ()).unwrap_err();
        assert!(format!("{error:#}").contains(&format!("cannot listen at {at}")), "{error:#}");
    }
}
