//! `notify-host dead-letters`: lists, shows, replays, edits and deletes dead letters.

mod change;
mod edit;
mod editor;
mod print;

use std::num::NonZeroUsize;
use std::time::Duration;

use broker::BrokerUrl;
use clap::builder::NonEmptyStringValueParser as NotEmpty;
use clap::{Args, Subcommand};
use config::{HostConfig, parse_duration};
use dead_letters::browse::{Browser, Letter, Need};
use dead_letters::{Selection, the_one};
use event::text::counted;

use crate::cli::command::{say, unless_cut_off};

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// List dead letters, the most recent last
    List {
        #[command(flatten)]
        selection: SelectionArguments,
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Show everything known about a dead letter
    Show {
        /// Letter id, a prefix of it, or event id
        #[arg(value_parser = NotEmpty::new())]
        id: String,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Return dead letters to the plugin that failed, with a fresh set of attempts
    ///
    /// The letter's history of earlier rounds is kept. A message that could not be decoded returns to the source queue
    /// if the decoding rules of this configuration can read it now.
    Replay(Change),
    /// Delete dead letters permanently
    Purge(Change),
    /// Edit an event's data in $VISUAL or $EDITOR, and send the edited event to the plugin that failed
    ///
    /// The edited event is new and has its own id; its header x-notify-replaces names the old one. For a message that
    /// could not be decoded, the whole message is opened.
    Edit {
        /// Letter id, a prefix of it, or event id
        #[arg(value_parser = NotEmpty::new())]
        id: String,
    },
}

/// Selects letters; all conditions must match. No text may be empty: it would match every letter, and an empty variable
/// in a script would delete them all.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SelectionArguments {
    /// Only letters of this plugin
    #[arg(long, value_name = "NAME", value_parser = NotEmpty::new())]
    plugin: Option<String>,
    /// Only letters of this event type; `*` stands for one word, `#` for any number of words
    #[arg(long, value_name = "PATTERN", value_parser = NotEmpty::new())]
    event_type: Option<String>,
    /// Only letters whose code contains this text
    #[arg(long, value_name = "TEXT", value_parser = NotEmpty::new())]
    code: Option<String>,
    /// Only letters whose code or reason contains this text
    #[arg(long, value_name = "TEXT", value_parser = NotEmpty::new())]
    reason: Option<String>,
    /// Only letters last tried longer ago than this, e.g. 2h or 7d
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    older_than: Option<Duration>,
    /// Only letters last tried within this time
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    newer_than: Option<Duration>,
    /// Only the letter with this event id, letter id or prefix of a letter id
    #[arg(long, value_name = "ID", value_parser = NotEmpty::new())]
    id: Option<String>,
    /// At most this many letters, the oldest first
    #[arg(long, value_name = "N")]
    limit: Option<NonZeroUsize>,
}

impl From<SelectionArguments> for Selection {
    fn from(arguments: SelectionArguments) -> Self {
        let SelectionArguments { plugin, event_type, code, reason, older_than, newer_than, id, limit } = arguments;
        Self { plugin, event_type, code, reason, older_than, newer_than, id, limit }
    }
}

#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[derive(Debug, Args)]
pub(crate) struct Change {
    #[command(flatten)]
    selection: SelectionArguments,
    /// Select every letter
    #[arg(long)]
    all: bool,
    /// Show which letters would be affected, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation
    #[arg(long, short)]
    yes: bool,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(action: Action, config: &HostConfig, url: &BrokerUrl) -> anyhow::Result<()> {
    match action {
        Action::List { selection, json } => {
            let Some((browser, letters)) = find(config, url, &selection.into(), Need::Summary).await? else {
                return Ok(());
            };
            let printed = print::list(&letters, json);
            browser.close().await?;
            if !json {
                say!("{}", counted(letters.len(), "dead letter"));
            }
            unless_cut_off(printed)
        }
        Action::Show { id, json } => {
            let (browser, letter) = find_one(config, url, &id).await?;
            let printed = print::show(&letter, json);
            browser.close().await?;
            unless_cut_off(printed)
        }
        Action::Replay(change) => change::replay(config, url, &change).await,
        Action::Purge(change) => change::purge(config, url, &change).await,
        Action::Edit { id } => Box::pin(edit::edit(config, url, &id)).await,
    }
}

/// Finds the selected letters. `None`: there is no queue of dead letters, and the user has been told.
async fn find(
    config: &HostConfig,
    url: &BrokerUrl,
    selection: &Selection,
    need: Need,
) -> anyhow::Result<Option<(Browser, Vec<Letter>)>> {
    let names = &config.source.names;
    let found = Browser::find(url, names, selection, need).await?;
    if found.is_none() {
        say!("there are no dead letters: no host has made the queue {:?} at {url} yet", names.dead());
    }
    Ok(found)
}

async fn find_one(config: &HostConfig, url: &BrokerUrl, id: &str) -> anyhow::Result<(Browser, Letter)> {
    let none =
        || anyhow::anyhow!("there is no dead letter {id:?}: `notify-host dead-letters list` shows those there are");
    let found = find(config, url, &Selection::of_id(id), Need::Message).await?;
    let Some((browser, letters)) = found else { return Err(none()) };
    match the_one(letters, id) {
        Ok(Some(letter)) => Ok((browser, letter)),
        Ok(None) => {
            browser.close().await?;
            Err(none())
        }
        Err(problem) => {
            browser.close().await?;
            anyhow::bail!(problem)
        }
    }
}
