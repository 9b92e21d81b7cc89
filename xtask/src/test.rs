//! Tests want the real thing: a RabbitMQ server, a Python with pika, the guests, the programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::guests::{self, Choice, GUESTS, PLUGINS, PLUGINS_CORE, Wanted};
use crate::project::Project;
use crate::tools::{self, Installer, Progress};

/// Where the testbed looks, too; see `broker/testbed/src/rabbitmq.rs`.
const RABBITMQ_VARIABLE: &str = "NOTIFY_RABBITMQ_SBIN";
const RABBITMQ_PLACES: [&str; 3] =
    ["/opt/rabbitmq/sbin", "/opt/homebrew/opt/rabbitmq/sbin", "/usr/local/opt/rabbitmq/sbin"];
const RABBITMQ_DEBIAN: &str = "/usr/lib/rabbitmq/lib";
/// The tutorial's client library.
const PIKA: &str = "pika==1.3.2";

/// Installs, builds and tests.
pub(crate) fn run(project: &Project, progress: &Progress, cargo_test: &[String]) -> anyhow::Result<()> {
    install_rabbitmq(progress)?;
    let python = python_with_pika(project, progress)?;
    guests::build(project, progress, Wanted::Everything, Choice::Auto)?;
    let members = project.without_guests();
    progress.heading("build the programs and the tests");
    // Tests of one package run the programs of others.
    tools::run(project.cargo().arg("build").args(&members))?;
    progress.heading("run the tests");
    let mut test = project.cargo();
    test.env("NOTIFY_TEST_PLUGINS", project.target.join(PLUGINS))
        .env("NOTIFY_TEST_PLUGINS_CORE", project.target.join(PLUGINS_CORE))
        .env("NOTIFY_TEST_GUESTS", project.target.join(GUESTS))
        .env("NOTIFY_TEST_BIN", project.programs())
        .env("NOTIFY_TEST_PYTHON", python)
        .arg("test");
    if cargo_test.is_empty() {
        test.args(&members);
        tools::run(&mut test)?;
        // The guests' own tests are plain Rust, and run here.
        let mut guests = project.cargo();
        guests.arg("test");
        for guest in project.plugins() {
            guests.args(["--package", &guest.name]);
        }
        tools::run(&mut guests)?;
    } else {
        tools::run(test.args(cargo_test))?;
    }
    progress.heading("every test passed");
    Ok(())
}

fn install_rabbitmq(progress: &Progress) -> anyhow::Result<()> {
    if has_rabbitmq() {
        return Ok(());
    }
    let Some(installer) = Installer::find() else {
        bail!(
            "the tests start RabbitMQ servers, and there is none: run `apt-get install rabbitmq-server`, \
             or name the folder of its programs in {RABBITMQ_VARIABLE}"
        );
    };
    progress.heading("apt-get install rabbitmq-server");
    installer.install(&["rabbitmq-server"])?;
    if !has_rabbitmq() {
        bail!(
            "rabbitmq-server is installed, but its programs are not where they are looked for: name their folder in {RABBITMQ_VARIABLE}"
        );
    }
    Ok(())
}

fn has_rabbitmq() -> bool {
    let debian = fs::read_dir(RABBITMQ_DEBIAN).into_iter().flatten().flatten().map(|entry| entry.path().join("sbin"));
    let places = debian.chain(RABBITMQ_PLACES.map(PathBuf::from));
    let named = std::env::var_os(RABBITMQ_VARIABLE).map(PathBuf::from);
    places.chain(named).any(|place| place.join("rabbitmq-server").is_file())
}

/// A virtual environment below the target folder, so that nothing of the user's changes.
fn python_with_pika(project: &Project, progress: &Progress) -> anyhow::Result<PathBuf> {
    let folder = project.target.join("test-venv");
    let python = folder.join("bin/python");
    let has_pika = |python: &Path| tools::succeeds(Command::new(python).args(["-c", "import pika"]));
    if has_pika(&python) {
        return Ok(python);
    }
    progress.heading("make a Python environment with pika in target/test-venv");
    let make = || tools::succeeds(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
    if !make() {
        // Debian keeps venv in a package of its own.
        if let Some(installer) = Installer::find() {
            progress.heading("apt-get install python3-venv");
            installer.install(&["python3", "python3-venv"])?;
        }
        if !make() {
            bail!(
                "the tests run Python scripts: install Python 3 with venv (on Debian `apt-get install python3-venv`)"
            );
        }
    }
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "--disable-pip-version-check", "install", "--quiet", PIKA]);
    tools::run(&mut pip).context("cannot install pika, which the tests need")?;
    Ok(python)
}
