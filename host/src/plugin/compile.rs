//! Compiling turns a plugin's file into code, in a process of its own: what a file can make a compiler
//! do, by malice or by size, ends with that process. One at a time, with bounds on time and memory, and
//! with less right to the processor than the host that works beside it.

use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use rustix::process::{Resource, Rlimit, Signal};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tracing::info;
use wasmtime::component::Component;

use crate::digest::Digest;
use crate::file::apart;
use crate::plugin::code::{self, CodeCache};
use crate::plugin::engine::{self, Engine};
use crate::plugin::limits::{INSTANCES_MAX, MEMORIES_MAX, TABLES_MAX};
use crate::plugin::load::code_of;

/// Of a processor's time, for one plugin; a large one in Python takes eight seconds. The clock on the wall
/// would be no fair judge: the plugins that run come first.
const PROCESSOR_TIME_MAX: Duration = Duration::from_mins(4);
/// Until then it should be done however busy the machine is.
pub(crate) const COMPILE_TIME_MAX: Duration = Duration::from_mins(15);
/// When somebody who waits should be told what for.
const PATIENCE: Duration = Duration::from_secs(1);
/// Of address space; a large one in JavaScript wants 400 MB.
const MEMORY_BYTES_MAX: u64 = 3 << 30;
/// Of what the process has to say.
const MESSAGE_BYTES_MAX: u64 = 16 << 10;
/// More of them do not make it much faster, and take from the plugins that run.
const THREADS_MAX: usize = 4;
const NICENESS: i32 = 5;

/// Makes code of files.
#[derive(Debug)]
pub(super) struct Compiler {
    engine: Engine,
    cache: Arc<CodeCache>,
    one_at_a_time: Mutex<()>,
}

impl Compiler {
    /// `state`: where code is kept for the next start.
    pub(super) fn new(engine: Engine, state: Option<&Path>) -> anyhow::Result<Self> {
        let cache = CodeCache::open(state, &engine.wasmtime).context("there is no place for compiled plugins")?;
        Ok(Self { engine, cache: Arc::new(cache), one_at_a_time: Mutex::default() })
    }

    /// The component that the file's content makes. The error is one sentence.
    pub(super) async fn component(&self, name: &str, content: &[u8], digest: Digest) -> anyhow::Result<Component> {
        if let Some(component) = self.kept(digest).await {
            return Ok(component);
        }
        let _one = self.one_at_a_time.lock().await;
        let begun = Instant::now();
        let part = self.cache.part().context("cannot keep the compiled code")?;
        compile_patiently(&self.engine, name, content, &part).await?;
        self.cache.keep(part, digest).context("cannot keep the compiled code")?;
        info!(plugin = name, "compiled in {} ms", begun.elapsed().as_millis());
        self.kept(digest).await.ok_or_else(|| {
            anyhow!(
                "its compiled code cannot be loaded: perhaps it is larger than the sandbox, which has {INSTANCES_MAX} \
                 core modules, {MEMORIES_MAX} memories and {TABLES_MAX} tables for each call"
            )
        })
    }

    async fn kept(&self, digest: Digest) -> Option<Component> {
        let (cache, engine) = (Arc::clone(&self.cache), self.engine.wasmtime.clone());
        apart(move || cache.load(&engine, digest)).await
    }
}

/// Compiles it, and says so if that takes a while.
async fn compile_patiently(engine: &Engine, name: &str, content: &[u8], output: &Path) -> anyhow::Result<()> {
    let mut compiled = pin!(compile(engine, content, output));
    if let Ok(compiled) = tokio::time::timeout(PATIENCE, &mut compiled).await {
        return compiled;
    }
    info!(plugin = name, "compiling it, which takes a while for a large one");
    compiled.await
}

async fn compile(engine: &Engine, content: &[u8], output: &Path) -> anyhow::Result<()> {
    // A test has no such program.
    if cfg!(test) {
        return Ok(code::write(output, &code_of(&engine.wasmtime, content)?)?);
    }
    let mut child = start(output, engine.memory_reservation).context("cannot start a process that compiles it")?;
    let mut message = Vec::new();
    let work = async {
        if let Some(mut input) = child.stdin.take() {
            // It may have seen enough; what it thinks of it is in its message.
            let _ = input.write_all(content).await;
        }
        if let Some(said) = &mut child.stderr {
            message = heard(said).await;
        }
        child.wait().await
    };
    let Ok(status) = tokio::time::timeout(COMPILE_TIME_MAX, work).await else {
        bail!("it was not compiled within {} min", COMPILE_TIME_MAX.as_secs() / 60);
    };
    let status = status.context("cannot wait for the process that compiles it")?;
    if status.success() {
        return Ok(());
    }
    if status.signal() == Some(Signal::XCPU.as_raw()) {
        bail!("it takes more than {} s of a processor's time to compile", PROCESSOR_TIME_MAX.as_secs());
    }
    let message = String::from_utf8_lossy(&message);
    match (message.trim(), status.code()) {
        // It had a reason, in a sentence.
        (message, Some(1)) if !message.is_empty() => bail!("{message}"),
        (message, _) => {
            let last = message.lines().last().map(|line| format!(": {line}")).unwrap_or_default();
            bail!("the compiler died of it ({status}, with up to {} GiB of memory){last}", MEMORY_BYTES_MAX >> 30)
        }
    }
}

/// What it says, up to the bound. The rest must be read as well, or it waits for ever for somebody to do so.
async fn heard(mut said: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut message = Vec::new();
    // What was heard before it failed is what there is.
    let _ = (&mut said).take(MESSAGE_BYTES_MAX).read_to_end(&mut message).await;
    let _ = tokio::io::copy(&mut said, &mut tokio::io::sink()).await;
    message
}

fn start(output: &Path, memory_reservation: u64) -> anyhow::Result<Child> {
    Command::new(own_program()?)
        .arg(COMMAND)
        .arg(output)
        .arg(memory_reservation.to_string())
        // Nothing of what the host knows.
        .env_clear()
        // With many threads the address space would be used up by what is set aside for each.
        .env("RAYON_NUM_THREADS", threads().to_string())
        .env("MALLOC_ARENA_MAX", "2")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start itself")
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX)
}

/// This program, even if its file was replaced by a newer one since it was started.
fn own_program() -> anyhow::Result<PathBuf> {
    let running = Path::new("/proc/self/exe");
    if running.exists() { Ok(running.to_owned()) } else { Ok(std::env::current_exe()?) }
}

/// The command of this program that compiles; for itself, not for people.
pub(crate) const COMMAND: &str = "compile-plugin";

/// What the process does that compiles: a plugin's file comes in by standard input, its code goes to
/// the file `output`.
pub(crate) fn compile_standard_input(output: &Path, memory_reservation: u64) -> anyhow::Result<()> {
    for (resource, limit) in
        [(Resource::As, MEMORY_BYTES_MAX), (Resource::Core, 0), (Resource::Cpu, PROCESSOR_TIME_MAX.as_secs())]
    {
        // It may be lower already, and cannot be raised.
        let limit = rustix::process::getrlimit(resource).maximum.map_or(limit, |now| now.min(limit));
        rustix::process::setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    }
    // Better a slow compilation than none.
    let _ = rustix::process::nice(NICENESS);
    let mut content = Vec::new();
    std::io::stdin().lock().read_to_end(&mut content).context("cannot read it")?;
    let code = code_of(&engine::for_compiling(memory_reservation)?, &content)?;
    code::write(output, &code).context("cannot write its code")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const PAGE_BYTES: usize = 4096;

    #[tokio::test]
    async fn code_that_was_torn_is_compiled_again() {
        let state = tempfile::tempdir().unwrap();
        let compiler = Compiler::new(Engine::new().unwrap(), Some(state.path())).unwrap();
        let [_, content] = crate::plugin::misfits::good();
        let digest = Digest::of(&content);
        compiler.component("p", &content, digest).await.unwrap();
        let path = compiler.cache.path(digest);
        let whole = fs::read(&path).unwrap();
        // What a crash leaves behind: all of the length, and not all that was written. The engine would not
        // notice it everywhere.
        let without_page = |at: usize| {
            let mut torn = whole.clone();
            torn[at..whole.len().min(at + PAGE_BYTES)].fill(0);
            torn
        };
        let zeroed = (0..whole.len()).step_by(PAGE_BYTES).map(without_page).filter(|torn| *torn != whole);
        for torn in zeroed.chain([whole[..whole.len() / 2].to_vec(), Vec::new()]) {
            fs::write(&path, torn).unwrap();
            assert!(compiler.cache.load(&compiler.engine.wasmtime, digest).is_none());
            compiler.component("p", &content, digest).await.unwrap();
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left behind");
    }

    #[tokio::test]
    async fn a_compiler_that_says_much_is_heard_to_its_end() {
        let (mut output, input) = tokio::io::duplex(1 << 10);
        let message = "x".repeat(100_000);
        let write = async move { output.write_all(message.as_bytes()).await };
        let both = async { tokio::join!(write, heard(input)) };
        let (written, heard) = tokio::time::timeout(Duration::from_secs(20), both).await.expect("it is heard");
        written.unwrap();
        assert_eq!(heard.len() as u64, MESSAGE_BYTES_MAX);
    }
}
