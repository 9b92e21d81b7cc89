//! Dialling: chooses the reachable addresses of a host and connects to one of them.

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

/// Time limit for one of several addresses, so that an address which swallows packets leaves time for the others.
const ONE_OF_SEVERAL_MAX: Duration = Duration::from_secs(3);

/// The byte stream that HTTP runs over: TCP or TLS.
pub(super) type Stream = Box<dyn Duplex>;

pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Returns the addresses that are public or granted, in their order. If there are none, the error describes the first
/// address. The connection is made to exactly the addresses returned here.
pub(super) fn admitted(addresses: &[IpAddr], networks: &[Network]) -> Result<Vec<IpAddr>, Option<(IpAddr, Block)>> {
    let refusal = |address: &IpAddr| {
        let is_granted = networks.iter().any(|network| network.contains(*address));
        address::set_aside(*address).filter(|_| !is_granted)
    };
    let admitted = addresses.iter().filter(|address| refusal(address).is_none());
    // Dial an IPv4 address mapped into IPv6 as the IPv4 address that was checked.
    let admitted: Vec<_> = admitted.map(IpAddr::to_canonical).collect();
    if admitted.is_empty() {
        return Err(addresses.first().and_then(|first| Some((*first, refusal(first)?))));
    }
    Ok(admitted)
}

/// Connects to the first of these addresses that accepts.
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

/// Starts TLS with the host named in the URL, regardless of the address it resolved to.
pub(super) async fn secure(stream: Socket, host: &Host<&str>, client: Arc<ClientConfig>) -> io::Result<Stream> {
    let name = match host {
        Host::Domain(name) => ServerName::try_from((*name).to_owned()).map_err(io::Error::other)?,
        Host::Ipv4(address) => ServerName::from(IpAddr::from(*address)),
        Host::Ipv6(address) => ServerName::from(IpAddr::from(*address)),
    };
    Ok(Box::new(TlsConnector::from(client).connect(name, stream).await?))
}
