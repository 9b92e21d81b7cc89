//! `notify-host top`: a host at a glance, in a terminal.
//!
//! It uses the host's HTTP API like any other client, so the host may be on another machine. It reads no queue and no
//! journal.

mod client;
mod controls;
mod screen;
mod snapshot;

use std::env;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use ::event::text::shown;
use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::cli::command::{unless_cut_off, write_json, write_table};
pub(crate) use crate::cli::top::client::Client;
use crate::cli::top::client::{Act, read_token};
use crate::cli::top::controls::{Controls, KeyAction};
use crate::cli::top::screen::{COLUMNS, Palette, cells, draw, throughput};
use crate::cli::top::snapshot::{Before, Snapshot};

/// Refresh interval.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long the key-reading thread may take to notice that it should end.
const KEYS_INTERVAL: Duration = Duration::from_millis(100);
/// Maximum number of pending key presses.
const KEYS_WAITING_MAX: usize = 64;
/// Number of events in a snapshot printed as text.
const EVENTS_SHOWN: usize = 10;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// URL of the host's admin server: its --admin address
    #[arg(long, value_name = "URL", env = "NOTIFY_ADMIN_URL", default_value = "http://127.0.0.1:9471")]
    url: Url,
    /// File with the host's token, if it requires one; `NOTIFY_ADMIN_TOKEN` can hold the token itself
    #[arg(long, value_name = "FILE", env = "NOTIFY_ADMIN_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Print one snapshot as text and exit; the default without a terminal
    #[arg(long)]
    once: bool,
    /// Print one snapshot as one JSON object and exit
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let token = match &arguments.token_file {
        Some(file) => Some(read_token(file)?),
        None => env::var("NOTIFY_ADMIN_TOKEN").ok().filter(|token| !token.is_empty()),
    };
    let client = Client::new(arguments.url.clone(), token.as_deref())?;
    // Ask before clearing the screen, so that an error about the address stays visible.
    let mut before = Before::default();
    let first = client.look(&mut before).await?;
    let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    if arguments.once || arguments.json || !is_terminal {
        // Rates need two snapshots.
        tokio::time::sleep(INTERVAL).await;
        let snapshot = client.look(&mut before).await?;
        return unless_cut_off(print(&snapshot, arguments.json));
    }
    let coloured = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut signals = Signals::listen()?;
    let (stop, keys) = (CancellationToken::new(), mpsc::channel(KEYS_WAITING_MAX));
    // Restores the terminal when this function ends, and after a panic.
    let mut screen = Screen { terminal: ratatui::try_init()?, _stop: stop.clone().drop_guard() };
    let reading = tokio::task::spawn_blocking(move || read_keys(&keys.0, &stop));
    let watching = Watching { client, snapshot: first, controls: Controls::default(), palette: Palette { coloured } };
    let done = watching.run(&mut screen.terminal, before, keys.1, &mut signals).await;
    drop(screen);
    // The thread notices within `KEYS_INTERVAL` that it should end.
    let _ = reading.await;
    done
}

struct Screen {
    terminal: ratatui::DefaultTerminal,
    _stop: tokio_util::sync::DropGuard,
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Signals that end the program, besides keys.
struct Signals([Signal; 3]);

impl Signals {
    fn listen() -> io::Result<Self> {
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn any(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// Input from the terminal.
enum Input {
    Key(KeyEvent),
    Resized,
    /// The terminal is gone.
    Ended,
}

fn read_keys(keys: &mpsc::Sender<Input>, stop: &CancellationToken) {
    while !stop.is_cancelled() {
        let input = match event::poll(KEYS_INTERVAL) {
            Ok(false) => continue,
            Ok(true) => event::read(),
            Err(error) => Err(error),
        };
        let input = match input {
            Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => Input::Key(key),
            Ok(Event::Resize(..)) => Input::Resized,
            Ok(_) => continue,
            Err(_) => Input::Ended,
        };
        let is_end = matches!(input, Input::Ended);
        if keys.blocking_send(input).is_err() || is_end {
            return;
        }
    }
}

/// A running display of one host.
struct Watching {
    client: Client,
    snapshot: Snapshot,
    controls: Controls,
    palette: Palette,
}

impl Watching {
    /// Runs until a key or a signal ends it. The host is polled in a task, so that keys work even if it is slow.
    async fn run(
        mut self,
        terminal: &mut ratatui::DefaultTerminal,
        before: Before,
        mut keys: mpsc::Receiver<Input>,
        signals: &mut Signals,
    ) -> anyhow::Result<()> {
        let (looks, mut snapshots) = mpsc::channel(1);
        // Dropped at the end of this function, which ends the tasks.
        let mut tasks = JoinSet::new();
        tasks.spawn(look_on(self.client.clone(), before, looks));
        let mut acts = JoinSet::new();
        loop {
            terminal.draw(|frame| draw(frame, &self.snapshot, &self.controls, self.palette))?;
            let action = tokio::select! {
                () = signals.any() => return Ok(()),
                input = keys.recv() => match input {
                    Some(Input::Key(key)) => self.controls.press(key, &self.snapshot),
                    Some(Input::Resized) => KeyAction::Nothing,
                    Some(Input::Ended) | None => return Ok(()),
                },
                Some(looked) = snapshots.recv() => {
                    match looked {
                        Ok(snapshot) => self.snapshot = snapshot,
                        Err(problem) => self.snapshot.problem = Some(problem),
                    }
                    KeyAction::Nothing
                }
                Some(said) = acts.join_next() => {
                    self.controls.said = Some(said?);
                    KeyAction::Nothing
                }
            };
            match action {
                KeyAction::Nothing => {}
                KeyAction::Quit => return Ok(()),
                KeyAction::Do(act, plugin) => {
                    self.controls.said = Some(doing(act, &plugin));
                    let client = self.client.clone();
                    acts.spawn(
                        async move { client.act(act, &plugin).await.unwrap_or_else(|error| format!("{error:#}")) },
                    );
                }
            }
        }
    }
}

/// Takes snapshots for as long as anybody receives them.
async fn look_on(client: Client, mut before: Before, looks: mpsc::Sender<Result<Snapshot, String>>) {
    let mut next = tokio::time::interval(INTERVAL);
    next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The first tick is immediate, and there is a first snapshot already.
    next.tick().await;
    loop {
        next.tick().await;
        let looked = client.look(&mut before).await.map_err(|error| format!("{error:#}"));
        if looks.send(looked).await.is_err() {
            return;
        }
    }
}

fn doing(act: Act, plugin: &str) -> String {
    format!("asking the host to {} {plugin} …", act.word())
}

fn print(snapshot: &Snapshot, json: bool) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    if json {
        write_json(&mut out, &snapshot.to_json())?;
        return out.flush();
    }
    let host = &snapshot.host;
    let ready = if host.ready { "ready".to_owned() } else { format!("not ready: {}", shown(&host.reasons.join("; "))) };
    let away = if host.broker.connected { "" } else { " (away)" };
    let (version, broker, queue) = (shown(&host.version), shown(&host.broker.url), shown(&host.source.queue));
    writeln!(out, "notify-host {version} at {}, process {}: {ready}", snapshot.url, host.process)?;
    writeln!(out, "broker {broker}{away}, queue {queue}")?;
    writeln!(out, "{}", throughput(&snapshot.now()))?;
    writeln!(out)?;
    let rows: Vec<_> = snapshot.plugins.iter().map(cells).collect();
    write_table(&mut out, COLUMNS.map(|(heading, _)| heading), &rows, |_| Vec::new())?;
    if rows.is_empty() {
        writeln!(out, "there is no plugin")?;
    }
    for (at, event) in snapshot.events.iter().take(EVENTS_SHOWN).enumerate() {
        if at == 0 {
            writeln!(out)?;
        }
        writeln!(out, "{}", event.line())?;
    }
    if let Some(problem) = &snapshot.no_events {
        writeln!(out, "\n{}", shown(problem))?;
    }
    out.flush()
}
