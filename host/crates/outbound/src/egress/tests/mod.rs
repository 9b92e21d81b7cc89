//! Tests of the whole gate against hostile resolvers and servers, all on loopback addresses.

mod addresses;
mod misbehaving;
mod requests;
mod tls;

use std::time::Duration;

use testbed::receiver::Receiver;
use tokio::time::Instant;

use super::*;

/// Enough time for anything that ends by itself.
const SOON: Duration = Duration::from_secs(10);
/// Time limit for exchanges that are cut off.
const BRIEFLY: Duration = Duration::from_millis(300);

fn gate_with(egress: Egress, origins: &[&str], networks: &[&str]) -> Gate {
    let origins = origins.iter().map(|origin| origin.parse().unwrap()).collect();
    let networks = networks.iter().map(|network| network.parse().unwrap()).collect();
    Gate::new(egress, origins, networks)
}

/// Creates a gate with this resolver.
fn gate(resolver: Resolver, origins: &[&str], networks: &[&str]) -> Gate {
    gate_with(Egress { resolver, trust: Arc::default() }, origins, networks)
}

/// Creates a gate that may reach this receiver.
fn gate_to(receiver: &Receiver) -> Gate {
    gate(Resolver::System, &[&receiver.origin()], &["127.0.0.0/8"])
}

fn within(time: Duration) -> Bounds {
    Bounds { deadline: Instant::now() + time, body_bytes_max: 1 << 20 }
}

async fn get(gate: &Gate, url: &str, time: Duration) -> Result<Response, EgressError> {
    gate.send(Request::new("GET", url, "")?, within(time)).await
}

async fn post(gate: &Gate, url: &str, time: Duration) -> Result<Response, EgressError> {
    gate.send(Request::new("POST", url, "body")?, within(time)).await
}
