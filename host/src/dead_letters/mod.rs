//! The operator's commands for dead letters: list, show, replay, edit, purge.
//!
//! They work on the queue itself, while hosts run. A letter that is replayed is published to the
//! plugin's own queue and only then removed: a crash in between repeats it, and loses nothing.

mod ask;
mod browse;
mod edit;
mod letter;
mod print;
mod replay;
mod select;

use std::io::Write as _;

use broker::BrokerUrl;
use clap::{Args, Subcommand};

use crate::config::HostConfig;
use crate::dead_letters::ask::{Answer, confirm};
use crate::dead_letters::browse::{Browser, Letter, connect};
use crate::dead_letters::select::Selection;

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
        id: String,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Gives letters back to the plugin that failed, and to no other, with fresh attempts
    ///
    /// A message that was no event goes back to the source's queue: the rules that read it may have
    /// changed. What the letter says of earlier rounds is kept.
    Replay(Change),
    /// Deletes letters for good
    Purge(Change),
    /// Opens an event's data in $VISUAL or $EDITOR, and gives the changed one to the plugin that failed
    ///
    /// The changed event is a new one with an id of its own; x-notify-replaces names the old one.
    Edit {
        /// The letter's id, or the beginning of it, or the event's id
        id: String,
    },
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "these are switches of a command line")]
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
            let Some((browser, letters)) = find(config, url, &selection).await? else { return Ok(()) };
            let printed = print::list(&letters, json);
            let count = letters.len();
            browser.close(letters).await?;
            if !json {
                eprintln!("{}", print::letters(count));
            }
            ignore_broken_pipe(printed)
        }
        Action::Show { id, json } => {
            let (browser, letter) = find_one(config, url, &id).await?;
            let printed = print::show(&letter, json);
            browser.close(vec![letter]).await?;
            ignore_broken_pipe(printed)
        }
        Action::Replay(change) => {
            let Some((browser, letters)) = find_for_change(config, url, &change, "replay").await? else {
                return Ok(());
            };
            let (done, left) = replay::all(&browser.broker, config, letters).await;
            finish(browser, "replayed", done, left, change.json).await
        }
        Action::Purge(change) => {
            let Some((browser, letters)) = find_for_change(config, url, &change, "delete").await? else {
                return Ok(());
            };
            let count = letters.len();
            letters.into_iter().for_each(Letter::remove);
            finish(browser, "deleted", count, Ok(()), change.json).await
        }
        Action::Edit { id } => {
            let (browser, letter) = find_one(config, url, &id).await?;
            let edited = edit::edit(&letter.trail, &letter.message);
            match edited {
                Ok(Some((trail, message))) => {
                    let id = letter.summary.id.clone();
                    let published = replay::one(&browser.broker, config, &trail, &message).await;
                    if let Err(error) = published {
                        browser.close(vec![letter]).await?;
                        return Err(error);
                    }
                    letter.remove();
                    browser.close(Vec::new()).await?;
                    eprintln!("replaced {id} by an event with the data you wrote");
                    Ok(())
                }
                Ok(None) => {
                    browser.close(vec![letter]).await?;
                    eprintln!("nothing was changed: the letter stays as it is");
                    Ok(())
                }
                Err(error) => {
                    browser.close(vec![letter]).await?;
                    Err(error)
                }
            }
        }
    }
}

async fn find(
    config: &HostConfig,
    url: &BrokerUrl,
    selection: &Selection,
) -> anyhow::Result<Option<(Browser, Vec<Letter>)>> {
    let names = &config.source.names;
    let found = Browser::find(connect(url).await?, names, selection).await?;
    if found.is_none() {
        eprintln!("there are no dead letters: no host has made the queue {:?} at {url} yet", names.dead());
    }
    Ok(found)
}

async fn find_one(config: &HostConfig, url: &BrokerUrl, id: &str) -> anyhow::Result<(Browser, Letter)> {
    let none =
        || anyhow::anyhow!("there is no dead letter {id:?}: `notify-host dead-letters list` shows those there are");
    let Some((browser, mut letters)) = find(config, url, &Selection::of_id(id)).await? else { return Err(none()) };
    match (letters.pop(), letters.len()) {
        (Some(letter), 0) => Ok((browser, letter)),
        (Some(letter), others) => {
            let ids: Vec<_> = letters.iter().map(|letter| letter.summary.id.clone()).take(5).collect();
            letters.push(letter);
            browser.close(letters).await?;
            anyhow::bail!(
                "{id:?} stands for {} dead letters ({}, …): give more of the letter's id",
                others + 1,
                ids.join(", ")
            )
        }
        (None, _) => {
            browser.close(Vec::new()).await?;
            Err(none())
        }
    }
}

/// `None`: there is nothing to do, and the user knows it.
async fn find_for_change(
    config: &HostConfig,
    url: &BrokerUrl,
    change: &Change,
    verb: &str,
) -> anyhow::Result<Option<(Browser, Vec<Letter>)>> {
    if change.selection.is_empty() && !change.all {
        anyhow::bail!(
            "say which letters to {verb}, by --plugin, --event-type, --reason, --older-than, --newer-than or --id; or --all"
        );
    }
    let Some((browser, letters)) = find(config, url, &change.selection).await? else { return Ok(None) };
    let count = print::letters(letters.len());
    if letters.is_empty() {
        eprintln!("no dead letter matches");
    } else if change.dry_run {
        let printed = print::list(&letters, change.json);
        eprintln!("would {verb} {count}");
        browser.close(letters).await?;
        return ignore_broken_pipe(printed).map(|()| None);
    } else {
        match confirm(&format!("{verb} {count}?"), change.yes) {
            Answer::Yes => return Ok(Some((browser, letters))),
            Answer::No => eprintln!("nothing was done"),
            Answer::NobodyToAsk => {
                browser.close(letters).await?;
                anyhow::bail!("there is nobody to ask whether to {verb} {count}: add --yes");
            }
        }
    }
    browser.close(letters).await?;
    Ok(None)
}

/// Closes, which makes the removals certain, and then says what was done.
async fn finish(
    browser: Browser,
    done: &str,
    count: usize,
    outcome: anyhow::Result<()>,
    json: bool,
) -> anyhow::Result<()> {
    browser.close(Vec::new()).await?;
    if json {
        ignore_broken_pipe(writeln!(std::io::stdout(), "{{\"{done}\":{count}}}"))?;
    } else {
        eprintln!("{done} {}", print::letters(count));
    }
    outcome
}

/// Whoever reads our output may have read enough.
fn ignore_broken_pipe(printed: std::io::Result<()>) -> anyhow::Result<()> {
    match printed {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}
