//! The engine compiles plugins and gives each attempt its instance.
//!
//! Instances come from a pool, and their memory is released without touching the process's page tables: no guard
//! pages and no signal handlers, only bounds checks in the code. With several threads that is two to six times as
//! fast as the defaults, and as safe; guard pages are a second line of defence. If the system refuses the pool's
//! address space, the engine tries a smaller pool, and then none.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Thread};

use anyhow::Context as _;
use config::MEMORY_BYTES_MAX;
use config::{INSTANCES_MAX, TABLE_ELEMENTS_MAX};
use tracing::info;
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

use crate::background_runtime::BackgroundRuntime;
use crate::cpu_slices::{CpuSlices, EPOCH_INTERVAL};
use crate::limits::{MEMORIES_MAX, TABLES_MAX};

/// Maximum number of concurrent attempts, over all plugins.
pub(crate) const ATTEMPTS_AT_ONCE_MAX: usize = 64;
/// Number of plugins that get an instance permit of their own in addition, so that others cannot take all of them.
pub(crate) const OWN_PERMITS_MAX: usize = 64;
/// Instances reserved for plugins that describe themselves while attempts take all others.
const LOADING_INSTANCES: usize = 4;
/// Bytes of linear memory kept warm for the next attempt; the rest goes back to the system. A call of a plugin in
/// Rust writes 0.1 MiB, and no more than this with an event of 50 KB. With an event of 100 KB, twice as much would be
/// faster by a third; JavaScript and Python would not gain. Instances pass between plugins. So over time all
/// instances that were ever in use at once keep this much, even if only one plugin among many writes it.
const MEMORY_BYTES_KEPT: usize = 256 << 10;
/// Number of free memories per core before one is taken from another plugin, instead of touching a new one for the
/// first time. The pool divides them among the cores.
const MEMORIES_FREE_PER_CORE: usize = 16;
/// Maximum number of cores counted for this.
const POOL_CORES_MAX: usize = 16;
/// Bytes of tables kept warm for the next attempt.
const TABLE_BYTES_KEPT: usize = 64 << 10;
const STACK_BYTES_MAX: usize = 512 << 10;
const FIBER_STACK_BYTES: usize = 1 << 20;
const BACKTRACE_FRAMES_MAX: usize = 20;

/// The engine with its clock.
#[derive(Clone)]
pub struct Engine {
    pub wasmtime: wasmtime::Engine,
    /// The memory reservation in bytes that code for this engine must be compiled for.
    pub(super) memory_reservation: u64,
    pub(super) cpu_slices: CpuSlices,
    pub(super) background: Arc<BackgroundRuntime>,
    /// The number of attempts that fit into the pool.
    pub(super) capacity: InstanceCapacity,
    clock: Arc<Clock>,
}

/// The capacity for attempts. An exhausted pool is an error, not a wait, so each attempt waits for an instance permit
/// first.
#[derive(Clone, Copy, Debug)]
pub(super) struct InstanceCapacity {
    /// Permits for any plugin.
    pub(super) shared: usize,
    /// Number of plugins that get one permit of their own.
    pub(super) own: usize,
}

impl InstanceCapacity {
    fn all(self) -> usize {
        self.shared + self.own + LOADING_INSTANCES
    }
}

impl Engine {
    /// Creates the fastest engine that this system allows.
    pub fn new() -> anyhow::Result<Self> {
        let mut refusal = None;
        let most = InstanceCapacity { shared: ATTEMPTS_AT_ONCE_MAX, own: OWN_PERMITS_MAX };
        for (capacity, is_pooled) in [(most, true), (InstanceCapacity { shared: 16, own: 16 }, true), (most, false)] {
            let pool = is_pooled.then_some(capacity);
            match wasmtime::Engine::new(&config(pool)) {
                Ok(engine) => {
                    if let Some(refusal) = refusal {
                        info!(
                            instances = pool.map_or(0, InstanceCapacity::all),
                            "the system refused a larger pool of instances ({refusal}); plugins run slower"
                        );
                    }
                    let clock = Arc::new(Clock::start(engine.clone())?);
                    let memory_reservation = memory_reservation(is_pooled);
                    let (cpu_slices, background) = (CpuSlices::new(), Arc::default());
                    return Ok(Self { wasmtime: engine, memory_reservation, cpu_slices, background, capacity, clock });
                }
                Err(error) => refusal = Some(error),
            }
        }
        Err(anyhow::Error::from_boxed(refusal.map_or_else(|| "no way to allocate".into(), Into::into)))
            .context("cannot start the WebAssembly engine")
    }

    /// Keeps the engine's clock ticking until the guard is dropped.
    pub fn running(&self) -> ClockGuard {
        self.clock.hold();
        ClockGuard { clock: Arc::clone(&self.clock) }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

/// Creates an engine that only compiles. It needs no pool.
pub(super) fn for_compiling(memory_reservation: u64) -> anyhow::Result<wasmtime::Engine> {
    Ok(wasmtime::Engine::new(&code_config(memory_reservation))?)
}

/// Returns the bytes of address space for each memory.
fn memory_reservation(is_pooled: bool) -> u64 {
    if is_pooled { MEMORY_BYTES_MAX as u64 } else { 0 }
}

/// Returns the settings that compiled code depends on.
fn code_config(memory_reservation: u64) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .memory_reservation(memory_reservation)
        .memory_guard_size(0)
        .signals_based_traps(false)
        .memory_init_cow(true)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        // Features that plugins do not need, each with a history of bugs.
        .gc_support(false)
        .wasm_gc(false)
        .wasm_exceptions(false)
        .wasm_function_references(false)
        .wasm_threads(false)
        .shared_memory(false)
        .wasm_memory64(false)
        // Adapters that pass values between nested components use the memories of both. JavaScript on QuickJS is
        // composed that way, and without this wasmtime panics when it compiles such a component.
        .wasm_multi_memory(true)
        .wasm_relaxed_simd(false);
    config
}

/// Returns the engine's settings. Without a capacity there is no pool.
fn config(capacity: Option<InstanceCapacity>) -> Config {
    let mut config = code_config(memory_reservation(capacity.is_some()));
    config
        .max_wasm_stack(STACK_BYTES_MAX)
        .async_stack_size(FIBER_STACK_BYTES)
        .wasm_backtrace_max_frames(NonZeroUsize::new(BACKTRACE_FRAMES_MAX));
    let Some(capacity) = capacity else { return config };
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let count = capacity.all();
    let cores = thread::available_parallelism().map_or(1, usize::from).min(POOL_CORES_MAX);
    // Linux 6.7 and newer can report which pages were written. Elsewhere all kept memory must be overwritten, which
    // costs more than releasing it.
    let memory_bytes_kept = if PoolingAllocationConfig::is_pagemap_scan_available() { MEMORY_BYTES_KEPT } else { 0 };
    let mut pool = PoolingAllocationConfig::new();
    // Each instance in the pool has everything that one component may use.
    pool.total_component_instances(number(count))
        .total_stacks(number(count))
        .total_core_instances(number(count * INSTANCES_MAX))
        .max_core_instances_per_component(number(INSTANCES_MAX))
        .total_memories(number(count * MEMORIES_MAX))
        .max_memories_per_component(number(MEMORIES_MAX))
        .total_tables(number(count * TABLES_MAX))
        .max_tables_per_component(number(TABLES_MAX))
        .max_tables_per_module(number(TABLES_MAX))
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_memory_size(MEMORY_BYTES_MAX)
        .max_unused_warm_slots(number(MEMORIES_FREE_PER_CORE * cores))
        .linear_memory_keep_resident(memory_bytes_kept)
        .table_keep_resident(TABLE_BYTES_KEPT)
        .pagemap_scan(Enabled::Auto);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// Advances the engine's epoch while a guest runs. It has a thread of its own, because guests that compute may keep
/// every other thread busy.
struct Clock {
    running: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
    thread: Thread,
}

impl Clock {
    fn start(engine: wasmtime::Engine) -> anyhow::Result<Self> {
        let running = Arc::new(AtomicUsize::new(0));
        let ended = Arc::new(AtomicBool::new(false));
        let (watched, end) = (Arc::clone(&running), Arc::clone(&ended));
        let tick = move || {
            while !end.load(Ordering::Acquire) {
                if watched.load(Ordering::Acquire) == 0 {
                    thread::park();
                } else {
                    thread::sleep(EPOCH_INTERVAL);
                    engine.increment_epoch();
                }
            }
        };
        let thread = thread::Builder::new().name("epoch".to_owned()).spawn(tick).context("cannot start a thread")?;
        Ok(Self { running, ended, thread: thread.thread().clone() })
    }

    fn hold(&self) {
        if self.running.fetch_add(1, Ordering::AcqRel) == 0 {
            self.thread.unpark();
        }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// A guard that keeps the clock ticking while a guest runs.
pub struct ClockGuard {
    clock: Arc<Clock>,
}

impl Drop for ClockGuard {
    fn drop(&mut self) {
        self.clock.running.fetch_sub(1, Ordering::AcqRel);
    }
}
