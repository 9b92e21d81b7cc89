//! `notify-host health`: asks a host as a probe does, for places without another HTTP client, such as a container
//! without a shell.

use std::io::{self, Write as _};

use anyhow::bail;
use clap::Args;
use event::text::shown;
use url::Url;

use crate::cli::command::unless_cut_off;
use crate::cli::top::Client;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Also require that the host takes events
    #[arg(long)]
    ready: bool,
    /// URL of the host's admin server: its --admin address
    #[arg(long, value_name = "URL", env = "NOTIFY_ADMIN_URL", default_value = "http://127.0.0.1:9471")]
    url: Url,
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let client = Client::new(arguments.url.clone(), None)?;
    let (path, well) = if arguments.ready { ("readyz", "ready") } else { ("healthz", "ok") };
    let (is_well, answer) = client.probe(path).await?;
    if is_well {
        return unless_cut_off(writeln!(io::stdout(), "{well}"));
    }
    let reasons = answer["reasons"].as_array().into_iter().flatten();
    let reasons: Vec<_> = reasons.filter_map(|reason| reason.as_str().map(shown)).collect();
    bail!("the host is not ready: {}", reasons.join("; "))
}
