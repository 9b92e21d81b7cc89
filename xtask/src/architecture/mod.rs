//! The invariants of ARCHITECTURE.md that a program can check.

mod modules;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::project::Project;

/// The crates of the host, from the bottom up. A crate may depend on those before it.
const LAYERS: [&str; 13] = [
    "contract",
    "event",
    "state",
    "config",
    "telemetry",
    "outbound",
    "sandbox",
    "delivery",
    "journal",
    "dead-letters",
    "supervisor",
    "admin",
    "notify-host",
];
/// Dependencies that no package may have, besides those that [`LAYERS`] rules out.
const FORBIDDEN: [(&str, &str); 3] = [("broker", "wasmtime"), ("order-cli", "lapin"), ("notify-host", "lapin")];
/// The crates that may acknowledge a message.
const SETTLES: [&str; 2] = ["host/crates/delivery", "host/crates/dead-letters"];
/// The file in which the host's journal names SQLite.
const JOURNAL_STORE: &str = "host/crates/journal/src/store.rs";
/// A longer file must say why, in a line that begins with [`EXCUSE`].
const LINES_MAX: usize = 500;
const EXCUSE: &str = "// Long because";

/// All that is wrong, a sentence each.
pub(crate) fn faults(project: &Project) -> anyhow::Result<Vec<String>> {
    let mut faults = Vec::new();
    for package in &project.packages {
        for dependency in package.normal_dependencies() {
            if FORBIDDEN.contains(&(&package.name, dependency)) || looks_up(&package.name, dependency) {
                faults.push(format!("{} must not depend on {dependency}", package.name));
            }
        }
    }
    for (package, root) in project.roots() {
        faults.extend(modules::faults(package, &root, &project.root)?);
    }
    let mut files = Vec::new();
    collect(&project.root, &mut files)?;
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        faults.extend(faults_of(file.strip_prefix(&project.root).unwrap_or(&file), &text));
    }
    Ok(faults)
}

/// Whether a package depends on a crate of the host that is not below it.
fn looks_up(package: &str, dependency: &str) -> bool {
    let layer = |name| LAYERS.iter().position(|layer| *layer == name);
    match (layer(package), layer(dependency)) {
        (Some(package), Some(dependency)) => dependency >= package,
        // Packages that are not of the host know none of its crates.
        (None, Some(_)) => true,
        (_, None) => false,
    }
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
    let may_name_sqlite = file.starts_with("broker") || file.starts_with(JOURNAL_STORE);
    if !may_name_sqlite && code().any(|line| line.contains("rusqlite::")) {
        faults.push(format!("{shown} names rusqlite: only broker and the host's journal do"));
    }
    // The broker's tests play other people's programs with it.
    let may_name_lapin = file.starts_with("broker/src/amqp") || file.starts_with("broker/tests");
    if !may_name_lapin && code().any(|line| line.contains("lapin::")) {
        faults.push(format!("{shown} names lapin: only broker/src/amqp does"));
    }
    if (file.starts_with("host/src") || file.starts_with("host/crates"))
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
        check("host/crates/journal/src/store.rs", "use rusqlite::Connection;", None);
        check("host/crates/journal/src/writer.rs", "use rusqlite::Connection;", Some("names rusqlite"));
    }

    #[test]
    fn no_crate_knows_one_above_it() {
        assert!(!looks_up("delivery", "sandbox") && !looks_up("admin", "serde") && !looks_up("order-cli", "broker"));
        assert!(looks_up("sandbox", "delivery") && looks_up("event", "event") && looks_up("broker", "event"));
    }

    #[test]
    fn only_delivery_settles() {
        check("host/crates/delivery/src/settle.rs", "delivery.receipt.ack();", None);
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
