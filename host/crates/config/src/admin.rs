//! The settings of the admin server: where it listens, and who may use it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use crate::reader::{Faults, Table, key};

/// Default listen address.
const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9471);

/// The settings of the admin server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminConfig {
    pub listen: Listen,
    /// File with the token that every request must carry. `None`: no token is required.
    pub token_file: Option<PathBuf>,
    /// Host names that are accepted besides the address and this machine's loopback names.
    pub hosts: Vec<String>,
}

/// Where the admin server listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listen {
    /// At the default address, if it is free.
    #[default]
    IfFree,
    At(SocketAddr),
    Off,
}

impl Listen {
    pub fn address(self) -> Option<SocketAddr> {
        match self {
            Self::IfFree => Some(DEFAULT),
            Self::At(address) => Some(address),
            Self::Off => None,
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let address =
            text.strip_prefix("localhost:").map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
        address.parse().map(Self::At).map_err(|_| {
            format!(
                "expected an address and a port, such as \"127.0.0.1:9471\" or \"[::1]:9471\", or \"off\", got {text:?}"
            )
        })
    }
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.address() {
            Some(address) => address.fmt(f),
            None => f.write_str("off"),
        }
    }
}

impl AdminConfig {
    /// Reads the keys `admin`, `admin-token-file` and `admin-hosts` of the host's file.
    pub(super) fn read(faults: &mut Faults<'_>, top: &mut Table<'_>) -> Self {
        let listen = key("admin", "Where the dashboard, metrics, health and the API are served: an address and a port, or off. Where other machines can reach it, it needs admin-token-file")
            .otherwise("127.0.0.1:9471, if that is free")
            .example("127.0.0.1:9471");
        let token_file = key("admin-token-file", "A file with the token that every request must bring")
            .otherwise("None is asked for")
            .example("/run/secrets/notify-admin-token");
        let hosts =
            key("admin-hosts", "Names, besides the address and those of this machine, by which it may be called")
                .default("[]")
                .example("[\"notify.example.com\"]");
        let config = Self {
            listen: top.parsed(faults, listen).unwrap_or_default(),
            token_file: top.path(faults, token_file),
            hosts: top.list_of(faults, hosts, host_name).unwrap_or_default(),
        };
        // A token file that is named but invalid has been reported already.
        if let Some(problem) = config.problem().filter(|_| !top.has("admin-token-file")) {
            top.fault_of(faults, "admin", &problem);
        }
        config
    }

    /// Checks the settings against each other.
    fn problem(&self) -> Option<String> {
        let address = self.listen.address().filter(|address| !address.ip().to_canonical().is_loopback())?;
        self.token_file.is_none().then(|| {
            format!(
                "{address} can be reached from other machines, so that a token is needed: name a file with one by \
                 admin-token-file (or --admin-token-file), or listen at {DEFAULT}"
            )
        })
    }
}

/// Parses a host name as it stands in a Host header, without the port.
pub(super) fn host_name(text: &str) -> Result<String, String> {
    let is_name = !text.is_empty()
        && text.len() <= 253
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']'));
    if is_name {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(format!("expected a host's name, without scheme and port, got {text:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_others_can_reach_needs_a_token() {
        for (listen, token, is_well) in [
            ("off", None, true),
            ("127.0.0.1:0", None, true),
            ("localhost:80", None, true),
            ("[::1]:9471", None, true),
            ("[::ffff:127.0.0.1]:9471", None, true),
            ("0.0.0.0:9471", None, false),
            ("[::]:9471", None, false),
            ("192.168.1.2:9471", None, false),
            ("0.0.0.0:9471", Some("token"), true),
        ] {
            let config = AdminConfig {
                listen: listen.parse().unwrap(),
                token_file: token.map(PathBuf::from),
                hosts: Vec::new(),
            };
            assert_eq!(config.problem().is_none(), is_well, "{listen}: {:?}", config.problem());
        }
        assert_eq!(AdminConfig::default().listen.to_string(), "127.0.0.1:9471");
        assert!("9471".parse::<Listen>().unwrap_err().contains("got \"9471\""));
    }
}
