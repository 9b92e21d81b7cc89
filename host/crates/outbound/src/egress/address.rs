//! Decides whether an address is public or reserved: for this machine, a local network, tests, past or future use. A
//! reserved address is unreachable without a grant of its network.
//!
//! The blocks come from IANA's registries of special-purpose addresses (RFC 6890, RFC 8190) for IPv4 and IPv6, and of
//! multicast addresses. Anything ambiguous there counts as reserved.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A reserved block of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) network: IpNet,
    /// Describes an address in it, with the article: `a loopback address`.
    pub(super) what: &'static str,
}

const fn v4(address: [u8; 4], length: u8, what: &'static str) -> (Ipv4Net, &'static str) {
    let [a, b, c, d] = address;
    (Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length), what)
}

const fn v6(address: [u16; 3], length: u8, what: &'static str) -> (Ipv6Net, &'static str) {
    let [a, b, c] = address;
    (Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), length), what)
}

/// Reserved IPv4 blocks, narrower ones first.
const SET_ASIDE_V4: [(Ipv4Net, &str); 18] = [
    v4([0, 0, 0, 0], 8, "an address of this host on this network (RFC 791)"),
    v4([10, 0, 0, 0], 8, "a private address (RFC 1918)"),
    v4([100, 64, 0, 0], 10, "a shared address of a provider's network (RFC 6598)"),
    v4([127, 0, 0, 0], 8, "a loopback address (RFC 1122)"),
    v4([169, 254, 169, 254], 32, "the address of cloud metadata"),
    v4([169, 254, 0, 0], 16, "a link-local address (RFC 3927)"),
    v4([172, 16, 0, 0], 12, "a private address (RFC 1918)"),
    v4([192, 0, 0, 0], 24, "an address for protocols (RFC 6890)"),
    v4([192, 0, 2, 0], 24, "an address for documentation (RFC 5737)"),
    v4([192, 88, 99, 0], 24, "a relay of 6to4 (RFC 7526)"),
    v4([192, 168, 0, 0], 16, "a private address (RFC 1918)"),
    v4([198, 18, 0, 0], 15, "an address for benchmarks (RFC 2544)"),
    v4([198, 51, 100, 0], 24, "an address for documentation (RFC 5737)"),
    v4([203, 0, 113, 0], 24, "an address for documentation (RFC 5737)"),
    v4([224, 0, 0, 0], 4, "a multicast address (RFC 5771)"),
    v4([255, 255, 255, 255], 32, "the broadcast address (RFC 919)"),
    v4([240, 0, 0, 0], 4, "a reserved address (RFC 1112)"),
    // Used in public clouds, and not in the registries.
    v4([168, 63, 129, 16], 32, "the address of a cloud's own services"),
];

/// The block from which public addresses are assigned (RFC 4291).
const GLOBAL_UNICAST: Ipv6Net = v6([0x2000, 0, 0], 3, "").0;
/// The block into which a translator maps IPv4 addresses (RFC 6052).
const TRANSLATED: Ipv6Net = v6([0x64, 0xff9b, 0], 96, "").0;

/// Reserved IPv6 blocks, narrower ones first.
const SET_ASIDE_V6: [(Ipv6Net, &str); 20] = [
    (Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128), "the loopback address (RFC 4291)"),
    (Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128), "the unspecified address (RFC 4291)"),
    v6([0, 0, 0], 96, "an IPv4-compatible address (RFC 4291)"),
    v6([0x64, 0xff9b, 1], 48, "an address of a translator's own network (RFC 8215)"),
    v6([0x100, 0, 0], 64, "an address whose packets are discarded (RFC 6666)"),
    v6([0x2001, 0, 0], 32, "a Teredo address (RFC 4380)"),
    v6([0x2001, 2, 0], 48, "an address for benchmarks (RFC 5180)"),
    v6([0x2001, 0x10, 0], 28, "an ORCHID (RFC 4843)"),
    v6([0x2001, 0x20, 0], 28, "an ORCHID (RFC 7343)"),
    v6([0x2001, 0, 0], 23, "an address for protocols (RFC 2928)"),
    v6([0x2001, 0xdb8, 0], 32, "an address for documentation (RFC 3849)"),
    v6([0x2002, 0, 0], 16, "a 6to4 address (RFC 3056)"),
    v6([0x3fff, 0, 0], 20, "an address for documentation (RFC 9637)"),
    v6([0x3ffe, 0, 0], 16, "an address of the 6bone that was (RFC 3701)"),
    v6([0x5f00, 0, 0], 16, "a segment identifier (RFC 9602)"),
    (Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), 128), "the address of cloud metadata"),
    v6([0xfc00, 0, 0], 7, "a unique local address (RFC 4193)"),
    v6([0xfe80, 0, 0], 10, "a link-local address (RFC 4291)"),
    v6([0xfec0, 0, 0], 10, "a site-local address (RFC 3879)"),
    v6([0xff00, 0, 0], 8, "a multicast address (RFC 4291)"),
];

/// Returns the reserved block of this address, or `None` if it is public. An IPv4 address mapped into IPv6, or
/// reached through a translator, is judged as that IPv4 address, because that is where the connection leads.
pub(super) fn set_aside(address: IpAddr) -> Option<Block> {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let (network, what) = SET_ASIDE_V4.into_iter().find(|(network, _)| network.contains(&address))?;
            Some(Block { network: network.into(), what })
        }
        IpAddr::V6(address) if TRANSLATED.contains(&address) => {
            let [.., a, b, c, d] = address.octets();
            let behind = set_aside(Ipv4Addr::new(a, b, c, d).into())?;
            Some(Block { network: Ipv6Net::from(address).into(), what: behind.what })
        }
        IpAddr::V6(address) => {
            let named = SET_ASIDE_V6.into_iter().find(|(network, _)| network.contains(&address));
            let unnamed = || {
                let what = "an address that nobody has been given (RFC 4291)";
                (!GLOBAL_UNICAST.contains(&address)).then(|| (Ipv6Net::from(address), what))
            };
            let (network, what) = named.or_else(unnamed)?;
            Some(Block { network: network.into(), what })
        }
    }
}
