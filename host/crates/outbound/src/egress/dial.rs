//! Dialling: of the addresses that a host has, those that may be reached, and a connection to one of them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use config::Network;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use url::Host;

use crate::egress::address::{self, Block};
use crate::egress::socket::Socket;

/// One of several addresses has this long, so that one which swallows everything leaves time for the others.
const ONE_OF_SEVERAL_MAX: Duration = Duration::from_secs(3);

/// What HTTP is spoken over.
pub(super) type Stream = Box<dyn Duplex>;

pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Those of the addresses that are public or granted, in their order. If there is none, what the first one is. A pure
/// decision: what it lets through is what is dialled.
pub(super) fn admitted(addresses: &[IpAddr], networks: &[Network]) -> Result<Vec<IpAddr>, Option<(IpAddr, Block)>> {
    let refusal = |address: &IpAddr| {
        let is_granted = networks.iter().any(|network| network.contains(*address));
        address::set_aside(*address).filter(|_| !is_granted)
    };
    let admitted = addresses.iter().filter(|address| refusal(address).is_none());
    // An IPv4 address that is mapped into IPv6 is dialled as what was looked at.
    let admitted: Vec<_> = admitted.map(IpAddr::to_canonical).collect();
    if admitted.is_empty() {
        return Err(addresses.first().and_then(|first| Some((*first, refusal(first)?))));
    }
    Ok(admitted)
}

/// Connects to the first of these addresses that takes it.
pub(super) async fn connect(addresses: &[IpAddr], port: u16, deadline: Instant) -> io::Result<Socket> {
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "it has no address");
    for (number, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let is_last = number + 1 == addresses.len();
        let share = if is_last { left } else { left.min(ONE_OF_SEVERAL_MAX) };
        match timeout(share, TcpStream::connect(SocketAddr::new(*address, port))).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream.into());
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// TLS with the host that the URL names, whatever address it was found at.
pub(super) async fn secure(stream: Socket, host: &Host<&str>, client: Arc<ClientConfig>) -> io::Result<Stream> {
    let name = match host {
        Host::Domain(name) => ServerName::try_from((*name).to_owned()).map_err(io::Error::other)?,
        Host::Ipv4(address) => ServerName::from(IpAddr::from(*address)),
        Host::Ipv6(address) => ServerName::from(IpAddr::from(*address)),
    };
    Ok(Box::new(TlsConnector::from(client).connect(name, stream).await?))
}
