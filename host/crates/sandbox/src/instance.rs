//! An instance lives for one call of one plugin, in a sandbox that has nothing but what is given here.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use config::Limits;
use contract as imports;
use telemetry::spans::Within;
use tokio::time::Instant;
use wasmtime::component::{HasSelf, Linker, ResourceTable};
use wasmtime::{Store, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtxView, WasiHttpView};

use crate::capability::{GuestStdio, PluginAccess, PluginLog, PluginSettings, StdioStream, WasiHttp};
use crate::cpu_slices::{CpuSlice, Tick};
use crate::engine::Engine;
use crate::limits::Limiter;
use crate::usage::Calls;

/// What `wasi:random` hands out in one call.
const RANDOM_BYTES_MAX: u64 = 1 << 20;

/// What the guest's calls back into the host work on.
pub struct Guest {
    /// Made when it is first asked for: most calls need nothing of it, and it is a dozen allocations.
    wasi: Option<WasiCtx>,
    wasi_http: Option<WasiHttp>,
    resources: ResourceTable,
    pub limits: Limits,
    pub(super) limiter: Limiter,
    pub log: PluginLog,
    pub calls: Calls,
    cpu_slice: CpuSlice,
    /// Of the engine's clock, that it has met as it computed.
    pub(super) ticks: u32,
    pub call: CallContext,
}

/// What a call back into the host may need to know of the call that it is in.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// The operator's settings, as a JSON object.
    pub settings: Arc<PluginSettings>,
    pub access: Arc<PluginAccess>,
    /// The same for each attempt of one delivery; empty while the plugin describes itself.
    pub idempotency_key: Arc<str>,
    /// What goes out of it hangs below this in its trace.
    pub within: Within,
    /// The call is cut off then.
    pub deadline: Instant,
}

impl CallContext {
    /// Of a call that reaches nothing.
    pub(crate) fn of_nothing(time: Duration) -> Self {
        let deadline = Instant::now() + time;
        Self {
            settings: Arc::default(),
            access: Arc::default(),
            idempotency_key: "".into(),
            within: Within::default(),
            deadline,
        }
    }
}

impl Guest {
    /// Requests that were made by way of `wasi:http`.
    pub(super) fn wasi_exchanges(&self) -> u64 {
        self.wasi_http.as_ref().map_or(0, |http| http.exchanges.count)
    }

    /// Set once the call has computed for so long that it is to go on in the slow lane.
    pub(super) fn wants_background(&self) -> Arc<AtomicBool> {
        self.cpu_slice.wants_background()
    }

    /// In a call back into the host, for something outside.
    pub(crate) fn has_waited(&mut self, time: Duration) {
        self.cpu_slice.has_waited(time);
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let ctx = self.wasi.get_or_insert_with(|| wasi(&self.log));
        WasiCtxView { ctx, table: &mut self.resources }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let http = self.wasi_http.get_or_insert_with(|| WasiHttp::new(&self.limits, &self.log, &self.call));
        let WasiHttp { context, exchanges } = http;
        WasiHttpCtxView { ctx: context, table: &mut self.resources, hooks: exchanges }
    }
}

/// What a plugin may import: the whole contract, and WASI 0.2 with nothing in it but what the contract has as well. Plugins in
/// JavaScript or Python import all of WASI whether they use it or not.
pub(crate) fn linker(engine: &Engine) -> anyhow::Result<Linker<Guest>> {
    let mut linker = Linker::new(&engine.wasmtime);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    imports::log::add_to_linker::<_, HasSelf<_>>(&mut linker, |guest| guest)?;
    imports::config::add_to_linker::<_, HasSelf<_>>(&mut linker, |guest| guest)?;
    imports::secrets::add_to_linker::<_, HasSelf<_>>(&mut linker, |guest| guest)?;
    imports::http::add_to_linker::<_, HasSelf<_>>(&mut linker, |guest| guest)?;
    imports::mail::add_to_linker::<_, HasSelf<_>>(&mut linker, |guest| guest)?;
    imports::types::add_to_linker::<_, HasSelf<_>>(&mut linker, |guest| guest)?;
    Ok(linker)
}

/// A store for one call.
pub(crate) fn store(engine: &Engine, limits: &Limits, log: PluginLog, call: CallContext) -> Store<Guest> {
    let mut resources = ResourceTable::new();
    resources.set_max_capacity(limits.handles);
    let guest = Guest {
        wasi: None,
        wasi_http: None,
        resources,
        limits: limits.clone(),
        limiter: Limiter::new(limits),
        log,
        calls: Calls::default(),
        cpu_slice: CpuSlice::default(),
        ticks: 0,
        call,
    };
    let mut store = Store::new(&engine.wasmtime, guest);
    store.limiter(|guest| &mut guest.limiter);
    // The first deadline is 0 unless it is set, and would be passed already.
    store.set_epoch_deadline(1);
    // At every tick the guest gives way, so that the time limit around the call can act, and
    // others get their turn.
    let cpu_slices = engine.cpu_slices.clone();
    store.epoch_deadline_callback(move |mut store| {
        let guest = store.data_mut();
        guest.ticks = guest.ticks.saturating_add(1);
        Ok(match cpu_slices.tick(&mut guest.cpu_slice) {
            Tick::GoOn => UpdateDeadline::Continue(1),
            Tick::GiveWay => UpdateDeadline::Yield(1),
            Tick::Wait(cpu_slice) => UpdateDeadline::YieldCustom(1, Box::pin(cpu_slice)),
        })
    });
    store.set_hostcall_fuel(limits.host_call_bytes);
    store.set_max_component_handles(limits.handles);
    store
}

/// WASI with nothing in it: no arguments, environment, files, sockets, names or input. Clocks are
/// there, randomness is bounded, and what the guest prints is logged.
fn wasi(log: &PluginLog) -> WasiCtx {
    let console = |stream| GuestStdio::new(log.clone(), stream);
    WasiCtx::builder()
        // Without these a socket is a file descriptor of the host's, though it can reach nobody.
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .max_random_size(RANDOM_BYTES_MAX)
        .stdout(console(StdioStream::Output))
        .stderr(console(StdioStream::Error))
        .build()
}
