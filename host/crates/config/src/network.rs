//! A network is a range of addresses that a plugin may reach besides the public ones: `10.0.0.0/8`, `::1/128`.

use std::fmt::{self, Display};
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Number of bits before the IPv4 part of an IPv4-mapped IPv6 address.
const MAPPED_BITS: u8 = 96;

/// A network in canonical form. An IPv4-mapped IPv6 network becomes the IPv4 network that it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// Whether the network contains an address. `::ffff:10.0.0.1` is checked as `10.0.0.1`, the address that is
    /// dialled.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => text.parse::<IpNet>().map_err(|_| {
                format!("expected a range of addresses such as \"10.0.0.0/8\" or \"fd00::/8\", got {text:?}")
            })?,
        };
        if network.trunc() != network {
            return Err(format!("{text:?} has bits beyond its length; write \"{}\"", network.trunc()));
        }
        Ok(Self(in_one_spelling(network)))
    }
}

fn in_one_spelling(network: IpNet) -> IpNet {
    let mapped = |network: Ipv6Net| {
        let length = network.prefix_len().checked_sub(MAPPED_BITS)?;
        Ipv4Net::new(network.addr().to_ipv4_mapped()?, length).ok()
    };
    match network {
        IpNet::V6(network) => mapped(network).map_or(IpNet::V6(network), IpNet::V4),
        IpNet::V4(network) => IpNet::V4(network),
    }
}

impl Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_one_spelling() {
        for (text, expected) in [
            ("10.0.0.0/8", Ok("10.0.0.0/8")),
            ("127.0.0.1", Ok("127.0.0.1/32")),
            ("::1/128", Ok("::1/128")),
            ("FD00:0::/8", Ok("fd00::/8")),
            ("::ffff:10.0.0.0/104", Ok("10.0.0.0/8")),
            ("0.0.0.0/0", Ok("0.0.0.0/0")),
            ("10.0.0.1/8", Err("write \"10.0.0.0/8\"")),
            ("10.0.0.0/33", Err("expected a range of addresses")),
            ("10.0.0/8", Err("expected a range of addresses")),
            ("fe80::1%eth0", Err("expected a range of addresses")),
            ("localhost", Err("expected a range of addresses")),
            ("", Err("expected a range of addresses")),
        ] {
            match (text.parse::<Network>(), expected) {
                (Ok(network), Ok(spelling)) => assert_eq!(network.to_string(), spelling, "{text}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{text}: {error}"),
                (network, _) => panic!("{text}: {network:?}"),
            }
        }
    }

    #[test]
    fn a_network_contains_its_addresses_in_either_form() {
        let contains =
            |network: &str, address: &str| network.parse::<Network>().unwrap().contains(address.parse().unwrap());
        assert!(contains("10.0.0.0/8", "10.1.2.3"));
        assert!(contains("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(!contains("10.0.0.0/8", "11.0.0.1"));
        assert!(!contains("10.0.0.0/8", "::10.1.2.3"), "only a name for an address that is dialled as another one");
        assert!(contains("fd00::/8", "fd12::1"));
        assert!(!contains("::/0", "10.1.2.3"));
    }
}
