//! Writes the table in `docs/benchmarks.md`, with the machine it was measured on.

use std::fs;
use std::process::Command;
use std::thread::available_parallelism;

use anyhow::Context as _;
use jiff::Timestamp;

use crate::bench::table::{Row, markdown};
use crate::project::Project;
use crate::tools;

pub(super) const FILE: &str = "docs/benchmarks.md";
const BEGIN: &str = "<!-- the table, by `cargo xtask bench` -->\n";
const END: &str = "<!-- end of the table -->\n";

/// Replaces the existing table, and lists the benchmarks that are missing from it.
pub(super) fn write(project: &Project, rabbitmq: &str, rows: &[Row], unmeasured: &[String]) -> anyhow::Result<()> {
    let file = project.root.join(FILE);
    let document = fs::read_to_string(&file).with_context(|| format!("cannot read {FILE}"))?;
    let mut table = format!("{}\n{}", circumstances(rabbitmq)?, markdown(rows));
    if !unmeasured.is_empty() {
        table.extend(["\nCould not be measured: ", &unmeasured.join(", "), ".\n"]);
    }
    let document = replaced(&document, &table).with_context(|| format!("{FILE} has lost the marks of its table"))?;
    fs::write(&file, document).with_context(|| format!("cannot write {FILE}"))
}

fn circumstances(rabbitmq: &str) -> anyhow::Result<String> {
    let cores = available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = processor.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let rustc = tools::capture(Command::new("rustc").arg("--version"))?;
    Ok(format!(
        "`cargo xtask bench` on {:.10}: {cores} cores ({}), Linux {}, RabbitMQ {rabbitmq}, {}.\n",
        Timestamp::now().to_string(),
        processor.trim_start_matches([' ', '\t', ':']).trim(),
        kernel.trim(),
        rustc.trim(),
    ))
}

fn replaced(document: &str, table: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{table}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let document = format!("# A\n{BEGIN}old\n{END}\n## B\n");
        let once = replaced(&document, "new\n").unwrap();
        assert_eq!(once, format!("# A\n{BEGIN}\nnew\n\n{END}\n## B\n"));
        assert_eq!(replaced(&once, "new\n").unwrap(), once);
        assert_eq!(replaced("# A\n", "new\n"), None);
    }

    #[test]
    fn the_document_has_its_marks() {
        assert!(replaced(include_str!("../../../docs/benchmarks.md"), "").is_some());
    }
}
