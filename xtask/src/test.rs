//! The tests want more than cargo can build: guests, a RabbitMQ server, a Python with some packages, what
//! makes plugins of other languages, a browser.
//!
//! What lacks is installed where that asks nobody for a password. What cannot be had fails the
//! run before the first test: a test that is skipped promises nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use testbed::rabbitmq::FOUR_VARIABLE;

use crate::browser;
use crate::guests::{self, Choice, GUESTS, PLUGINS, PLUGINS_CORE, Wanted};
use crate::languages;
use crate::package;
use crate::packaging;
use crate::project::Project;
use crate::rabbitmq;
use crate::tools::{self, Progress};

/// The folder of the Python that has what the tests want of it, below target/.
const VENV: &str = "test-venv";
/// As `pip` calls them, and by the modules that they bring.
const PYTHON_PACKAGES: [(&str, &str); 6] = [
    ("pika~=1.4", "pika"),
    ("standardwebhooks~=1.1", "standardwebhooks"),
    ("cloudevents~=2.2", "cloudevents.core"),
    ("aiosmtpd~=1.4", "aiosmtpd"),
    ("dkimpy[ed25519]~=1.1", "dkim, nacl"),
    ("opentelemetry-proto~=1.45", "opentelemetry.proto.collector.trace.v1.trace_service_pb2"),
];
const PYTHON_VARIABLE: &str = "NOTIFY_TEST_PYTHON";
/// The folder with the Debian package.
const PACKAGE_VARIABLE: &str = "NOTIFY_TEST_PACKAGE";
/// What the names of the tests have in common that want RabbitMQ 4.
const TESTS_OF_FOUR: &str = "rabbitmq_4";
/// The same of those that want the Debian package, and of the one that installs it into the Debian of RabbitMQ 4.
const TESTS_OF_PACKAGE: &str = "debian_package::";
const TEST_OF_INSTALLING: &str = "a_debian_package_installs";
/// And of those that want a browser.
const TESTS_IN_A_BROWSER: &str = "in_a_browser";

/// Installs, builds, and runs `cargo test` with these arguments.
pub(crate) fn run(project: &Project, progress: &Progress, arguments: &[String]) -> anyhow::Result<()> {
    rabbitmq::provide(progress)?;
    packaging::provide(progress, "prometheus", "prometheus")?;
    let four = rabbitmq::provide_four(project, progress)?;
    let python = provide_python(project, progress)?;
    let languages = languages::provide(project, progress)?;
    let container_tools = packaging::provide_venv(project, progress)?;
    let browser = browser::provide(project, progress)?;
    guests::build(project, progress, Wanted::Everything, Choice::Auto)?;

    progress.heading("build the programs");
    // Tests of one package run the programs of others.
    tools::run(project.cargo().arg("build").args(project.without_guests()))?;
    let package = provide_package(project, progress)?;
    let mut skips = Vec::new();
    if four.is_none() {
        skips.extend([TESTS_OF_FOUR, TEST_OF_INSTALLING]);
    }
    if package.is_none() {
        skips.push(TESTS_OF_PACKAGE);
    }
    if browser.is_none() {
        skips.push(TESTS_IN_A_BROWSER);
    }

    progress.heading("run the tests");
    let mut cargo = project.cargo();
    cargo
        .arg("test")
        .args(packages(arguments, project.without_guests()))
        .args(with_skips(arguments, &skips))
        .envs(four.map(|folder| (FOUR_VARIABLE, folder)))
        .envs(package.map(|folder| (PACKAGE_VARIABLE, folder)))
        .envs(browser.map(|folder| (browser::VARIABLE, folder)))
        .env("NOTIFY_TEST_PLUGINS", project.target.join(PLUGINS))
        .env("NOTIFY_TEST_PLUGINS_CORE", project.target.join(PLUGINS_CORE))
        .env("NOTIFY_TEST_GUESTS", project.target.join(GUESTS))
        .env("NOTIFY_TEST_BIN", project.programs())
        .env(PYTHON_VARIABLE, python)
        .env(packaging::VARIABLE, container_tools)
        .env(languages::VARIABLE, languages);
    tools::run(&mut cargo)?;
    if arguments.is_empty() {
        progress.heading("run the plugins' own tests, which are plain Rust");
        let mut cargo = project.cargo();
        // Beside the plugins the SDK has the features that they want of it.
        cargo.args(["test", "--lib", "--package", "notify-plugin"]);
        for plugin in project.plugins() {
            cargo.args(["--package", &plugin.name]);
        }
        tools::run(&mut cargo)?;
    }
    progress.heading("all tests passed");
    Ok(())
}

/// The folder with the Debian package, of programs that are not optimised. `None` where none can be made, which is
/// said; in CI that is an error.
fn provide_package(project: &Project, progress: &Progress) -> anyhow::Result<Option<PathBuf>> {
    let made = package::deb(project, progress, true).and_then(|file| {
        let folder = file.parent().context("a package in no folder")?.to_owned();
        std::fs::copy(&file, folder.join("notify-host.deb"))?;
        Ok(folder)
    });
    match made {
        Ok(folder) => Ok(Some(folder)),
        Err(error) if std::env::var_os("CI").is_some_and(|value| !value.is_empty()) => Err(error),
        Err(error) => {
            progress.heading(format!("no Debian package can be made here ({error:#}): its tests are left out"));
            Ok(None)
        }
    }
}

/// All packages, unless the arguments for cargo name some: `--workspace` would win over those.
fn packages(arguments: &[String], all: Vec<String>) -> Vec<String> {
    let for_cargo = arguments.iter().take_while(|argument| *argument != "--");
    let names_some = for_cargo.into_iter().any(|argument| {
        (argument.starts_with("-p") && !argument.starts_with("--"))
            || argument == "--package"
            || argument.starts_with("--package=")
    });
    if names_some { Vec::new() } else { all }
}

/// The arguments, with tests to leave out.
fn with_skips(arguments: &[String], skips: &[&str]) -> Vec<String> {
    let mut arguments = arguments.to_vec();
    if !skips.is_empty() && !arguments.iter().any(|argument| argument == "--") {
        arguments.push("--".to_owned());
    }
    arguments.extend(skips.iter().flat_map(|skip| ["--skip".to_owned(), (*skip).to_owned()]));
    arguments
}

/// A Python that can import what the tests want: one that is named already, else one below target/.
pub(crate) fn provide_python(project: &Project, progress: &Progress) -> anyhow::Result<PathBuf> {
    let packages = PYTHON_PACKAGES.map(|(package, _)| package);
    if let Some(named) = std::env::var_os(PYTHON_VARIABLE).map(PathBuf::from) {
        if has_packages(&named) {
            return Ok(named);
        }
        bail!("{PYTHON_VARIABLE} names {}, which cannot import all of {}", named.display(), packages.join(", "));
    }
    let venv = project.target.join(VENV);
    let python = venv.join("bin/python");
    if has_packages(&python) {
        return Ok(python);
    }
    progress.heading(format!("make a Python with {} in target/{VENV}", packages.join(", ")));
    tools::make_venv(progress, &venv)?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]).args(packages);
    tools::run(&mut pip).with_context(|| format!("the tests want Python's {}", packages.join(", ")))?;
    Ok(python)
}

fn has_packages(python: &Path) -> bool {
    let modules = PYTHON_PACKAGES.map(|(_, module)| module).join(", ");
    tools::succeeds(Command::new(python).args(["-c", &format!("import {modules}")]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_that_cannot_run_are_left_out_by_name() {
        for (arguments, skips, all) in [
            ("-p broker", &[][..], "-p broker"),
            ("-p broker", &["four"], "-p broker -- --skip four"),
            ("-p broker -- --nocapture", &["four"], "-p broker -- --nocapture --skip four"),
        ] {
            let split: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
            assert_eq!(with_skips(&split, skips).join(" "), all);
        }
    }

    #[test]
    fn whoever_names_packages_gets_those_alone() {
        for (arguments, all) in [
            ("", true),
            ("--test delivery", true),
            ("--profile dev", true),
            ("-p broker", false),
            ("-pbroker", false),
            ("--package broker", false),
            ("--package=broker --lib", false),
            ("-- -p broker", true),
        ] {
            let split: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
            assert_eq!(!packages(&split, vec!["--workspace".to_owned()]).is_empty(), all, "{arguments}");
        }
    }
}
