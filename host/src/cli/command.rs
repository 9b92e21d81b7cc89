//! What the operator's commands have in common: answers of the broker come within a time, data goes to
//! standard output, talk to standard error.

use std::io::{self, Write};

use event::text::{printable, printable_json};

/// A sentence on standard error. Unlike `eprintln!` it does not mind when nobody reads on, and lets no text
/// from outside drive the terminal.
macro_rules! say {
    ($($sentence:tt)*) => {
        $crate::cli::command::say_text(&format!($($sentence)*))
    };
}
pub(crate) use say;

/// For [`say!`].
pub(crate) fn say_text(text: &str) {
    // There is nowhere else to tell it.
    let _ = writeln!(io::stderr(), "{}", said(text));
}

/// Its lines stay lines: faults are told one a line.
fn said(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

/// One JSON object on a line of its own.
pub(crate) fn write_json(out: &mut impl Write, object: &serde_json::Value) -> io::Result<()> {
    writeln!(out, "{}", printable_json(&object.to_string()))
}

/// Whoever reads our output may have read enough.
pub(crate) fn unless_cut_off(printed: io::Result<()>) -> anyhow::Result<()> {
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("cannot write to standard output"))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Columns as wide as they must be, each row with what `below` has to say of it.
pub(crate) fn write_table<const COLUMNS: usize>(
    out: &mut impl Write,
    headings: [&str; COLUMNS],
    rows: &[[String; COLUMNS]],
    below: impl Fn(usize) -> Vec<String>,
) -> io::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut widths = headings.map(|heading| heading.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[&str; COLUMNS]| {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    writeln!(out, "{}", line(&headings))?;
    for (at, row) in rows.iter().enumerate() {
        writeln!(out, "{}", line(&row.each_ref().map(String::as_str)))?;
        for text in below(at) {
            writeln!(out, "{text}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_from_outside_stays_on_its_line_and_drives_no_terminal() {
        assert_eq!(said("a\x1b]0;b\x07\n c\u{9b}d"), "a\\u{1b}]0;b\\u{7}\n c\\u{9b}d");
    }
}
