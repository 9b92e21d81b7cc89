//! Opens a connection, and explains why it cannot be opened.

use std::io;
use std::net::Shutdown;
use std::sync::{Arc, Once, OnceLock};
use std::time::Duration;

use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::runtime::default_runtime;
use lapin::tcp::TLSConfig;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties, ErrorKind};
use socket2::{SockRef, Socket};
use url::Url;

use crate::amqp::guard::{Guarded, guarded_runtime};
use crate::{BrokerUrl, ConnectError, ConnectOptions};

/// Heartbeat interval in seconds, unless the URL sets one. A peer that is silent for two intervals
/// is considered dead.
const HEARTBEAT_SECONDS: u16 = 20;
/// Maximum bytes of a frame, unless the URL sets one. RabbitMQ's own default
/// (<https://www.rabbitmq.com/docs/configure>). lapin sizes its buffers by the requested value, 32
/// frames each. Without a request it would enlarge them once RabbitMQ has answered, and write to
/// all of that memory.
const FRAME_BYTES_MAX: u32 = 128 << 10;
const DEFAULT_VHOST: &str = "/";

/// The socket below a connection, once it exists; used to close the connection when a peer is silent.
pub(super) type SocketHandle = Arc<OnceLock<Socket>>;

/// Opens a connection, and returns it with its socket.
pub(super) async fn open(url: &Url, options: &ConnectOptions) -> Result<(Connection, SocketHandle), ConnectError> {
    use_aws_lc();
    let broker = BrokerUrl::Amqp(vec![url.clone()]).to_string();
    let uri = match to_uri(url) {
        Ok(uri) => uri,
        Err(problem) => return Err(ConnectError::Failed { broker, problem }),
    };
    let (user, vhost) = (uri.authority.userinfo.username.clone(), uri.vhost.clone());
    let properties = ConnectionProperties::default()
        .with_connection_name(options.name.as_str().into())
        .with_client_property("product".into(), options.name.as_str().into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
    let socket = SocketHandle::default();
    match tokio::time::timeout(options.timeout, dial(uri, properties, options.timeout, Arc::clone(&socket))).await {
        Ok(Ok(connection)) => Ok((connection, socket)),
        Ok(Err(error)) => Err(explain(broker, user, vhost, &error)),
        Err(_) => {
            hang_up(&socket);
            Err(ConnectError::TimedOut {
                broker,
                // Rounded up, so that a limit below one second is not reported as 0 s.
                seconds: options.timeout.as_secs() + u64::from(options.timeout.subsec_nanos() > 0),
            })
        }
    }
}

/// Closes the connection without a handshake.
pub(super) fn hang_up(socket: &SocketHandle) {
    if let Some(socket) = socket.get() {
        // An error means that it is closed already.
        let _ = socket.shutdown(Shutdown::Both);
    }
}

/// Connects as lapin does by itself, but inserts the guard and keeps the socket. lapin's thread does
/// not end when its caller gives up: it waits forever for a silent peer, unless the socket is closed.
async fn dial(
    uri: AMQPUri,
    properties: ConnectionProperties,
    limit: Duration,
    socket: SocketHandle,
) -> lapin::Result<Connection> {
    Connection::connector(
        uri,
        guarded_runtime(),
        async move |uri: AMQPUri, _| {
            let runtime = default_runtime()?;
            let connect = async {
                let host = uri.authority.host.as_str();
                let addresses = runtime.to_socket_addrs((host.to_owned(), uri.authority.port));
                let stream = AsyncTcpStream::connect(&runtime, addresses).await?;
                if let AsyncTcpStream::Plain(stream) = &stream {
                    let _ = socket.set(SockRef::from(stream.get_ref()).try_clone()?);
                }
                let stream = match uri.scheme {
                    AMQPScheme::AMQP => stream,
                    AMQPScheme::AMQPS => stream.into_tls(host, TLSConfig::default()).await?,
                };
                // Declared as plain to lapin: TLS runs below the guard.
                Ok::<_, io::Error>(AsyncTcpStream::Plain(Guarded::new(stream)))
            };
            let connected = tokio::time::timeout(limit, connect).await;
            connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(lapin::Error::from)
        },
        properties,
    )
    .await
}

/// Installs aws-lc as rustls's crypto provider. An error means that the program has installed one
/// already, which is just as good.
fn use_aws_lc() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
}

fn to_uri(url: &Url) -> Result<AMQPUri, String> {
    let mut uri: AMQPUri = url.as_str().parse()?;
    // Strictly read, a trailing slash names the virtual host "". Nobody means that one, and the
    // client libraries of other languages also read it as the default.
    if uri.vhost.is_empty() {
        DEFAULT_VHOST.clone_into(&mut uri.vhost);
    }
    uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
    uri.query.frame_max.get_or_insert(FRAME_BYTES_MAX);
    Ok(uri)
}

fn explain(broker: String, user: String, vhost: String, error: &lapin::Error) -> ConnectError {
    match error.kind() {
        ErrorKind::ProtocolError(error) => {
            let problem = error.get_message().to_string();
            match error.kind() {
                AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => ConnectError::LoginRefused { broker, user },
                // RabbitMQ uses the same code for connection limits.
                AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED)
                    if problem.contains("vhost") && !problem.contains("limit") =>
                {
                    ConnectError::NoVhost { broker, vhost }
                }
                AMQPErrorKind::Soft(_) | AMQPErrorKind::Hard(_) => ConnectError::Failed { broker, problem },
            }
        }
        ErrorKind::IOError(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => {
                let problem =
                    "nothing listens there (connection refused); is RabbitMQ running, and the port right?".to_owned();
                ConnectError::Unreachable { broker, problem }
            }
            io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => {
                let problem = "it closed the connection during the greeting; \
                     is it still starting, or is this another kind of port (amqps://, HTTP)?"
                    .to_owned();
                ConnectError::Unreachable { broker, problem }
            }
            // TLS errors: an unknown issuer, a wrong name, a peer without TLS.
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                ConnectError::Failed { broker, problem: format!("it cannot be reached by TLS: {error}") }
            }
            _ => ConnectError::Unreachable { broker, problem: error.to_string() },
        },
        ErrorKind::ParsingError(_) | ErrorKind::InvalidProtocolVersion(_) => {
            ConnectError::Failed { broker, problem: "what answers there does not speak AMQP 0-9-1".to_owned() }
        }
        _ => ConnectError::Failed { broker, problem: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_names_no_virtual_host_means_the_default() {
        for (url, vhost) in [
            ("amqp://localhost", "/"),
            ("amqp://localhost/", "/"),
            ("amqp://localhost/%2F", "/"),
            ("amqp://localhost/prod", "prod"),
        ] {
            let uri = to_uri(&url.parse().unwrap()).unwrap();
            assert_eq!(uri.vhost, vhost, "{url}");
            assert_eq!((uri.query.heartbeat, uri.query.frame_max), (Some(HEARTBEAT_SECONDS), Some(FRAME_BYTES_MAX)));
        }
        let uri = to_uri(&"amqp://localhost?heartbeat=7&frame_max=8192".parse().unwrap()).unwrap();
        assert_eq!((uri.query.heartbeat, uri.query.frame_max), (Some(7), Some(8192)));
    }
}
