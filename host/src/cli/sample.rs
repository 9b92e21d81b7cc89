//! A sample event from a file, for commands that show what would become of it. No broker is involved.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use broker::Message;
use clap::Args;
use config::HostConfig;
use event::{Arrived, DecodeError, Event, decode};

/// Maximum bytes of a message; brokers take no larger ones by default.
const MESSAGE_BYTES_MAX: u64 = 128 << 20;

#[derive(Debug, Args)]
pub(crate) struct SampleArguments {
    /// File with a message as it would be published: structured CloudEvents or other JSON; - for standard input
    #[arg(long, value_name = "FILE")]
    event: PathBuf,
    /// Treat the message as published with this routing key
    #[arg(long, value_name = "KEY", default_value = "", hide_default_value = true)]
    routing_key: String,
    /// Treat the message as published to this exchange [default: the one of the configuration, or orders]
    #[arg(long, value_name = "NAME")]
    exchange: Option<String>,
}

impl SampleArguments {
    /// Decodes the event by the host's rules.
    pub(crate) fn read(&self, config: &HostConfig) -> anyhow::Result<Event> {
        let (bytes, name) = self.bytes()?;
        let message = Message::json(bytes);
        let exchange = self.exchange.as_deref().unwrap_or(&config.source.exchange);
        let arrived = Arrived { message: &message, exchange, routing_key: &self.routing_key };
        decode(arrived, &config.rules).map_err(|error| match error {
            DecodeError::NoType if self.routing_key.is_empty() => {
                anyhow::anyhow!("{name}: {error} (--routing-key stands for the one that the publisher would give)")
            }
            error => anyhow::anyhow!("{name}: {error}"),
        })
    }

    fn bytes(&self) -> anyhow::Result<(Vec<u8>, String)> {
        let mut bytes = Vec::new();
        let name = if self.event == Path::new("-") {
            std::io::stdin().lock().take(MESSAGE_BYTES_MAX + 1).read_to_end(&mut bytes).context("cannot read it")?;
            "standard input".to_owned()
        } else {
            let name = self.event.display().to_string();
            let file = std::fs::File::open(&self.event).with_context(|| format!("cannot read {name}"))?;
            file.take(MESSAGE_BYTES_MAX + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {name}"))?;
            name
        };
        if bytes.len() as u64 > MESSAGE_BYTES_MAX {
            bail!("{name} has more than {} MiB: a message is one event", MESSAGE_BYTES_MAX >> 20);
        }
        Ok((bytes, name))
    }
}
