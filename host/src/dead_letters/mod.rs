//! The operator's commands for dead letters: list, show, replay, edit, purge.
//!
//! They work on the queue itself, while hosts run. A letter that is replayed is published to the
//! plugin's own queue and only then removed: a crash in between repeats it, and loses nothing.

mod browse;
mod change;
mod desk;
mod edit;
mod editor;
mod letter;
mod print;
mod replay;
mod select;
mod successor;

use broker::BrokerUrl;
use clap::builder::NonEmptyStringValueParser as NotEmpty;
use clap::{Args, Subcommand};

use crate::command::{counted, say, unless_cut_off};
use crate::config::HostConfig;
use crate::dead_letters::browse::{Browser, Letter, Need};
pub(crate) use crate::dead_letters::desk::{Changed, Desk, DeskError};
pub(crate) use crate::dead_letters::select::Selection;

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Lists dead letters, those that died last at the end
    List {
        #[command(flatten)]
        selection: Selection,
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

#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[derive(Debug, Args)]
pub(crate) struct Change {
    #[command(flatten)]
    selection: Selection,
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
            let Some((browser, letters)) = find(config, url, &selection, Need::Summary).await? else { return Ok(()) };
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

/// The one that is meant by the id by which these were found. The error says that there are several.
fn the_one(mut letters: Vec<Letter>, id: &str) -> Result<Option<Letter>, String> {
    // Copies of one letter share an id, and all else with it.
    letters.sort_by(|one, other| one.summary.id.cmp(&other.summary.id));
    letters.dedup_by(|next, letter| next.summary.id == letter.summary.id);
    if letters.len() < 2 {
        return Ok(letters.pop());
    }
    let name = |letter: &Letter| {
        format!("{} of {}", letter.summary.id, letter.summary.plugin.as_deref().unwrap_or("no plugin"))
    };
    let some: Vec<_> = letters.iter().rev().take(5).map(name).collect();
    Err(format!("event {id:?} has {} dead letters: say which, by its id ({}, …)", letters.len(), some.join(", ")))
}
