//! The table of results: each measurement, its peer, and whether it is within its budget.

use std::fmt::Write as _;

const HEADINGS: [&str; 6] = ["what", "ours", "peer or limit", "ratio", "budget", "verdict"];
/// Columns with numbers, which are right-aligned.
const NUMBERS: [usize; 3] = [1, 2, 3];

/// One measurement.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    what: String,
    unit: &'static str,
    ours: f64,
    peer: Option<(&'static str, f64)>,
    budgets: Vec<Budget>,
}

/// A limit for a measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Budget {
    RatioAtLeast(f64),
    RatioAtMost(f64),
    AtLeast(f64),
    AtMost(f64),
    /// Maximum increase over the peer, in the row's unit.
    MoreAtMost(f64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BudgetVerdict {
    Holds,
    Fails,
    /// The row has no budget.
    Reported,
}

impl Row {
    pub(super) fn new(what: impl Into<String>, unit: &'static str, ours: f64) -> Self {
        Self { what: what.into(), unit, ours, peer: None, budgets: Vec::new() }
    }

    /// Sets the peer's value.
    pub(super) fn against(self, peer: &'static str, value: f64) -> Self {
        Self { peer: Some((peer, value)), ..self }
    }

    pub(super) fn within(mut self, budget: Budget) -> Self {
        self.budgets.push(budget);
        self
    }

    fn ratio(&self) -> Option<f64> {
        self.peer.map(|(_, value)| self.ours / value)
    }

    pub(super) fn verdict(&self) -> BudgetVerdict {
        if self.budgets.is_empty() {
            return BudgetVerdict::Reported;
        }
        // A budget without a value to compare with fails.
        let ratio = self.ratio().unwrap_or(f64::NAN);
        let more = self.peer.map_or(f64::NAN, |(_, value)| self.ours - value);
        let holds = self.budgets.iter().all(|budget| match *budget {
            Budget::RatioAtLeast(limit) => ratio >= limit,
            Budget::RatioAtMost(limit) => ratio <= limit,
            Budget::AtLeast(limit) => self.ours >= limit,
            Budget::AtMost(limit) => self.ours <= limit,
            Budget::MoreAtMost(limit) => more <= limit,
        });
        if holds { BudgetVerdict::Holds } else { BudgetVerdict::Fails }
    }

    fn cells(&self) -> [String; 6] {
        let with_unit = |value| format!("{} {}", shown(value), self.unit).trim_end().to_owned();
        let budgets: Vec<_> = self.budgets.iter().map(|budget| self.budget(*budget)).collect();
        [
            self.what.clone(),
            with_unit(self.ours),
            self.peer.map_or_else(|| "–".to_owned(), |(name, value)| format!("{} ({name})", with_unit(value))),
            self.ratio().map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}")),
            if budgets.is_empty() { "–".to_owned() } else { budgets.join(" and ") },
            match self.verdict() {
                BudgetVerdict::Holds => "holds",
                BudgetVerdict::Fails => "FAILS",
                BudgetVerdict::Reported => "reported",
            }
            .to_owned(),
        ]
    }

    fn budget(&self, budget: Budget) -> String {
        let unit = self.unit;
        let text = match budget {
            Budget::RatioAtLeast(limit) => format!("≥ {limit} ×"),
            Budget::RatioAtMost(limit) => format!("≤ {limit} ×"),
            Budget::AtLeast(limit) => format!("≥ {} {unit}", shown(limit)),
            Budget::AtMost(limit) => format!("≤ {} {unit}", shown(limit)),
            Budget::MoreAtMost(limit) => format!("≤ {} {unit} more", shown(limit)),
        };
        text.trim_end().to_owned()
    }
}

/// Formats three significant digits, with separators between thousands.
fn shown(value: f64) -> String {
    let decimals = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    let text = format!("{value:.decimals$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let digits = whole.trim_start_matches('-');
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let sign = if whole.starts_with('-') { "-" } else { "" };
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { format!("{sign}{grouped}") } else { format!("{sign}{grouped}.{fraction}") }
}

/// Formats the table for a terminal.
pub(super) fn text(rows: &[Row]) -> String {
    let rows: Vec<_> = std::iter::once(HEADINGS.map(str::to_owned)).chain(rows.iter().map(Row::cells)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<_> = (0..HEADINGS.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            if NUMBERS.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        // Writing to a String does not fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// Formats the table for a document.
pub(super) fn markdown(rows: &[Row]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule: Vec<_> = (0..HEADINGS.len())
        .map(|column| if NUMBERS.contains(&column) { "--:".to_owned() } else { "---".to_owned() })
        .collect();
    let mut text = line(&HEADINGS.map(str::to_owned));
    text.push_str(&line(&rule));
    for row in rows {
        let mut cells = row.cells();
        if row.verdict() == BudgetVerdict::Fails {
            "**FAILS**".clone_into(&mut cells[5]);
        }
        text.push_str(&line(&cells));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(row: &Row, verdict: BudgetVerdict) {
        assert_eq!(row.verdict(), verdict, "{row:?}");
    }

    #[test]
    fn a_row_holds_if_all_its_budgets_do() {
        let row = || Row::new("a", "/s", 60.0).against("limit", 100.0);
        check(&row(), BudgetVerdict::Reported);
        check(&row().within(Budget::RatioAtLeast(0.6)), BudgetVerdict::Holds);
        check(&row().within(Budget::RatioAtLeast(0.61)), BudgetVerdict::Fails);
        check(&row().within(Budget::RatioAtMost(0.6)), BudgetVerdict::Holds);
        check(&row().within(Budget::RatioAtMost(0.59)), BudgetVerdict::Fails);
        check(&row().within(Budget::AtLeast(60.0)), BudgetVerdict::Holds);
        check(&row().within(Budget::RatioAtLeast(0.6)).within(Budget::AtLeast(61.0)), BudgetVerdict::Fails);
        check(&row().within(Budget::AtMost(60.0)), BudgetVerdict::Holds);
        check(&row().within(Budget::MoreAtMost(-40.0)), BudgetVerdict::Holds);
        check(&row().within(Budget::MoreAtMost(-41.0)), BudgetVerdict::Fails);
    }

    #[test]
    fn what_could_not_be_compared_does_not_hold() {
        check(&Row::new("a", "", 1.0).within(Budget::RatioAtMost(2.0)), BudgetVerdict::Fails);
        check(&Row::new("a", "", 0.0).against("b", 0.0).within(Budget::RatioAtMost(2.0)), BudgetVerdict::Fails);
        check(&Row::new("a", "", f64::NAN).within(Budget::AtMost(2.0)), BudgetVerdict::Fails);
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.123, "0.12"),
            (9.5, "9.5"),
            (45.25, "45.2"),
            (999.6, "1,000"),
            (15_000.0, "15,000"),
            (1_234_567.0, "1,234,567"),
            (-1234.0, "-1,234"),
            (-0.5, "-0.5"),
        ] {
            assert_eq!(shown(value), text);
        }
    }

    fn rows() -> [Row; 2] {
        [
            Row::new("events", "/s", 9000.0).against("bare", 20_000.0).within(Budget::RatioAtLeast(0.6)),
            Row::new("memory", "MiB", 31.25).within(Budget::AtMost(40.0)),
        ]
    }

    #[test]
    fn a_table_has_columns() {
        assert_eq!(
            text(&rows()),
            "\
what        ours     peer or limit  ratio  budget    verdict
events  9,000 /s  20,000 /s (bare)   0.45  ≥ 0.6 ×   FAILS
memory  31.2 MiB                 –      –  ≤ 40 MiB  holds
"
        );
    }

    #[test]
    fn a_document_says_failures_loudly() {
        assert_eq!(
            markdown(&rows()),
            "\
| what | ours | peer or limit | ratio | budget | verdict |
| --- | --: | --: | --: | --- | --- |
| events | 9,000 /s | 20,000 /s (bare) | 0.45 | ≥ 0.6 × | **FAILS** |
| memory | 31.2 MiB | – | – | ≤ 40 MiB | holds |
"
        );
    }
}
