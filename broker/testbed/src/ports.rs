//! Free ports.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// First port to try. The range is below the one for outgoing connections (from 32768 on Linux),
/// so that a port stays free while its server is down.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// Returns a port of 127.0.0.1 that nobody listens on, and that this process has not received before.
pub fn free_port() -> u16 {
    static USED: AtomicU16 = AtomicU16::new(0);
    // Concurrent test processes start far apart.
    #[expect(clippy::cast_possible_truncation, reason = "the remainder is below COUNT")]
    let offset = (std::process::id().wrapping_mul(97) % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let port = FIRST + (offset + USED.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port from {FIRST} to {} is free on 127.0.0.1", FIRST + COUNT - 1);
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_port_is_given_twice() {
        let (a, b) = (super::free_port(), super::free_port());
        assert_ne!(a, b);
    }
}
