//! Opening a connection, and what can keep it from opening.

use std::sync::Once;

use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties, ErrorKind};
use url::Url;

use crate::{BrokerUrl, ConnectError, ConnectOptions};

/// A peer that is silent for two of these is taken for dead, unless the URL says otherwise.
const HEARTBEAT_SECONDS: u16 = 20;
const DEFAULT_VHOST: &str = "/";

pub(super) async fn open(url: &Url, options: &ConnectOptions) -> Result<Connection, ConnectError> {
    use_aws_lc();
    let broker = BrokerUrl::Amqp(url.clone()).to_string();
    let uri = match to_uri(url) {
        Ok(uri) => uri,
        Err(problem) => return Err(ConnectError::Failed { broker, problem }),
    };
    let (user, vhost) = (uri.authority.userinfo.username.clone(), uri.vhost.clone());
    let properties = ConnectionProperties::default()
        .with_connection_name(options.name.as_str().into())
        .with_client_property("product".into(), options.name.as_str().into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
    match tokio::time::timeout(options.timeout, Connection::connect_uri(uri, properties)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(explain(broker, user, vhost, &error)),
        Err(_) => Err(ConnectError::TimedOut { broker, seconds: options.timeout.as_secs() }),
    }
}

/// Another part of the program may have chosen one already, which is as good.
fn use_aws_lc() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
}

fn to_uri(url: &Url) -> Result<AMQPUri, String> {
    let mut uri: AMQPUri = url.as_str().parse()?;
    // By the letter, a closing slash names the virtual host "". Nobody means that one, and the
    // client libraries of other languages read it as the default, too.
    if uri.vhost.is_empty() {
        DEFAULT_VHOST.clone_into(&mut uri.vhost);
    }
    uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
    Ok(uri)
}

fn explain(broker: String, user: String, vhost: String, error: &lapin::Error) -> ConnectError {
    match error.kind() {
        ErrorKind::ProtocolError(error) => {
            let problem = error.get_message().to_string();
            match error.kind() {
                AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => ConnectError::LoginRefused { broker, user },
                // The same code stands for limits on connections.
                AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED)
                    if problem.contains("vhost") && !problem.contains("limit") =>
                {
                    ConnectError::NoVhost { broker, vhost }
                }
                AMQPErrorKind::Soft(_) | AMQPErrorKind::Hard(_) => ConnectError::Failed { broker, problem },
            }
        }
        ErrorKind::IOError(error) => match error.kind() {
            std::io::ErrorKind::ConnectionRefused => {
                let problem =
                    "nothing listens there (connection refused); is RabbitMQ running, and the port right?".to_owned();
                ConnectError::Unreachable { broker, problem }
            }
            std::io::ErrorKind::ConnectionAborted
            | std::io::ErrorKind::ConnectionReset
            | std::io::ErrorKind::UnexpectedEof => {
                let problem = "it closed the connection during the greeting; \
                     is it still starting, or is this another kind of port (amqps://, HTTP)?"
                    .to_owned();
                ConnectError::Unreachable { broker, problem }
            }
            // What TLS reports: an unknown issuer, a wrong name, a peer without TLS.
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput => {
                ConnectError::Failed { broker, problem: error.to_string() }
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
            assert_eq!(uri.query.heartbeat, Some(HEARTBEAT_SECONDS));
        }
        let uri = to_uri(&"amqp://localhost?heartbeat=7".parse().unwrap()).unwrap();
        assert_eq!(uri.query.heartbeat, Some(7));
    }
}
