//! Commands that change many dead letters at once. They need an explicit selection and a confirmation.

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use broker::{Broker, BrokerUrl};
use config::HostConfig;
use dead_letters::Selection;
use dead_letters::browse::{Browser, Letter, Need};
use dead_letters::replay::{self, Tally};
use dead_letters::session::within_time;
use event::text::{counted, shown};

use crate::cli::command::{say, unless_cut_off};
use crate::cli::confirm::{ConfirmAnswer, confirm};
use crate::cli::dead_letters::{Change, find, print};
use crate::exit::WrongArguments;

const LETTER: &str = "dead letter";
/// Maximum number of reasons shown. Further ones are only counted.
const REASONS_SHOWN_MAX: usize = 10;
/// Interval of progress updates.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

pub(super) async fn replay(config: &HostConfig, url: &BrokerUrl, change: &Change) -> anyhow::Result<()> {
    let Some((browser, letters)) = agreed(config, url, change, "replay", Need::Message).await? else {
        return Ok(());
    };
    let plugins = replay::plugins_of(&letters);
    let mut progress = ProgressLine::new();
    let tally = replay::all(&browser.broker, config, letters, |done, total| progress.show(done, total)).await;
    progress.clear();
    if tally.lost.is_none() {
        say_who_waits(&browser.broker, config, &plugins).await;
    }
    finish(browser, "replayed", tally, change.json).await
}

pub(super) async fn purge(config: &HostConfig, url: &BrokerUrl, change: &Change) -> anyhow::Result<()> {
    let Some((browser, letters)) = agreed(config, url, change, "delete", Need::Summary).await? else {
        return Ok(());
    };
    let tally = Tally { done: letters.len(), ..Tally::default() };
    letters.into_iter().for_each(Letter::remove);
    finish(browser, "deleted", tally, change.json).await
}

/// Finds the selected letters and asks for confirmation. `None`: there is nothing to do, and the user has been told.
async fn agreed(
    config: &HostConfig,
    url: &BrokerUrl,
    change: &Change,
    verb: &str,
    need: Need,
) -> anyhow::Result<Option<(Browser, Vec<Letter>)>> {
    let selection = Selection::from(change.selection.clone());
    if selection.is_empty() && !change.all {
        return Err(WrongArguments(format!(
            "say which letters to {verb}, by --plugin, --event-type, --code, --reason, --older-than, --newer-than or \
             --id; or --all"
        ))
        .into());
    }
    let Some((browser, letters)) = find(config, url, &selection, need).await? else { return Ok(None) };
    let count = counted(letters.len(), LETTER);
    if letters.is_empty() {
        browser.close().await?;
        say!("no dead letter matches");
        return Ok(None);
    }
    if change.dry_run {
        let printed = print::list(&letters, change.json);
        browser.close().await?;
        say!("would {verb} {count}");
        return unless_cut_off(printed).map(|()| None);
    }
    let answer = if change.yes { ConfirmAnswer::Yes } else { confirm(&format!("{verb} {count}?")).await };
    let refused = match answer {
        ConfirmAnswer::Yes => return Ok(Some((browser, letters))),
        ConfirmAnswer::No => None,
        ConfirmAnswer::NobodyToAsk => Some(format!("there is nobody to ask whether to {verb} {count}: add --yes")),
        ConfirmAnswer::NotGiven => Some("nobody answered, and nothing was done".to_owned()),
    };
    browser.close().await?;
    match refused {
        None => {
            say!("nothing was done");
            Ok(None)
        }
        Some(problem) => anyhow::bail!(problem),
    }
}

/// Closes the session, which commits the removals, and reports the result.
async fn finish(browser: Browser, done: &str, tally: Tally, json: bool) -> anyhow::Result<()> {
    let Tally { done: count, stayed, lost } = tally;
    let closed = browser.close().await;
    if json {
        unless_cut_off(writeln!(std::io::stdout(), "{{\"{done}\":{count}}}"))?;
    } else {
        say!("{done} {}", counted(count, LETTER));
    }
    for (id, reason) in stayed.iter().take(REASONS_SHOWN_MAX) {
        say!("{id} stays: {}", shown(reason));
    }
    if let Some(error) = lost {
        return Err(error);
    }
    if let Err(error) = closed {
        let problem = format!("some of what was {done} may be among the dead letters again: look before you repeat it");
        return Err(error.context(problem));
    }
    match stayed.len() {
        0 => Ok(()),
        count => anyhow::bail!("{} could not be {done}", counted(count, LETTER)),
    }
}

/// Tells the user about queues without a consumer, where replayed letters will wait.
async fn say_who_waits(broker: &Broker, config: &HostConfig, plugins: &BTreeSet<String>) {
    for plugin in plugins {
        let queue = config.source.names.plugin(plugin);
        if let Ok(Some(state)) = within_time(broker.inspect(&queue)).await
            && state.consumers == 0
        {
            say!(
                "no host takes from queue {queue:?} now: what plugin {plugin:?} got waits there until a host runs it \
                 and it is not paused"
            );
        }
    }
}

/// A progress line for a person at a terminal.
struct ProgressLine {
    last: Instant,
    shown: bool,
}

impl ProgressLine {
    fn new() -> Self {
        Self { last: Instant::now(), shown: false }
    }

    fn show(&mut self, done: usize, total: usize) {
        if self.last.elapsed() >= PROGRESS_INTERVAL && std::io::stderr().is_terminal() {
            let _ = write!(std::io::stderr(), "\r{done} of {total}");
            (self.last, self.shown) = (Instant::now(), true);
        }
    }

    fn clear(&self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
