//! The HTTP server: one listener, with bounded connections.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use config::{AdminConfig, Listen};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use crate::guard::{Guard, stand_guard};
use crate::token::Access;
use crate::{Admin, api, health, metrics, page};

/// Maximum number of concurrent connections. Further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 128;
/// Time limit for a request's head, and for the idle time before the next request of a connection.
const HEAD_TIME_MAX: Duration = Duration::from_secs(15);
const HEAD_BYTES_MAX: usize = 32 << 10;
const BODY_BYTES_MAX: usize = 1 << 20;
/// Pause before accepting again when the system has no resources for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

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

impl Listening {
    /// Serves for as long as the future is polled. That includes the shutdown, so that clients can see its progress.
    pub async fn serve(self, admin: Arc<Admin>) {
        let router = router(admin, self.guard);
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        // Dropping this function's future ends all connections.
        let mut connections = JoinSet::new();
        // The loop is endless: the semaphore is never closed.
        while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    let router = router.clone();
                    connections.spawn(async move {
                        let _permit = permit;
                        if let Err(error) = serve(stream, router).await {
                            debug!(%peer, %error, "an admin connection ended");
                        }
                    });
                }
                Err(error) => {
                    if !is_of_the_connection(&error) {
                        debug!(%error, "cannot take an admin connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
            while connections.try_join_next().is_some() {}
        }
    }
}

async fn serve(stream: TcpStream, router: Router) -> hyper::Result<()> {
    // Responses are small, and clients wait for them.
    let _ = stream.set_nodelay(true);
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await
}

/// Whether the error concerns only the connection being accepted, so that the next one may succeed.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn router(admin: Arc<Admin>, guard: Arc<Guard>) -> Router {
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
        .layer(from_fn_with_state(guard, stand_guard))
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
