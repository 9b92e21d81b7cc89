//! What the project does with itself: build its guests, show itself, test and check itself.
//!
//! Each command is one module, and says on stderr what it is at and how long it has been at it.
//! Nothing here is part of the product: host, order-cli and guests build without it.

mod architecture;
mod bench;
mod browser;
mod check;
mod demo;
mod guests;
mod languages;
mod npm;
mod package;
mod packaging;
mod process;
mod project;
mod rabbitmq;
mod soak;
mod test;
mod tools;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::guests::{Choice, Wanted};
use crate::project::Project;
use crate::tools::Progress;

/// What the project does with itself.
///
/// A clean clone needs Rust and nothing else: `cargo xtask demo` builds the rest, runs an order
/// through the host and shows what came of it. Everything is put below the target folder.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
#[expect(clippy::doc_markdown, reason = "the comments are help texts, without markup")]
enum Task {
    /// Builds the plugins to WebAssembly, into target/plugins
    ///
    /// What is built: every package below plugins/ and host/tests/guests/ that has a `cdylib`.
    ///
    ///   target/plugins       the plugins as components
    ///   target/plugins-core  the plugins as core modules, which the host makes components of
    ///   target/guests        the tests' own guests, as components
    ///
    /// A file is written only if its content has changed, and appears at once or not at all, so
    /// that a running host can watch the folder.
    ///
    /// The compiler is the first of these that can be had: Rust's wasm32-wasip2; its
    /// wasm32-unknown-unknown (both are added by rustup if they lack); Debian's rustc-web with
    /// cargo-web and rust-web-src, which builds the standard library itself.
    #[command(verbatim_doc_comment)]
    Guests(GuestsArguments),
    /// Shows an order on its way: order-cli, a queue, the host, the logger plugin
    ///
    /// Builds what is needed, starts the host on a throw-away queue with the logger as its one
    /// plugin, publishes two orders, shows what the logger writes, and stops the host. Fails if an
    /// order did not arrive. Nothing stays behind outside the target folder.
    Demo,
    /// Measures, side by side with peers and limits, and prints what holds
    ///
    /// With optimised programs, which take several minutes to build the first time; then all takes some 15 min. Each
    /// figure is a median of rounds in which ours and the peer have their turns, on a RabbitMQ node of its own or on a
    /// throw-away file. With all rows it writes the table into docs/benchmarks.md, which says how each is measured.
    Bench(bench::Arguments),
    /// Keeps a host at work for long: mixed load, faults, hot swaps
    ///
    /// On a RabbitMQ node of its own, with plugins that are well-behaved and others that are not. The broker is killed and comes back, the receiver of
    /// webhooks errs and hangs, plugins' files change. Prints what the host uses of memory, handles and threads, and fails
    /// if that grows after the warm-up or if an event is neither done nor a dead letter at a plugin that wanted it.
    Soak(soak::Arguments),
    /// Installs what the tests need, builds everything, runs the tests
    ///
    /// Without --all: the unit tests, the broker contract, and the core end-to-end tests on SQLite and RabbitMQ. They want a
    /// RabbitMQ server (each test starts a private node) and a Python with `pika`, `standardwebhooks`, `cloudevents`,
    /// `aiosmtpd` and `dkimpy` (in target/test-venv). Missing tools are installed where that asks for no password. Where one
    /// cannot be had, its tests are left out, and the last line says so and how to get it; with CI set that is an error.
    ///
    /// With --all, besides: RabbitMQ 4 and the Debian package (in target/rabbitmq-4, by debootstrap, as root); plugins in
    /// JavaScript, Python and C (npm and PyPI, in target/languages); Debian's Prometheus; the dashboard in Debian's
    /// chromium, driven by `playwright-core` and judged by `axe-core` (in target/browser).
    ///
    /// The tests find what they need by these variables:
    ///
    ///   NOTIFY_TEST_PLUGINS       the plugins, as components where the compiler can
    ///   NOTIFY_TEST_PLUGINS_CORE  the plugins, as core modules
    ///   NOTIFY_TEST_GUESTS        the tests' own guests
    ///   NOTIFY_TEST_BIN           the folder of notify-host and order-cli
    ///   NOTIFY_TEST_PYTHON        an interpreter that can import these
    ///   NOTIFY_TEST_LANGUAGES     the folder with venv (componentize-py, ziglang) and npm (componentize-…)
    ///   NOTIFY_TEST_BROWSER       the folder with playwright-core and axe-core
    ///   NOTIFY_TEST_RABBITMQ_4    the folder of a system with RabbitMQ 4 in it
    ///   NOTIFY_TEST_PACKAGE       the folder of notify-host.deb
    ///   NOTIFY_TEST_CONTAINER_TOOLS  the folder with docker-compose and a Python that reads YAML
    #[command(verbatim_doc_comment)]
    Test(TestArguments),
    /// Makes a package to install
    #[command(subcommand)]
    Package(Package),
    /// Checks what needs no test: format, lints, docs, licences, the contract, the architecture, the packaging
    ///
    /// All steps run, whatever fails; the last lines name those that did. cargo-deny is skipped,
    /// and said to be, where it is not installed.
    Check(CheckArguments),
}

#[derive(Subcommand)]
enum Package {
    /// A package for Debian, in target/package
    Deb {
        /// With programs that are not optimised, for tests
        #[arg(long)]
        unoptimised: bool,
    },
}

#[derive(Args)]
struct GuestsArguments {
    /// Say nothing but errors
    #[arg(long, short)]
    quiet: bool,
    /// Which compiler to use
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    compiler: Choice,
}

#[derive(Args)]
struct TestArguments {
    /// Run everything: RabbitMQ 4, clusters, browser, languages, packages, kill loops. Takes some 20 minutes
    #[arg(long)]
    all: bool,
    /// Handed to `cargo test`, which then runs this selection of all tests: `-- -p broker`, `-- --test end_to_end -- orders::`
    #[arg(last = true)]
    cargo_test: Vec<String>,
}

#[derive(Args)]
struct CheckArguments {
    /// Let rustfmt and clippy mend what they can, and check nothing
    #[arg(long)]
    fix: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    let project = Project::load()?;
    match task {
        Task::Guests(arguments) => {
            let progress = Progress::new(arguments.quiet);
            guests::build(&project, &progress, Wanted::Everything, arguments.compiler)
        }
        Task::Demo => demo::run(&project, &Progress::new(false)),
        Task::Bench(arguments) => bench::run(&project, &Progress::new(false), &arguments),
        Task::Soak(arguments) => soak::run(&project, &Progress::new(false), &arguments),
        Task::Test(arguments) => test::run(&project, &Progress::new(false), arguments.all, &arguments.cargo_test),
        Task::Package(Package::Deb { unoptimised }) => {
            println!("{}", package::deb(&project, &Progress::new(false), unoptimised)?.display());
            Ok(())
        }
        Task::Check(arguments) if arguments.fix => check::fix(&project, &Progress::new(false)),
        Task::Check(_) => check::run(&project, &Progress::new(false)),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Arguments;

    #[test]
    fn the_arguments_hang_together() {
        Arguments::command().debug_assert();
    }
}
