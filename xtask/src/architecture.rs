//! The invariants of ARCHITECTURE.md that a program can check.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::project::Project;

/// Who must not name whom as a dependency.
const FORBIDDEN: [(&str, &str); 5] = [
    ("broker", "wasmtime"),
    ("broker", "notify-host"),
    ("order-cli", "notify-host"),
    ("order-cli", "lapin"),
    ("notify-host", "lapin"),
];
/// Where a delivery or a dead letter is settled.
const SETTLES: [&str; 2] = ["host/src/delivery", "host/src/dead_letters"];
/// A longer file must say why, in a line that begins with [`EXCUSE`].
const LINES_MAX: usize = 500;
const EXCUSE: &str = "// Long because";

/// All that is wrong, a sentence each.
pub(crate) fn faults(project: &Project) -> anyhow::Result<Vec<String>> {
    let mut faults = Vec::new();
    for package in &project.packages {
        for dependency in package.normal_dependencies() {
            if FORBIDDEN.contains(&(&package.name, dependency)) {
                faults.push(format!("{} must not depend on {dependency}", package.name));
            }
        }
    }
    let mut files = Vec::new();
    collect(&project.root, &mut files)?;
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        faults.extend(faults_of(file.strip_prefix(&project.root).unwrap_or(&file), &text));
    }
    Ok(faults)
}

/// Rust files, less what is built.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(&path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn faults_of(file: &Path, text: &str) -> Vec<String> {
    let shown = file.display();
    let mut faults = Vec::new();
    let lines = text.lines().count();
    if lines > LINES_MAX && !text.lines().any(|line| line.starts_with(EXCUSE)) {
        faults.push(format!("{shown} has {lines} lines: look for its second noun, or say `{EXCUSE} …`"));
    }
    // This file names what it looks for.
    if file.starts_with("xtask") {
        return faults;
    }
    let code = || text.lines().map(|line| line.split("//").next().unwrap_or_default());
    // Queues are the broker's; what the host keeps in SQLite is its journal.
    let may_name_sqlite = file.starts_with("broker") || file.starts_with("host/src/journal/store.rs");
    if !may_name_sqlite && code().any(|line| line.contains("rusqlite::")) {
        faults.push(format!("{shown} names rusqlite: only broker and the host's journal do"));
    }
    // The broker's tests play other people's programs with it.
    let may_name_lapin = file.starts_with("broker/src/amqp") || file.starts_with("broker/tests");
    if !may_name_lapin && code().any(|line| line.contains("lapin::")) {
        faults.push(format!("{shown} names lapin: only broker/src/amqp does"));
    }
    if file.starts_with("host/src")
        && !SETTLES.iter().any(|folder| file.starts_with(folder))
        && code().any(|line| line.contains(".ack("))
    {
        faults.push(format!("{shown} acknowledges: only {} settles", SETTLES.join(" or ")));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(file: &str, text: &str, fault: Option<&str>) {
        let faults = faults_of(Path::new(file), text);
        match fault {
            Some(fault) => assert!(faults.len() == 1 && faults[0].contains(fault), "{file}: {faults:?}"),
            None => assert!(faults.is_empty(), "{file}: {faults:?}"),
        }
    }

    #[test]
    fn only_the_amqp_module_names_lapin() {
        check("broker/src/amqp/mod.rs", "use lapin::Channel;", None);
        check("broker/tests/rabbitmq.rs", "use lapin::Channel;", None);
        check("broker/src/lib.rs", "//! through lapin::Channel", None);
        check("broker/src/lib.rs", "use lapin::Channel;", Some("names lapin"));
    }

    #[test]
    fn the_hosts_journal_alone_is_in_sqlite() {
        check("broker/src/sqlite/mod.rs", "use rusqlite::Connection;", None);
        check("host/src/journal/store.rs", "use rusqlite::Connection;", None);
        check("host/src/journal/writer.rs", "use rusqlite::Connection;", Some("names rusqlite"));
    }

    #[test]
    fn only_delivery_settles() {
        check("host/src/delivery/settle.rs", "delivery.receipt.ack();", None);
        check("host/src/daemon.rs", "delivery.receipt.ack();", Some("settles"));
        check("broker/src/consumer.rs", "receipt.ack();", None);
    }

    #[test]
    fn a_long_file_says_why() {
        let long = "\n".repeat(LINES_MAX + 1);
        check("host/src/a.rs", &long, Some("second noun"));
        check("host/src/a.rs", &format!("{long}// Long because it is a table\n"), None);
    }
}
