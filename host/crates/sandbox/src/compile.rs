//! Compiles a plugin's file into machine code, in a separate process. Whatever a file can make a compiler do, by
//! malice or by size, ends with that process. One compilation runs at a time, with limits on time and memory, and at
//! a lower priority than the host.

use std::io::{self, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use config::INSTANCES_MAX;
use rustix::process::{Resource, Rlimit, Signal};
use state::digest::Digest;
use state::file::apart;
use tempfile::{PathPersistError, TempPath};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tracing::{info, warn};
use wasmtime::component::Component;

use crate::compile_cache::{self, CodeCache, Unusable};
use crate::engine::{self, Engine};
use crate::limits::{MEMORIES_MAX, TABLES_MAX};
use crate::load_error::{LoadError, is_of_the_machine};
use crate::{componentize, contract_check};

/// Exit code of the compiler process: the plugin's file is at fault.
pub(crate) const FAILED: u8 = 1;
/// Exit code if the machine was at fault and a retry may work: `EX_TEMPFAIL` of sysexits.h.
pub const TRY_AGAIN: u8 = 75;

/// Maximum CPU time for one plugin; a large one in Python takes eight seconds. Wall-clock time would be unfair,
/// because running plugins have priority.
const PROCESSOR_TIME_MAX: Duration = Duration::from_mins(4);
/// Maximum wall-clock time, generous enough for a busy machine.
pub const COMPILE_TIME_MAX: Duration = Duration::from_mins(15);
/// After this time the log says what the host is waiting for.
const PATIENCE: Duration = Duration::from_secs(1);
/// Maximum bytes of address space; a large plugin in JavaScript takes 400 MB.
const MEMORY_BYTES_MAX: u64 = 3 << 30;
/// Maximum bytes of the process's messages.
const MESSAGE_BYTES_MAX: u64 = 16 << 10;
/// Maximum bytes of code used from memory because no disk takes it; a large plugin in Python has 60 MiB.
const CODE_BYTES_IN_MEMORY_MAX: u64 = 512 << 20;
/// The argument that stands for standard output instead of a file.
const STANDARD_OUTPUT: &str = "-";
/// Rust's message before it aborts for lack of memory: "memory allocation of 32 bytes failed".
const OUT_OF_MEMORY: &str = "memory allocation of ";
/// How Rust shows an operating system error in a panic.
const SYSTEM_ERROR: &str = "Os { code: ";
/// Maximum number of compiler threads. More of them help little, and take time from running plugins.
const THREADS_MAX: usize = 4;
const NICENESS: i32 = 5;

/// Compiles plugin files, with a cache.
#[derive(Debug)]
pub(super) struct Compiler {
    engine: Engine,
    cache: Arc<CodeCache>,
    one_at_a_time: Mutex<()>,
}

impl Compiler {
    /// Creates a compiler. `state` is the folder where code is kept for the next start.
    pub(super) fn new(engine: Engine, state: Option<&Path>) -> Self {
        let cache = CodeCache::open(state, &engine.wasmtime);
        Self { engine, cache: Arc::new(cache), one_at_a_time: Mutex::default() }
    }

    /// Returns the component for the file's content. The error is one sentence.
    pub(super) async fn component(&self, name: &str, content: &[u8], digest: Digest) -> Result<Component, LoadError> {
        if let Some(component) = self.kept(digest).await {
            return Ok(component);
        }
        let _one = self.one_at_a_time.lock().await;
        let begun = Instant::now();
        let part = self.part(name).await;
        let compiled = compile_patiently(&self.engine, name, content, part.as_deref()).await?;
        info!(plugin = name, "compiled in {} ms", begun.elapsed().as_millis());
        let loaded = match (compiled, part) {
            (Compiled::InFile, Some(part)) => self.keep(name, part, digest).await,
            (Compiled::InFile, None) => Err(Unusable::NotThere),
            (Compiled::Here { code, why_not_in_file }, _) => {
                if let Some(why) = why_not_in_file {
                    not_kept(name, &why);
                }
                let engine = self.engine.wasmtime.clone();
                apart(move || compile_cache::load_bytes(&engine, &code)).await
            }
        };
        loaded.map_err(|problem| match problem {
            Unusable::NotThere | Unusable::Torn | Unusable::Machine(_) => {
                LoadError::Transient(format!("its compiled code cannot be loaded: {problem}"))
            }
            Unusable::Unfit(_) => LoadError::Permanent(format!(
                "its compiled code cannot be loaded: perhaps it is larger than the sandbox, which has {INSTANCES_MAX} \
                 core modules, {MEMORIES_MAX} memories and {TABLES_MAX} tables for each call"
            )),
        })
    }

    async fn kept(&self, digest: Digest) -> Option<Component> {
        let (cache, engine) = (Arc::clone(&self.cache), self.engine.wasmtime.clone());
        apart(move || cache.load(&engine, digest)).await
    }

    /// Creates the file to write the code to, or returns `None` if no disk takes it.
    async fn part(&self, name: &str) -> Option<TempPath> {
        let cache = Arc::clone(&self.cache);
        apart(move || cache.part()).await.unwrap_or_else(|error| {
            not_kept(name, &error.to_string());
            None
        })
    }

    /// Moves the code into the cache for the next start, if possible, and loads it.
    async fn keep(&self, name: &str, part: TempPath, digest: Digest) -> Result<Component, Unusable> {
        let (cache, engine) = (Arc::clone(&self.cache), self.engine.wasmtime.clone());
        let (loaded, problem) = apart(move || match cache.keep(part, digest) {
            Ok(path) => (compile_cache::load_file(&engine, &path), None),
            // The mapping stays valid after its file is deleted.
            Err(PathPersistError { error, path }) => (compile_cache::load_file(&engine, &path), Some(error)),
        })
        .await;
        if let Some(problem) = problem {
            not_kept(name, &problem.to_string());
        }
        loaded
    }
}

fn not_kept(plugin: &str, why: &str) {
    warn!(plugin, "its compiled code is not kept for the next start: {why}");
}

/// Where the compiler put the code.
enum Compiled {
    /// In the requested file.
    InFile,
    Here {
        code: Vec<u8>,
        /// Why the file could not be written. `None` if no file was requested.
        why_not_in_file: Option<String>,
    },
}

/// Compiles the plugin, and logs a message if that takes a while.
async fn compile_patiently(
    engine: &Engine,
    name: &str,
    content: &[u8],
    output: Option<&Path>,
) -> Result<Compiled, LoadError> {
    let mut compiled = pin!(compile(engine, content, output));
    if let Ok(compiled) = tokio::time::timeout(PATIENCE, &mut compiled).await {
        return compiled;
    }
    info!(plugin = name, "compiling it, which takes a while for a large one");
    compiled.await
}

async fn compile(engine: &Engine, content: &[u8], output: Option<&Path>) -> Result<Compiled, LoadError> {
    // Tests have no host program to start, so they compile in this process.
    if cfg!(test) {
        let mut code = Vec::new();
        let why_not_in_file = emit(output, &code_of(&engine.wasmtime, content)?, &mut code)?;
        return Ok(compiled(code, why_not_in_file.unwrap_or_default()));
    }
    let mut child = start(output, engine.memory_reservation).map_err(LoadError::transient)?;
    let work = async {
        if let Some(mut input) = child.stdin.take() {
            // The process may stop reading early; its message says why.
            let _ = input.write_all(content).await;
        }
        // Read both at once: a process stalls on a pipe that nobody reads.
        let heard = tokio::join!(
            heard(child.stderr.take(), MESSAGE_BYTES_MAX),
            heard(child.stdout.take(), CODE_BYTES_IN_MEMORY_MAX)
        );
        (heard, child.wait().await)
    };
    let Ok(((message, code), status)) = tokio::time::timeout(COMPILE_TIME_MAX, work).await else {
        let minutes = COMPILE_TIME_MAX.as_secs() / 60;
        return Err(LoadError::Transient(format!("it was not compiled within {minutes} min")));
    };
    let status = status
        .map_err(|error| LoadError::Transient(format!("cannot wait for the process that compiles it: {error}")))?;
    let message = String::from_utf8_lossy(&message).trim().to_owned();
    if status.success() { Ok(compiled(code, message)) } else { Err(why_not_compiled(status, &message)) }
}

fn compiled(code: Vec<u8>, message: String) -> Compiled {
    if code.is_empty() {
        return Compiled::InFile;
    }
    Compiled::Here { code, why_not_in_file: Some(message).filter(|message| !message.is_empty()) }
}

/// Tells from the process's exit whose fault the failure is.
fn why_not_compiled(status: ExitStatus, message: &str) -> LoadError {
    let signal = status.signal().and_then(Signal::from_named_raw);
    if signal == Some(Signal::XCPU) {
        let seconds = PROCESSOR_TIME_MAX.as_secs();
        return LoadError::Permanent(format!("it takes more than {seconds} s of a processor's time to compile"));
    }
    if !message.is_empty() && status.code() == Some(FAILED.into()) {
        return LoadError::Permanent(message.to_owned());
    }
    if !message.is_empty() && status.code() == Some(TRY_AGAIN.into()) {
        return LoadError::Transient(message.to_owned());
    }
    let last = message.lines().last().map(|line| format!(": {line}")).unwrap_or_default();
    let gibibytes = MEMORY_BYTES_MAX >> 30;
    let died = format!("the compiler died of it ({status}, with up to {gibibytes} GiB of memory){last}");
    match signal {
        // Signals that a process causes itself: a stack overflow, a bug in the compiler. The same file would do it
        // again. But Rust also aborts when memory runs out.
        Some(Signal::ABORT | Signal::SEGV | Signal::ILL | Signal::FPE | Signal::TRAP | Signal::SYS) => {
            if message.contains(OUT_OF_MEMORY) { LoadError::Transient(died) } else { LoadError::Permanent(died) }
        }
        // Signals from others: the kernel, when memory or disk is short, or an operator with `kill`.
        Some(_) => LoadError::Transient(died),
        None if status.signal().is_some() => LoadError::Transient(died),
        // A panic. If the system refused something, such as a thread, it names the system's error.
        None if message.contains(SYSTEM_ERROR) => LoadError::Transient(died),
        None => LoadError::Permanent(died),
    }
}

/// Reads up to `bytes_max` bytes and discards the rest. Without that, the process would block for ever on a full
/// pipe.
async fn heard(said: Option<impl AsyncRead + Unpin>, bytes_max: u64) -> Vec<u8> {
    let mut heard = Vec::new();
    let Some(mut said) = said else { return heard };
    // A read error only ends the message early.
    let _ = (&mut said).take(bytes_max).read_to_end(&mut heard).await;
    let _ = tokio::io::copy(&mut said, &mut tokio::io::sink()).await;
    heard
}

fn start(output: Option<&Path>, memory_reservation: u64) -> anyhow::Result<Child> {
    Command::new(own_program()?)
        .arg(COMMAND)
        .arg(output.unwrap_or(Path::new(STANDARD_OUTPUT)))
        .arg(memory_reservation.to_string())
        // The process inherits nothing that the host knows.
        .env_clear()
        // Many threads and arenas would use up the limited address space by their reservations alone.
        .env("RAYON_NUM_THREADS", threads().to_string())
        .env("MALLOC_ARENA_MAX", "2")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start the process that compiles it")
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX)
}

/// Returns this program, even if its file was replaced since it was started.
fn own_program() -> anyhow::Result<PathBuf> {
    let running = Path::new("/proc/self/exe");
    if running.exists() { Ok(running.to_owned()) } else { Ok(std::env::current_exe()?) }
}

/// The hidden command of this program that compiles. The host calls it, not people.
pub const COMMAND: &str = "compile-plugin";

/// Runs the compiler process: reads a plugin's file from standard input, and writes its code to the file `output`, or
/// to standard output if the file cannot be written.
pub fn compile_standard_input(output: &Path, memory_reservation: u64) -> Result<(), LoadError> {
    limit_itself().map_err(|error| LoadError::Transient(format!("cannot limit the process that compiles: {error}")))?;
    let mut content = Vec::new();
    let read = std::io::stdin().lock().read_to_end(&mut content);
    read.map_err(|error| LoadError::Transient(format!("cannot read it: {error}")))?;
    let engine = engine::for_compiling(memory_reservation).map_err(LoadError::transient)?;
    let code = code_of(&engine, &content)?;
    let output = (output != Path::new(STANDARD_OUTPUT)).then_some(output);
    if let Some(why) = emit(output, &code, &mut std::io::stdout().lock())? {
        // The host logs this line with the plugin's name.
        eprintln!("{why}");
    }
    Ok(())
}

/// Writes the code to the file, or else to `instead`. Returns why the file could not be written, if one was
/// requested.
fn emit(output: Option<&Path>, code: &[u8], instead: &mut impl io::Write) -> Result<Option<String>, LoadError> {
    let problem = match output.map(|output| compile_cache::write(output, code)) {
        Some(Ok(())) => return Ok(None),
        Some(Err(error)) => Some(error.to_string()),
        None => None,
    };
    let written = compile_cache::write_to(instead, code);
    written.map_err(|error| LoadError::Transient(format!("cannot hand over its code: {error}")))?;
    Ok(problem)
}

fn limit_itself() -> rustix::io::Result<()> {
    for (resource, limit) in
        [(Resource::As, MEMORY_BYTES_MAX), (Resource::Core, 0), (Resource::Cpu, PROCESSOR_TIME_MAX.as_secs())]
    {
        // The limit may be lower already, and cannot be raised.
        let limit = rustix::process::getrlimit(resource).maximum.map_or(limit, |now| now.min(limit));
        rustix::process::setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    }
    // A slow compilation is better than none, so a failure here is ignored.
    let _ = rustix::process::nice(NICENESS);
    Ok(())
}

/// Compiles a plugin's file to machine code. The error is one sentence.
fn code_of(engine: &wasmtime::Engine, content: &[u8]) -> Result<Vec<u8>, LoadError> {
    let component = componentize::component_of(content).map_err(LoadError::permanent)?;
    contract_check::check_names(&component).map_err(LoadError::permanent)?;
    engine.precompile_component(&component).map_err(|error| {
        if is_of_the_machine(&error) {
            return LoadError::transient(error);
        }
        LoadError::permanent(contract_check::why_not_compiled(&component, &error))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const PAGE_BYTES: usize = 4096;

    #[tokio::test]
    async fn code_that_was_torn_is_compiled_again() {
        let state = tempfile::tempdir().unwrap();
        let compiler = Compiler::new(Engine::new().unwrap(), Some(state.path()));
        let [_, content] = crate::contract_check_tests::good();
        let digest = Digest::of(&content);
        compiler.component("p", &content, digest).await.unwrap();
        let path = compiler.cache.path(digest).unwrap();
        let whole = fs::read(&path).unwrap();
        // A crash leaves files of the full length with unwritten pages. The engine would not notice that everywhere.
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
        let both = async { tokio::join!(write, heard(Some(input), MESSAGE_BYTES_MAX)) };
        let (written, heard) = tokio::time::timeout(Duration::from_secs(20), both).await.expect("it is heard");
        written.unwrap();
        assert_eq!(heard.len() as u64, MESSAGE_BYTES_MAX);
    }

    #[tokio::test]
    async fn code_that_no_disk_takes_is_used_from_memory() {
        let state = tempfile::tempdir().unwrap();
        let compiler = Compiler::new(Engine::new().unwrap(), Some(state.path()));
        let [_, content] = crate::contract_check_tests::good();
        let digest = Digest::of(&content);
        // No file can be created below a file.
        let all = state.path().join("compiled");
        fs::remove_dir_all(&all).unwrap();
        fs::write(&all, "").unwrap();
        compiler.component("p", &content, digest).await.unwrap();
        // The code cannot replace a folder either. The part that was written is used.
        fs::remove_file(&all).unwrap();
        fs::create_dir_all(compiler.cache.path(digest).unwrap().join("in the way")).unwrap();
        for folder in [&all, compiler.cache.path(digest).unwrap().parent().unwrap()] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
        }
        compiler.component("p", &content, digest).await.unwrap();
        let kept = fs::read_dir(compiler.cache.path(digest).unwrap().parent().unwrap()).unwrap().count();
        assert_eq!(kept, 1, "nothing is left behind");
    }

    #[test]
    fn whose_fault_it_is_that_the_compiler_ended() {
        let died = |signal: Signal| ExitStatus::from_raw(signal.as_raw());
        let ended = |code: i32| ExitStatus::from_raw(code << 8);
        for (status, message, is_transient) in [
            (died(Signal::KILL), "", true),
            (died(Signal::TERM), "", true),
            (died(Signal::BUS), "", true),
            (died(Signal::XCPU), "", false),
            (died(Signal::SEGV), "", false),
            (died(Signal::ABORT), "thread 'main' has overflowed its stack", false),
            (died(Signal::ABORT), "memory allocation of 4096 bytes failed", true),
            (ended(1), "it is damaged at byte 7", false),
            (ended(75), "cannot read it: Input/output error", true),
            (ended(101), "index out of bounds", false),
            (ended(101), "ThreadPoolBuildError { kind: IOError(Os { code: 11, kind: WouldBlock }) }", true),
        ] {
            let error = why_not_compiled(status, message);
            assert_eq!(error.is_transient(), is_transient, "{error}");
        }
    }
}
