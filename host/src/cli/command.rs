//! Helpers that the commands share. Data goes to standard output, messages go to standard error.

use std::io::{self, Write};

use event::text::{printable, printable_json};

/// Prints a sentence to standard error. Unlike `eprintln!` it ignores a closed reader, and it escapes text from outside
/// so that it cannot control the terminal.
macro_rules! say {
    ($($sentence:tt)*) => {
        $crate::cli::command::say_text(&format!($($sentence)*))
    };
}
pub(crate) use say;

/// Implements [`say!`].
pub(crate) fn say_text(text: &str) {
    // A failed write to standard error cannot be reported anywhere.
    let _ = writeln!(io::stderr(), "{}", said(text));
}

/// Escapes each line. Line breaks stay, because faults are printed one per line.
fn said(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

/// Writes a JSON object on one line.
pub(crate) fn write_json(out: &mut impl Write, object: &serde_json::Value) -> io::Result<()> {
    writeln!(out, "{}", printable_json(&object.to_string()))
}

/// Ignores a broken pipe: the reader of our output may have read enough.
pub(crate) fn unless_cut_off(printed: io::Result<()>) -> anyhow::Result<()> {
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("cannot write to standard output"))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes a table whose columns fit their content. After each row follow the lines that `below` returns for it.
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
