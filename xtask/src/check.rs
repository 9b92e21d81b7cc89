//! What needs no test: format, lints, docs, licences, the contract, the architecture, the packaging.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, anyhow, bail};

use crate::architecture;
use crate::guests;
use crate::packaging;
use crate::project::Project;
use crate::tools::{self, Progress};

/// One thing that is checked.
type Step<'a> = (&'a str, Box<dyn Fn() -> anyhow::Result<()> + 'a>);

/// All steps, whatever fails.
pub(crate) fn run(project: &Project, progress: &Progress) -> anyhow::Result<()> {
    add_components(project, progress);
    let steps: [Step<'_>; 10] = [
        ("architecture", Box::new(|| check_architecture(project))),
        ("contract", Box::new(|| check_contract(&project.root.join("wit")))),
        ("format", Box::new(|| tools::run(project.cargo().args(["fmt", "--all", "--check"])))),
        ("lints", Box::new(|| lint(project))),
        ("lints of the guests", Box::new(|| lint_guests(project))),
        ("docs", Box::new(|| document(project))),
        ("licences and duplicates", Box::new(|| deny(project))),
        ("systemd's unit", Box::new(|| packaging::check_unit(project, progress))),
        ("alerts", Box::new(|| packaging::check_alerts(project, progress))),
        ("containers", Box::new(|| packaging::check_containers(project, progress))),
    ];
    let mut failed = Vec::new();
    for (name, step) in &steps {
        progress.heading(format!("check {name}"));
        if let Err(error) = step() {
            eprintln!("xtask: {name}: {error:#}");
            failed.push(*name);
        }
    }
    if failed.is_empty() {
        progress.heading("every check passed");
        return Ok(());
    }
    bail!("failed: {}", failed.join(", "))
}

/// Lets the tools mend what they can.
pub(crate) fn fix(project: &Project, progress: &Progress) -> anyhow::Result<()> {
    add_components(project, progress);
    progress.heading("clippy --fix");
    let mut clippy = project.cargo();
    clippy.args(["clippy", "--fix", "--allow-dirty", "--allow-staged", "--all-targets"]).args(project.without_guests());
    tools::run(&mut clippy)?;
    progress.heading("rustfmt");
    tools::run(project.cargo().args(["fmt", "--all"]))
}

/// A minimal toolchain has neither. What cannot be added fails in its own step.
fn add_components(project: &Project, progress: &Progress) {
    let lacks = |tool: &str| !tools::succeeds(project.cargo().args([tool, "--version"]));
    if (lacks("fmt") || lacks("clippy")) && tools::find_program("rustup").is_some() {
        progress.heading("rustup component add rustfmt clippy");
        let mut rustup = Command::new("rustup");
        let _ = tools::run(rustup.current_dir(&project.root).args(["component", "add", "rustfmt", "clippy"]));
    }
}

fn check_architecture(project: &Project) -> anyhow::Result<()> {
    let faults = architecture::faults(project)?;
    if faults.is_empty() {
        return Ok(());
    }
    Err(anyhow!("{}", faults.join("\n")))
}

/// The contract parses, resolves, and still has its world.
fn check_contract(folder: &Path) -> anyhow::Result<()> {
    let mut resolve = wit_parser::Resolve::default();
    let (package, _) = resolve.push_dir(folder).context("the contract is not valid")?;
    resolve.select_world(&[package], Some("plugin")).context("the contract has no world `plugin`")?;
    Ok(())
}

fn lint(project: &Project) -> anyhow::Result<()> {
    let mut clippy = project.cargo();
    clippy.args(["clippy", "--all-targets"]).args(project.without_guests()).args(["--", "--deny", "warnings"]);
    tools::run(&mut clippy)
}

fn lint_guests(project: &Project) -> anyhow::Result<()> {
    let Some(platform) = guests::platform_for_lints(project) else {
        eprintln!("skipped: this toolchain has no standard library for WebAssembly");
        return Ok(());
    };
    let mut clippy = project.cargo();
    clippy.args(["clippy", "--all-targets", "--target", platform]);
    for guest in project.guests() {
        clippy.args(["--package", &guest.name]);
    }
    tools::run(clippy.args(["--", "--deny", "warnings"]))
}

fn document(project: &Project) -> anyhow::Result<()> {
    let mut doc = project.cargo();
    // Private items too: most of what is documented here is private, and links rot there as well.
    // So links to private items resolve.
    doc.env("RUSTDOCFLAGS", "--deny warnings --allow rustdoc::private-intra-doc-links")
        .args(["doc", "--no-deps", "--document-private-items"])
        .args(project.without_guests());
    tools::run(&mut doc)
}

fn deny(project: &Project) -> anyhow::Result<()> {
    if !tools::succeeds(project.cargo().args(["deny", "--version"])) {
        eprintln!("skipped: cargo-deny is not installed");
        return Ok(());
    }
    tools::run(project.cargo().args(["deny", "--log-level", "error", "check", "licenses", "bans", "sources"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contract_that_is_broken_is_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.wit"), "package a:b;\nworld other {}\n").unwrap();
        assert!(check_contract(folder.path()).unwrap_err().to_string().contains("no world"));
        std::fs::write(folder.path().join("a.wit"), "package a:b;\nworld plugin { import nothing; }\n").unwrap();
        assert!(check_contract(folder.path()).unwrap_err().to_string().contains("not valid"));
    }
}
