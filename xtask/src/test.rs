//! Runs the tests in two tiers.
//!
//! The core is what everybody runs: unit tests, the broker contract, and the core end-to-end tests on both engines. `--all`
//! adds the rest: RabbitMQ 4, clusters, browsers, languages, packages, kill loops.
//!
//! Missing tools are installed where that asks nobody for a password. Where one cannot be had, its tests are left out and
//! the last line says so; in CI that is an error.

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
/// Tests that only `--all` runs, by a part of their names: they want tools that few machines have, or take minutes.
const ONLY_WITH_ALL: [&str; 24] = [
    TESTS_OF_FOUR,
    TESTS_IN_A_BROWSER,
    TESTS_OF_PACKAGE,
    "broker_away::",
    "chat::",
    "churn::",
    "cluster::",
    // Those of the broker and of the host.
    "crash::",
    "documents::",
    "egress::",
    "full_disk::",
    "hostile::",
    "interop::",
    "languages::",
    "log_sink::",
    "machine_faults::",
    "monitoring::",
    "pacing::",
    "pauses::",
    "quarantine::",
    "retries::",
    "service_manager::",
    "shipped::",
    "template_helpers::",
];
/// End-to-end tests that load the processor, or measure time. They run two at a time. The others mostly wait for backoffs
/// and for nodes to start, so four run at once.
const LOAD_THE_PROCESSOR: [&str; 14] = [
    TESTS_IN_A_BROWSER,
    TESTS_OF_PACKAGE,
    "churn::",
    "cluster::",
    "counts::",
    "crash::",
    "documents::",
    "egress::fetch_in_javascript",
    "hostile::",
    "isolation::",
    "languages::",
    "log_sink::",
    "neighbours::",
    "template_helpers::",
];
/// Core tests that need a RabbitMQ server, by a part of their names, and the targets of which every test does.
const WANT_RABBITMQ: [&str; 9] = [
    "rabbitmq",
    "a_broker_that_goes_away_ends_a_load",
    "a_user_without_the_right",
    "each_way_to_carry_a_trace_over_amqp",
    "in_somebody_elses_queue",
    "unreadable::",
    "webhook::",
    "webhook_answers::",
    "while_the_broker_is_away",
];
const TARGETS_ON_RABBITMQ: [&str; 2] = ["rabbitmq", "unreadable"];
/// Core tests that need Python.
const WANT_PYTHON: [&str; 4] = ["python", "mail::", "tracing::", "webhook::"];
/// The end-to-end tests' own target.
const END_TO_END: &str = "end_to_end";

const TESTS_OF_FOUR: &str = "rabbitmq_4";
const TESTS_OF_PACKAGE: &str = "debian_package::";
/// Installs the package into the Debian system of RabbitMQ 4.
const TEST_OF_INSTALLING: &str = "a_debian_package_installs";
const TESTS_IN_A_BROWSER: &str = "in_a_browser";

/// What a test run has found on this machine.
#[derive(Default)]
struct Found {
    /// Variables by which the tests find it.
    variables: Vec<(&'static str, PathBuf)>,
    /// Parts of the names of the tests that cannot run.
    skips: Vec<&'static str>,
    /// What is missing, and how to get it.
    missing: Vec<String>,
    has_rabbitmq: bool,
}

impl Found {
    /// Takes a tool that could be provided, or leaves out the tests that want it. In CI a missing tool is an error.
    fn take<T>(
        &mut self,
        provided: anyhow::Result<T>,
        what: &str,
        tests: &[&'static str],
    ) -> anyhow::Result<Option<T>> {
        match provided {
            Ok(tool) => Ok(Some(tool)),
            Err(error) if is_ci() => Err(error),
            Err(error) => {
                self.skips.extend(tests);
                self.missing.push(format!("{what} ({error:#})"));
                Ok(None)
            }
        }
    }
}

fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty())
}

/// Installs, builds, and runs the tests: the core, or all, or those that the arguments for `cargo test` select.
pub(crate) fn run(project: &Project, progress: &Progress, all: bool, arguments: &[String]) -> anyhow::Result<()> {
    let all = all || !arguments.is_empty();
    let mut found = Found::default();
    let rabbitmq = rabbitmq::provide(progress);
    if all {
        rabbitmq?;
        found.has_rabbitmq = true;
    } else {
        found.has_rabbitmq = found.take(rabbitmq, "RabbitMQ", &WANT_RABBITMQ)?.is_some();
    }
    if let Some(python) = found.take(provide_python(project, progress), "Python", &WANT_PYTHON)? {
        found.variables.push((PYTHON_VARIABLE, python));
    }
    if all {
        provide_the_rest(project, progress, &mut found)?;
    }
    guests::build(project, progress, Wanted::Everything, Choice::Auto)?;

    progress.heading("build the programs");
    // Tests of one package run the programs of others.
    tools::run(project.cargo().arg("build").args(project.without_guests()))?;
    if all
        && let Some(package) =
            found.take(provide_package(project, progress), "a Debian package", &[TESTS_OF_PACKAGE])?
    {
        found.variables.push((PACKAGE_VARIABLE, package));
    }
    if arguments.is_empty() {
        run_tier(project, progress, all, &found)?;
    } else {
        progress.heading("run the tests");
        let mut cargo = cargo_test(project, &found);
        cargo.args(packages(arguments, project.without_guests())).args(with_skips(arguments, &found.skips));
        tools::run(&mut cargo)?;
    }
    progress.heading(summary(all, &found.missing));
    Ok(())
}

/// The last line.
fn summary(all: bool, missing: &[String]) -> String {
    let ran = if all { "all tests passed" } else { "the core tests passed; --all runs the rest" };
    match missing {
        [] => ran.to_owned(),
        missing => format!("{ran}, but for those that want {}", missing.join(", ")),
    }
}

/// Runs one tier: what is quick first, then end to end.
fn run_tier(project: &Project, progress: &Progress, all: bool, found: &Found) -> anyhow::Result<()> {
    let left_out = || found.skips.iter().copied().chain((!all).then_some(ONLY_WITH_ALL).into_iter().flatten());
    let test = |targets: &[&str], threads: usize, skips: Vec<&str>, only: &[&str]| {
        let mut cargo = cargo_test(project, found);
        cargo.arg("--no-fail-fast").args(project.without_guests()).args(targets).arg("--");
        cargo.arg(format!("--test-threads={threads}")).args(only);
        for skip in skips {
            cargo.args(["--skip", skip]);
        }
        tools::run(&mut cargo)
    };
    progress.heading("run the unit tests and those of the broker");
    let others = project.test_targets();
    let can_run = |name: &&&str| **name != END_TO_END && (found.has_rabbitmq || !TARGETS_ON_RABBITMQ.contains(*name));
    let others: Vec<_> = others.iter().filter(can_run).flat_map(|name| ["--test", name]).collect();
    test(&[&["--lib", "--bins"][..], &others].concat(), threads(), left_out().collect(), &[])?;

    let end_to_end = ["--test", END_TO_END];
    progress.heading("run the end-to-end tests that mostly wait, four at a time");
    test(&end_to_end, 2 * threads().max(2), left_out().chain(LOAD_THE_PROCESSOR).collect(), &[])?;
    progress.heading("run those that load the processor");
    test(&end_to_end, threads(), left_out().collect(), &LOAD_THE_PROCESSOR)?;
    if all {
        progress.heading("run the examples in the documentation");
        tools::run(cargo_test(project, found).args(project.without_guests()).arg("--doc"))?;
    }
    progress.heading("run the plugins' own tests, which are plain Rust");
    let mut cargo = project.cargo();
    // Beside the plugins the SDK has the features that they want of it.
    cargo.args(["test", "--lib", "--package", "notify-plugin"]);
    for plugin in project.plugins() {
        cargo.args(["--package", &plugin.name]);
    }
    tools::run(&mut cargo)
}

/// How many tests run at once that load the processor.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// `cargo test`, with the variables by which the tests find what they need.
fn cargo_test(project: &Project, found: &Found) -> Command {
    let mut cargo = project.cargo();
    cargo
        .arg("test")
        .envs(found.variables.iter().cloned())
        .env("NOTIFY_TEST_PLUGINS", project.target.join(PLUGINS))
        .env("NOTIFY_TEST_PLUGINS_CORE", project.target.join(PLUGINS_CORE))
        .env("NOTIFY_TEST_GUESTS", project.target.join(GUESTS))
        .env("NOTIFY_TEST_BIN", project.programs());
    cargo
}

/// What only `--all` wants.
fn provide_the_rest(project: &Project, progress: &Progress, found: &mut Found) -> anyhow::Result<()> {
    found.take(packaging::provide(progress, "prometheus", "prometheus"), "Prometheus", &["monitoring::"])?;
    let four = rabbitmq::provide_four(project, progress);
    if let Some(four) = found.take(four, "RabbitMQ 4", &[TESTS_OF_FOUR, TEST_OF_INSTALLING])? {
        found.variables.push((FOUR_VARIABLE, four));
    }
    let languages = ["languages::", "template_helpers::", "documents::", "egress::fetch_in_javascript"];
    if let Some(folder) = found.take(languages::provide(project, progress), "npm and PyPI", &languages)? {
        found.variables.push((languages::VARIABLE, folder));
    }
    let tools = packaging::provide_venv(project, progress);
    if let Some(folder) = found.take(tools, "container tools from PyPI", &["shipped::"])? {
        found.variables.push((packaging::VARIABLE, folder));
    }
    if let Some(folder) = found.take(browser::provide(project, progress), "a browser", &[TESTS_IN_A_BROWSER])? {
        found.variables.push((browser::VARIABLE, folder));
    }
    Ok(())
}

/// The folder with the Debian package, of programs that are not optimised.
fn provide_package(project: &Project, progress: &Progress) -> anyhow::Result<PathBuf> {
    let file = package::deb(project, progress, true)?;
    let folder = file.parent().context("a package in no folder")?.to_owned();
    std::fs::copy(&file, folder.join("notify-host.deb"))?;
    Ok(folder)
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
    fn the_last_line_says_what_was_left_out() {
        assert_eq!(summary(true, &[]), "all tests passed");
        let missing = ["RabbitMQ (there is none)".to_owned(), "Python (nor that)".to_owned()];
        assert_eq!(
            summary(false, &missing),
            "the core tests passed; --all runs the rest, but for those that want RabbitMQ (there is none), Python (nor that)"
        );
    }

    #[test]
    fn each_module_that_is_named_is_there() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/tests/end_to_end");
        for name in ONLY_WITH_ALL.iter().chain(&LOAD_THE_PROCESSOR) {
            let Some(module) = name.split("::").next().filter(|_| name.contains("::")) else { continue };
            let ends_in = |path: &Path| path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with(module));
            let files = |folder: &Path| {
                std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
            };
            let all: Vec<_> = files(&folder);
            let below = all.iter().filter(|path| path.is_dir()).flat_map(|path| files(path));
            assert!(all.iter().cloned().chain(below).any(|path| ends_in(&path)), "{name}");
        }
    }

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
