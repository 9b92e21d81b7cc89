//! The engine compiles plugins and gives each attempt its instance.
//!
//! Instances come from a pool, and memory in it is given back without touching the process's
//! page tables: no guard pages, no signal handlers, bounds checked in the code. That is two to
//! six times as fast as the defaults with several threads, and as safe; guard pages are a second
//! line of defence. Where the system refuses the pool's address space there is a smaller one, and
//! then none.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use anyhow::Context as _;
use config::MEMORY_BYTES_MAX;
use config::{INSTANCES_MAX, TABLE_ELEMENTS_MAX};
use tracing::info;
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

use crate::background_runtime::BackgroundRuntime;
use crate::cpu_slices::CpuSlices;
use crate::limits::{MEMORIES_MAX, TABLES_MAX};

/// How often a guest that computes is made to look up from its work.
pub(crate) const EPOCH_INTERVAL: Duration = Duration::from_millis(1);
/// Attempts that run at once, of all plugins together.
pub(crate) const ATTEMPTS_AT_ONCE_MAX: usize = 64;
/// Plugins that have a place of their own besides, so that others cannot take all of them.
pub(crate) const PLACES_OF_THEIR_OWN_MAX: usize = 64;
/// For plugins that are asked what they are while attempts take all other places.
const PLACES_FOR_LOADING: usize = 4;
/// Of linear memory, kept warm for the next attempt; what is beyond goes back to the system. A call of a plugin in Rust writes
/// 0.1 MiB, and no more than this with an event of 50 KB; one of 100 KB would be faster by a third with twice as much.
/// JavaScript and Python would not be. In time all places that were ever taken at once keep so much, if one plugin
/// among many writes it, for places pass from one to the other.
const MEMORY_BYTES_KEPT: usize = 256 << 10;
/// Memories that are free before one is taken from another plugin, rather than one more touched for the first time. The
/// pool divides them among so many cores.
const MEMORIES_FREE_PER_CORE: usize = 16;
const POOL_CORES_MAX: usize = 16;
/// Of tables, kept warm for the next attempt.
const TABLE_BYTES_KEPT: usize = 64 << 10;
const STACK_BYTES_MAX: usize = 512 << 10;
const FIBER_STACK_BYTES: usize = 1 << 20;
const BACKTRACE_FRAMES_MAX: usize = 20;

/// The engine, with its clock.
#[derive(Clone)]
pub struct Engine {
    pub wasmtime: wasmtime::Engine,
    /// What code for it must be compiled for.
    pub(super) memory_reservation: u64,
    pub(super) cpu_slices: CpuSlices,
    pub(super) background: Arc<BackgroundRuntime>,
    /// How many attempts there is room for.
    pub(super) capacity: InstanceCapacity,
    clock: Arc<Clock>,
}

/// Room for attempts. A pool's places are an error when they are used up, not a wait: whoever
/// starts an attempt waits for one of these first.
#[derive(Clone, Copy, Debug)]
pub(super) struct InstanceCapacity {
    /// For any plugin.
    pub(super) shared: usize,
    /// One for each plugin, for so many of them.
    pub(super) own: usize,
}

impl InstanceCapacity {
    fn all(self) -> usize {
        self.shared + self.own + PLACES_FOR_LOADING
    }
}

impl Engine {
    /// The fastest that this system allows.
    pub fn new() -> anyhow::Result<Self> {
        let mut refusal = None;
        let most = InstanceCapacity { shared: ATTEMPTS_AT_ONCE_MAX, own: PLACES_OF_THEIR_OWN_MAX };
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

    /// While this is held the engine's clock ticks.
    pub fn running(&self) -> Running {
        self.clock.hold();
        Running { clock: Arc::clone(&self.clock) }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

/// An engine that compiles, and runs nothing: it has no pool to make.
pub(super) fn for_compiling(memory_reservation: u64) -> anyhow::Result<wasmtime::Engine> {
    Ok(wasmtime::Engine::new(&code_config(memory_reservation))?)
}

/// Bytes of address space for each memory.
fn memory_reservation(is_pooled: bool) -> u64 {
    if is_pooled { MEMORY_BYTES_MAX as u64 } else { 0 }
}

/// What compiled code depends on.
fn code_config(memory_reservation: u64) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .memory_reservation(memory_reservation)
        .memory_guard_size(0)
        .signals_based_traps(false)
        .memory_init_cow(true)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        // Nothing that plugins need, each with a history of faults.
        .gc_support(false)
        .wasm_gc(false)
        .wasm_exceptions(false)
        .wasm_function_references(false)
        .wasm_threads(false)
        .shared_memory(false)
        .wasm_memory64(false)
        // What passes values from one component inside another to the next has the memories of both: JavaScript
        // on QuickJS comes so composed, and without this wasmtime panics as it compiles.
        .wasm_multi_memory(true)
        .wasm_relaxed_simd(false);
    config
}

/// Without places: no pool.
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
    // Linux 6.7 and newer can say which pages were written. Elsewhere what is kept must be written over, all of it, which
    // costs more than giving it back.
    let memory_bytes_kept = if PoolingAllocationConfig::is_pagemap_scan_available() { MEMORY_BYTES_KEPT } else { 0 };
    let mut pool = PoolingAllocationConfig::new();
    // Whatever one component may have, the pool has for each place.
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

/// Advances the engine's epoch, as long as there is a guest that runs. A thread of its own,
/// because guests that compute may keep every other one busy.
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

/// A guest runs.
pub struct Running {
    clock: Arc<Clock>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.clock.running.fetch_sub(1, Ordering::AcqRel);
    }
}
