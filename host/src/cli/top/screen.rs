//! Draws the screen from a snapshot.

use event::text::{counted, shown};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Clear, Paragraph, Row, Sparkline, Table, TableState};

use crate::cli::top::client::Act;
use crate::cli::top::controls::Controls;
use crate::cli::top::snapshot::{Plugin, Snapshot, StatsSample};

/// Minimum screen heights for the plot and for the events. A lower screen first drops the plot, then the events.
const PLOT_FROM_HEIGHT: u16 = 16;
const EVENTS_FROM_HEIGHT: u16 = 11;
const PLOT_HEIGHT: u16 = 5;

const HELP: [&str; 8] = [
    "up, down, page up, page down, home, end   select a plugin",
    "p   pause it: its events wait in its queue",
    "r   resume it, also one that is failing or misconfigured",
    "?   this",
    "q   quit",
    "",
    "EVENTS/S are attempts. QUEUE is what waits in the plugin's own queue, OLDEST how long.",
    "Any key closes this.",
];

/// Colours and emphasis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Palette {
    pub(super) coloured: bool,
}

impl Palette {
    fn colour(self, colour: Color) -> Style {
        if self.coloured { Style::new().fg(colour) } else { Style::new() }
    }

    fn good(self) -> Style {
        self.colour(Color::Green)
    }

    fn attention(self) -> Style {
        self.colour(Color::Yellow)
    }

    fn bad(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn quiet(self) -> Style {
        if self.coloured { Style::new().fg(Color::DarkGray) } else { Style::new() }
    }

    fn state(self, state: &str) -> Style {
        match state {
            "running" => self.good(),
            "failing" | "misconfigured" | "broken" | "not-loaded" => self.bad(),
            "disabled" => self.quiet(),
            _ => self.attention(),
        }
    }
}

pub(super) fn draw(frame: &mut Frame<'_>, snapshot: &Snapshot, controls: &Controls, palette: Palette) {
    let height = frame.area().height;
    let plot_height = if height >= PLOT_FROM_HEIGHT { PLOT_HEIGHT } else { 1 };
    let plugin_rows = u16::try_from(snapshot.plugins.len().max(1)).unwrap_or(u16::MAX).saturating_add(2);
    let events = if height >= EVENTS_FROM_HEIGHT { Constraint::Min(3) } else { Constraint::Length(0) };
    let [head, plot, plugins, events, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(plot_height),
        Constraint::Max(plugin_rows.min((height / 2).max(4))),
        events,
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_head(frame, head, snapshot, palette);
    draw_throughput(frame, plot, snapshot, palette);
    draw_plugins(frame, plugins, snapshot, controls, palette);
    draw_events(frame, events, snapshot, palette);
    draw_foot(frame, foot, controls, palette);
    if controls.help {
        draw_help(frame);
    }
}

fn draw_head(frame: &mut Frame<'_>, area: Rect, snapshot: &Snapshot, palette: Palette) {
    let host = &snapshot.host;
    let (word, style) = match (&snapshot.problem, host.ready) {
        (Some(_), _) => ("away", palette.bad()),
        (None, true) => ("ready", palette.good()),
        (None, false) => ("not ready", palette.bad()),
    };
    let broker = if host.broker.connected { "" } else { " (away)" };
    let first = Line::from(vec![
        Span::styled("notify-host ", Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(format!("{} ", shown(&host.version))),
        Span::styled(word, style),
        Span::raw(format!(
            "  {}{broker}  exchange {}, queue {}  process {}",
            shown(&host.broker.url),
            shown(&host.source.exchange),
            shown(&host.source.queue),
            host.process
        )),
    ]);
    let second = match &snapshot.problem {
        Some(problem) => Line::styled(shown(problem), palette.bad()),
        None if host.ready => Line::styled(format!("at {}", snapshot.url), palette.quiet()),
        None => Line::styled(shown(&host.reasons.join("; ")), palette.bad()),
    };
    frame.render_widget(Paragraph::new(vec![first, second]), area);
}

/// Describes the last second in one sentence.
pub(super) fn throughput(now: &StatsSample) -> String {
    let StatsSample { received, failed, dead, p50_micros, p99_micros, in_flight } = now;
    format!(
        "{received} events/s, {failed} failed, {} more; p50 {}, p99 {}; {in_flight} in flight",
        counted(usize::try_from(*dead).unwrap_or(usize::MAX), "dead letter"),
        micros(*p50_micros),
        micros(*p99_micros)
    )
}

fn draw_throughput(frame: &mut Frame<'_>, area: Rect, snapshot: &Snapshot, palette: Palette) {
    let title = throughput(&snapshot.now());
    if area.height < 2 {
        return frame.render_widget(Paragraph::new(title), area);
    }
    let block = Block::new().borders(Borders::TOP).title(title);
    let width = usize::from(area.width);
    // Right-align: the newest sample is at the right edge.
    let seconds = snapshot.samples.iter().rev().take(width).rev().map(|sample| sample.received);
    let missing = width.saturating_sub(snapshot.samples.len());
    let data: Vec<_> = std::iter::repeat_n(0, missing).chain(seconds).collect();
    frame.render_widget(Sparkline::default().block(block).data(data).style(palette.colour(Color::Cyan)), area);
}

/// Headings, and the width of each column; 0 fills the rest.
pub(super) const COLUMNS: [(&str, u16); 10] = [
    ("PLUGIN", 20),
    ("STATE", 13),
    ("EVENTS/S", 8),
    ("P50", 8),
    ("P99", 8),
    ("QUEUE", 7),
    ("OLDEST", 7),
    ("FLIGHT", 6),
    ("DEAD", 6),
    ("LAST FAILURE", 0),
];

/// Returns a plugin's cells, one per column.
pub(super) fn cells(plugin: &Plugin) -> [String; 10] {
    let absent = || "-".to_owned();
    [
        shown(&plugin.name),
        shown(&plugin.state),
        plugin.rate.map_or_else(absent, |rate| format!("{rate:.1}")),
        micros(plugin.p50_micros),
        micros(plugin.p99_micros),
        plugin.queue.messages.map_or_else(absent, |count| count.to_string()),
        plugin.queue.oldest_age_seconds.map_or_else(absent, age),
        plugin.in_flight.to_string(),
        plugin.counts.dead.to_string(),
        plugin.trouble().unwrap_or_default(),
    ]
}

fn draw_plugins(frame: &mut Frame<'_>, area: Rect, snapshot: &Snapshot, controls: &Controls, palette: Palette) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    if snapshot.plugins.is_empty() {
        let block = Block::new().borders(Borders::TOP).title("PLUGINS");
        return frame.render_widget(Paragraph::new("there is no plugin").block(block), area);
    }
    let rows = snapshot.plugins.iter().map(|plugin| {
        let style = palette.state(&plugin.state);
        let cells = cells(plugin).into_iter().enumerate();
        Row::new(cells.map(|(column, cell)| if column == 1 { Span::styled(cell, style) } else { Span::raw(cell) }))
    });
    let widths = COLUMNS.map(|(_, width)| if width == 0 { Constraint::Fill(1) } else { Constraint::Length(width) });
    let table = Table::new(rows, widths)
        .header(Row::new(COLUMNS.map(|(heading, _)| heading)).style(bold))
        .block(Block::new().borders(Borders::TOP))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .highlight_symbol("> ");
    // The table scrolls to keep the selection visible.
    let mut state = TableState::new().with_selected(controls.place(snapshot));
    frame.render_stateful_widget(table, area, &mut state);
}

fn draw_events(frame: &mut Frame<'_>, area: Rect, snapshot: &Snapshot, palette: Palette) {
    let lines = snapshot.events.iter().map(|event| {
        let style = if event.is_trouble() { palette.attention() } else { Style::new() };
        Line::styled(event.line(), style)
    });
    let lines: Vec<_> = lines.collect();
    let lines = match &snapshot.no_events {
        Some(problem) => vec![Line::styled(shown(problem), palette.attention())],
        None if lines.is_empty() => vec![Line::styled("none yet", palette.quiet())],
        None => lines,
    };
    let block = Block::new().borders(Borders::TOP).title("RECENT EVENTS");
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn draw_foot(frame: &mut Frame<'_>, area: Rect, controls: &Controls, palette: Palette) {
    let line = match (&controls.asking, &controls.said) {
        (Some((Act::Pause, plugin)), _) => Line::styled(
            format!("pause {}? its events wait in its queue.  y: yes, any other key: no", shown(plugin)),
            palette.attention().add_modifier(Modifier::BOLD),
        ),
        (Some((Act::Resume, plugin)), _) => Line::styled(
            format!("resume {}? it gets what waits for it.  y: yes, any other key: no", shown(plugin)),
            palette.attention().add_modifier(Modifier::BOLD),
        ),
        (None, Some(said)) => Line::raw(shown(said)),
        (None, None) => Line::styled(
            "arrows: select   p: pause   r: resume   ?: help   q: quit",
            Style::new().add_modifier(Modifier::DIM),
        ),
    };
    frame.render_widget(Paragraph::new(line), area);
}

fn draw_help(frame: &mut Frame<'_>) {
    let width = HELP.iter().map(|line| line.len()).max().unwrap_or_default() + 4;
    let [area] = Layout::horizontal([Constraint::Length(u16::try_from(width).unwrap_or(u16::MAX))])
        .flex(ratatui::layout::Flex::Center)
        .areas(frame.area());
    let [area] = Layout::vertical([Constraint::Length(u16::try_from(HELP.len() + 2).unwrap_or(u16::MAX))])
        .flex(ratatui::layout::Flex::Center)
        .areas(area);
    frame.render_widget(Clear, area);
    let block = Block::bordered().title("HELP").padding(ratatui::widgets::Padding::horizontal(1));
    frame.render_widget(Paragraph::new(HELP.map(Line::raw).to_vec()).block(block), area);
}

/// Formats a measured duration.
fn micros(micros: Option<u64>) -> String {
    match micros {
        None => "-".to_owned(),
        Some(micros @ 0..1000) => format!("{micros} µs"),
        Some(micros @ 1000..1_000_000) => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        Some(micros) => format!("{}.{} s", micros / 1_000_000, micros % 1_000_000 / 100_000),
    }
}

fn age(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 100.0 => format!("{seconds:.0} s"),
        seconds if seconds < 100.0 * 60.0 => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.0} h", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::{KeyCode, KeyEvent};

    use super::*;
    use crate::cli::top::snapshot::tests::sample;

    const COLOURED: Palette = Palette { coloured: true };

    fn drawn(
        snapshot: &Snapshot,
        controls: &Controls,
        palette: Palette,
        width: u16,
        height: u16,
    ) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, snapshot, controls, palette)).unwrap();
        terminal
    }

    fn text(snapshot: &Snapshot, controls: &Controls, width: u16, height: u16) -> String {
        drawn(snapshot, controls, COLOURED, width, height).backend().to_string()
    }

    fn pressed(codes: &[KeyCode]) -> Controls {
        let mut controls = Controls::default();
        for code in codes {
            controls.press(KeyEvent::from(*code), &sample());
        }
        controls
    }

    #[track_caller]
    fn check(screen: &str, parts: &[&str]) {
        for part in parts {
            assert!(screen.contains(part), "no {part:?} in\n{screen}");
        }
    }

    #[test]
    fn the_host_is_there_at_a_glance() {
        let screen = text(&sample(), &Controls::default(), 140, 30);
        check(
            &screen,
            &[
                "notify-host 0.6.0 ready  amqp://notify@mq1/%2F  exchange orders, queue notifications  process 4711",
                "59 events/s, 0 failed, 0 dead letters more; p50 410 µs, p99 12.3 ms; 3 in flight",
                "PLUGIN               STATE         EVENTS/S P50      P99      QUEUE   OLDEST  FLIGHT DEAD   LAST FAILURE",
                "email                failing       -        48.0 ms  1.3 s    240     95 s    0      2      the relay\\u{1b}[2J is away",
                "logger               running",
                "slack                broken        -        -        -        -       -       0      0      does not load: it is no component",
                "08:01:00.250 OrderPaid 4711 email: retry: the relay is away",
                "08:00:59.000 OrderCreated e1 received",
                "arrows: select",
                "█",
            ],
        );
    }

    #[test]
    fn a_host_that_is_not_ready_or_away_says_why() {
        let mut snapshot = sample();
        snapshot.host.ready = false;
        snapshot.host.broker.connected = false;
        snapshot.host.reasons = vec!["the broker is away".to_owned(), "there is no plugin".to_owned()];
        let screen = text(&snapshot, &Controls::default(), 120, 30);
        check(&screen, &["not ready", "%2F (away)", "the broker is away; there is no plugin"]);
        snapshot.problem = Some("cannot reach a host".to_owned());
        check(&text(&snapshot, &Controls::default(), 120, 30), &["0.6.0 away", "cannot reach a host"]);
        snapshot.no_events = Some("there is no journal".to_owned());
        check(&text(&snapshot, &Controls::default(), 120, 30), &["there is no journal", "logger"]);
    }

    #[test]
    fn what_is_selected_asked_and_helped_with_is_shown() {
        let screen = text(&sample(), &pressed(&[KeyCode::Down, KeyCode::Down]), 120, 30);
        check(&screen, &["> logger"]);
        let screen = text(&sample(), &pressed(&[KeyCode::Down, KeyCode::Char('p')]), 120, 30);
        check(&screen, &["pause email? its events wait in its queue.  y: yes"]);
        check(&text(&sample(), &pressed(&[KeyCode::Char('?')]), 120, 30), &["HELP", "p   pause it"]);
    }

    #[test]
    fn any_size_of_a_screen_will_do() {
        for (width, height) in [(1, 1), (10, 3), (40, 8), (80, 12), (80, 24), (300, 100)] {
            for controls in [Controls::default(), pressed(&[KeyCode::Down, KeyCode::Char('?')])] {
                text(&sample(), &controls, width, height);
                text(&Snapshot::default(), &controls, width, height);
            }
        }
        check(&text(&sample(), &Controls::default(), 80, 10), &["ready", "59 events/s", "email", "logger", "q: quit"]);
        let mut many = sample();
        many.plugins = (0..50).map(|number| Plugin { name: format!("plugin-{number}"), ..Plugin::default() }).collect();
        let mut controls = Controls::default();
        for code in [KeyCode::Down, KeyCode::End] {
            controls.press(KeyEvent::from(code), &many);
        }
        check(&text(&many, &controls, 80, 24), &["> plugin-49", "RECENT EVENTS"]);
    }

    #[test]
    fn without_colour_there_is_none() {
        let colours = |palette| {
            let terminal = drawn(&sample(), &pressed(&[KeyCode::Down]), palette, 120, 30);
            let cells = terminal.backend().buffer().content().iter();
            cells.filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset).count()
        };
        assert!(colours(COLOURED) > 0);
        assert_eq!(colours(Palette { coloured: false }), 0);
    }
}
