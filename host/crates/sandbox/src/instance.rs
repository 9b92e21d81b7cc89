//! An instance lives for one call of one plugin, in a sandbox that contains only what is provided here.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use config::Limits;
use contract as imports;
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Store, UpdateDeadline};
use wasmtime_wasi::{WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtxView, WasiHttpView};

use crate::capability::{CallContext, HostState, PluginLog};
use crate::cpu_slices::Tick;
use crate::engine::Engine;
use crate::limits::Limiter;

/// The state of one instance.
pub struct Guest {
    pub(super) limiter: Limiter,
    /// The part that calls into the host work on.
    pub(super) host: HostState,
    /// Ticks of the engine's clock that the guest has met while computing.
    pub(super) ticks: u32,
}

impl Guest {
    /// Returns a flag that is set once the call has computed long enough to move to the background runtime.
    pub(super) fn wants_background(&self) -> Arc<AtomicBool> {
        self.host.cpu_slice.wants_background()
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.host.ctx()
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        self.host.http()
    }
}

/// Returns everything that a plugin may import: the whole contract, and WASI 0.2 reduced to what the contract offers.
/// Plugins in JavaScript or Python import all of WASI whether they use it or not.
pub(crate) fn linker(engine: &Engine) -> anyhow::Result<Linker<Guest>> {
    let mut linker = Linker::new(&engine.wasmtime);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    imports::log::add_to_linker::<_, HasSelf<HostState>>(&mut linker, |guest: &mut Guest| &mut guest.host)?;
    imports::config::add_to_linker::<_, HasSelf<HostState>>(&mut linker, |guest: &mut Guest| &mut guest.host)?;
    imports::secrets::add_to_linker::<_, HasSelf<HostState>>(&mut linker, |guest: &mut Guest| &mut guest.host)?;
    imports::http::add_to_linker::<_, HasSelf<HostState>>(&mut linker, |guest: &mut Guest| &mut guest.host)?;
    imports::mail::add_to_linker::<_, HasSelf<HostState>>(&mut linker, |guest: &mut Guest| &mut guest.host)?;
    imports::types::add_to_linker::<_, HasSelf<HostState>>(&mut linker, |guest: &mut Guest| &mut guest.host)?;
    Ok(linker)
}

/// Creates a store for one call.
pub(crate) fn store(engine: &Engine, limits: &Limits, log: PluginLog, call: CallContext) -> Store<Guest> {
    let guest = Guest { limiter: Limiter::new(limits), host: HostState::new(limits, log, call), ticks: 0 };
    let mut store = Store::new(&engine.wasmtime, guest);
    store.limiter(|guest| &mut guest.limiter);
    // The default deadline is 0, which would already have passed.
    store.set_epoch_deadline(1);
    // At every tick the guest yields, so that the time limit around the call can act and others get their slice.
    let cpu_slices = engine.cpu_slices.clone();
    store.epoch_deadline_callback(move |mut store| {
        let guest = store.data_mut();
        guest.ticks = guest.ticks.saturating_add(1);
        Ok(match cpu_slices.tick(&mut guest.host.cpu_slice) {
            Tick::GoOn => UpdateDeadline::Continue(1),
            Tick::GiveWay => UpdateDeadline::Yield(1),
            Tick::Wait(cpu_slice) => UpdateDeadline::YieldCustom(1, Box::pin(cpu_slice)),
        })
    });
    store.set_hostcall_fuel(limits.host_call_bytes);
    store.set_max_component_handles(limits.handles);
    store
}
