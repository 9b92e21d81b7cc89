//! What the operator gets to see.

use std::io::{self, Write};

use serde_json::json;

use crate::dead_letters::browse::Letter;

/// Characters of a reason in a list.
const REASON_CHARACTERS_MAX: usize = 60;
const HEADINGS: [&str; 7] = ["ID", "DIED", "PLUGIN", "EVENT TYPE", "EVENT ID", "CODE", "REASON"];

/// `1 dead letter`, `2 dead letters`.
pub(super) fn letters(count: usize) -> String {
    format!("{count} dead letter{}", if count == 1 { "" } else { "s" })
}

pub(super) fn list(letters: &[Letter], json: bool) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    if json {
        for letter in letters {
            serde_json::to_writer(&mut out, &letter.summary)?;
            writeln!(out)?;
        }
        return out.flush();
    }
    let rows: Vec<_> = letters.iter().map(row).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let headings = HEADINGS.map(str::to_owned);
    let mut widths = headings.each_ref().map(|cell| cell.chars().count());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in std::iter::once(&headings).chain(&rows) {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    out.flush()
}

fn row(letter: &Letter) -> [String; 7] {
    let summary = &letter.summary;
    let or_dash = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), shown);
    let reason: String = shown(&summary.reason).chars().take(REASON_CHARACTERS_MAX).collect();
    let died = summary.last_at.split('.').next().unwrap_or_default().trim_end_matches('Z');
    [
        summary.id.clone(),
        format!("{died}Z"),
        or_dash(&summary.plugin),
        or_dash(&summary.event_type),
        or_dash(&summary.event_id),
        shown(&summary.code),
        reason,
    ]
}

/// Without what a terminal might take for an order.
fn shown(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

pub(super) fn show(letter: &Letter, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let (summary, message) = (&letter.summary, &letter.message);
    let body = String::from_utf8_lossy(&message.body);
    if json {
        let whole = json!({ "letter": summary, "properties": message.properties, "body": body });
        return writeln!(out, "{whole}");
    }
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    for (name, value) in [
        ("letter", summary.id.clone()),
        ("plugin", or_dash(&summary.plugin)),
        ("event type", or_dash(&summary.event_type)),
        ("event id", or_dash(&summary.event_id)),
        ("given up", summary.given_up.clone()),
        ("code", summary.code.clone()),
        ("reason", summary.reason.clone()),
        ("attempts", format!("{} in round {}", summary.attempts, summary.round)),
        ("first seen", summary.first_at.clone()),
        ("last tried", summary.last_at.clone()),
        ("came by", format!("exchange {:?}, routing key {:?}", summary.exchange, summary.routing_key)),
    ] {
        writeln!(out, "{name:<12}{}", shown(&value))?;
    }
    for round in &summary.history {
        writeln!(out, "{:<12}{}", "earlier", shown(round))?;
    }
    for (name, value) in &message.properties.headers {
        if !name.starts_with("x-notify-") {
            let value = value.to_text().unwrap_or_else(|| format!("{value:?}"));
            writeln!(out, "{:<12}{}: {}", "header", shown(name), shown(&value))?;
        }
    }
    writeln!(out)?;
    match serde_json::from_slice::<serde_json::Value>(&message.body) {
        Ok(value) => writeln!(out, "{value:#}"),
        Err(_) => writeln!(out, "{}", body.lines().map(shown).collect::<Vec<_>>().join("\n")),
    }
}
