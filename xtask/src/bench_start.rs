//! How long a host takes from its start until it is ready, with many plugins: the first time, when each
//! must be compiled, and later, when their code is kept.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::bail;
use testbed::Leash;

use crate::demo::program;
use crate::guests::{self, Choice, PLUGINS, Wanted};
use crate::project::Project;
use crate::tools::{self, Progress};

const COUNT: u8 = 20;
const STARTS: usize = 7;
const READY_LIMIT: Duration = Duration::from_mins(5);
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// Runs it and prints what it took.
pub(crate) fn run(project: &Project, progress: &Progress) -> anyhow::Result<()> {
    progress.heading("build notify-host, optimised; the first time that takes several minutes");
    tools::run(project.cargo().args(["build", "--release", "--package", "notify-host"]))?;
    guests::build(project, progress, Wanted::Plugins, Choice::Auto)?;
    let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(&project.target)?;
    let plugins = folder.path().join("plugins");
    fs::create_dir(&plugins)?;
    let logger = fs::read(project.target.join(PLUGINS).join("logger.wasm"))?;
    for number in 0..COUNT {
        // A custom section makes it another file.
        let variant = [&logger[..], &[0, 3, 1, b'v', number]].concat();
        fs::write(plugins.join(format!("logger-{number}.wasm")), variant)?;
    }
    progress.heading(format!("{STARTS} starts with {COUNT} plugins, of which the first compiles them"));
    let first = start(project, folder.path())?;
    let mut later = (0..STARTS).map(|_| start(project, folder.path())).collect::<Result<Vec<_>, _>>()?;
    later.sort();
    println!("start to ready with {COUNT} plugins like the logger, {} KB each", logger.len() >> 10);
    println!("the first time, compiling them    {:>7} ms", first.as_millis());
    println!("median of {STARTS} with their code kept   {:>7} ms", later[later.len() / 2].as_millis());
    Ok(())
}

fn start(project: &Project, folder: &Path) -> anyhow::Result<Duration> {
    let mut host = program(&project.release_programs(), "notify-host");
    host.args(["run", "--log-format", "json", "--broker"]).arg(format!("sqlite:{}", folder.join("queue.db").display()));
    host.arg("--plugins").arg(folder.join("plugins")).arg("--state").arg(folder.join("state"));
    let begun = Instant::now();
    let host = Leash::spawn(host);
    while !host.stderr().contains("ready: ") {
        if begun.elapsed() > READY_LIMIT || host.wait_timeout(LOOK_INTERVAL).is_some() {
            bail!("the host does not get ready:\n{}", host.stderr());
        }
    }
    let took = begun.elapsed();
    host.terminate();
    if host.wait_timeout(READY_LIMIT).is_none() {
        bail!("the host does not stop");
    }
    Ok(took)
}
