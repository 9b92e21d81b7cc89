//! `notify-host dead-letters`: lists, shows, replays, edits and deletes what was given up.

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
    /// Lists dead letters, those that died last at the end
    List {
        #[command(flatten)]
        selection: SelectionArguments,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Shows all that is known of one
    Show {
        /// The letter's id, or the beginning of it, or the event's id
        #[arg(value_parser = NotEmpty::new())]
        id: String,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Gives letters back to the plugin that failed, and to no other, with fresh attempts
    ///
    /// What the letter says of earlier rounds is kept. A message that was no event goes back to the
    /// source's queue, if the rules of this configuration can read it now.
    Replay(Change),
    /// Deletes letters for good
    Purge(Change),
    /// Opens an event's data in $VISUAL or $EDITOR, and gives the changed one to the plugin that failed
    ///
    /// The changed event is a new one with an id of its own; the header x-notify-replaces names the
    /// old one. Of a message that was no event, all of it is opened.
    Edit {
        /// The letter's id, or the beginning of it, or the event's id
        #[arg(value_parser = NotEmpty::new())]
        id: String,
    },
}

/// Which letters are meant; all that are given must match. No text may be empty: it would match every letter, and an
/// empty variable in a script would delete them all.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SelectionArguments {
    /// Of this plugin
    #[arg(long, value_name = "NAME", value_parser = NotEmpty::new())]
    plugin: Option<String>,
    /// Of this event type; `*` stands for a word, `#` for any number of them
    #[arg(long, value_name = "PATTERN", value_parser = NotEmpty::new())]
    event_type: Option<String>,
    /// Whose code contains this text
    #[arg(long, value_name = "TEXT", value_parser = NotEmpty::new())]
    code: Option<String>,
    /// Whose code or reason contains this text
    #[arg(long, value_name = "TEXT", value_parser = NotEmpty::new())]
    reason: Option<String>,
    /// That were last tried longer ago than this, e.g. 2h or 7d
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    older_than: Option<Duration>,
    /// That were last tried within this time
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    newer_than: Option<Duration>,
    /// By the event's id, or the letter's id, or the beginning of that
    #[arg(long, value_name = "ID", value_parser = NotEmpty::new())]
    id: Option<String>,
    /// At most so many, those that died first
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
    /// Every letter
    #[arg(long)]
    all: bool,
    /// Only say which letters are meant
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Say what was done as one JSON object
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

/// `None`: there can be none, and the user knows it.
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
