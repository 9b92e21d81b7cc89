//! The interfaces that a plugin may import, beyond pure computing.
//!
//! `log` and `config` need no grant. `secrets`, `http` and `mail` answer `denied` without one.

mod answer;
mod calls;
mod config;
mod host_services;
mod http;
mod log;
mod mail;
mod output_lines;
mod placeholder;
mod preview;
mod secret_store;
mod secrets;
mod stdio;
mod wasi_http;

use std::sync::Arc;
use std::time::Duration;

use ::config::Limits;
use contract::types;
use telemetry::spans::Within;
use tokio::time::Instant;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtxView, WasiHttpView};

pub use crate::capability::calls::Calls;
pub use crate::capability::config::PluginSettings;
pub use crate::capability::host_services::{HostServices, PluginAccess};
pub use crate::capability::log::{Beginning, LOG_TARGET, LogLine, PluginLog, SeenLine};
use crate::capability::output_lines::StdioStream;
pub use crate::capability::preview::{Departure, Preview};
pub use crate::capability::secret_store::{NoValue, SecretStore};
use crate::capability::stdio::GuestStdio;
pub use crate::capability::wasi_http::WasiHttp;
use crate::cpu_slices::CpuSlice;

/// Maximum random bytes that `wasi:random` hands out in one call.
const RANDOM_BYTES_MAX: u64 = 1 << 20;

/// The state behind the guest's calls into the host.
pub struct HostState {
    /// Created on first use: most calls never need it, and it takes a dozen allocations.
    wasi: Option<WasiCtx>,
    wasi_http: Option<WasiHttp>,
    resources: ResourceTable,
    pub limits: Limits,
    pub log: PluginLog,
    pub calls: Calls,
    pub(crate) cpu_slice: CpuSlice,
    pub call: CallContext,
}

/// The context of a call, for host functions that the guest calls.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// The operator's settings, as a JSON object.
    pub settings: Arc<PluginSettings>,
    pub access: Arc<PluginAccess>,
    /// The same for each attempt of one delivery. Empty while the plugin describes itself.
    pub idempotency_key: Arc<str>,
    /// The parent span for outgoing requests.
    pub within: Within,
    /// The time at which the call is cut off.
    pub deadline: Instant,
}

impl CallContext {
    /// Creates the context of a call that can reach nothing.
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

impl HostState {
    pub(crate) fn new(limits: &Limits, log: PluginLog, call: CallContext) -> Self {
        let mut resources = ResourceTable::new();
        resources.set_max_capacity(limits.handles);
        Self {
            wasi: None,
            wasi_http: None,
            resources,
            limits: limits.clone(),
            log,
            calls: Calls::default(),
            cpu_slice: CpuSlice::default(),
            call,
        }
    }

    /// Returns the number of requests made through `wasi:http`.
    pub(crate) fn wasi_exchanges(&self) -> u64 {
        self.wasi_http.as_ref().map_or(0, |http| http.exchanges.count)
    }

    /// Records time spent waiting for something outside, in a call into the host.
    fn has_waited(&mut self, time: Duration) {
        self.cpu_slice.has_waited(time);
    }
}

impl WasiView for HostState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let ctx = self.wasi.get_or_insert_with(|| wasi(&self.log));
        WasiCtxView { ctx, table: &mut self.resources }
    }
}

impl WasiHttpView for HostState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let http = self.wasi_http.get_or_insert_with(|| WasiHttp::new(&self.limits, &self.log, &self.call));
        let WasiHttp { context, exchanges } = http;
        WasiHttpCtxView { ctx: context, table: &mut self.resources, hooks: exchanges }
    }
}

impl types::Host for HostState {}

/// Creates an empty WASI context: no arguments, environment, files, sockets, names or input. Clocks work, randomness
/// is bounded, and output is logged.
fn wasi(log: &PluginLog) -> WasiCtx {
    let stdio = |stream| GuestStdio::new(log.clone(), stream);
    WasiCtx::builder()
        // Otherwise a socket would take a file descriptor of the host, though it can reach nobody.
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .max_random_size(RANDOM_BYTES_MAX)
        .stdout(stdio(StdioStream::Output))
        .stderr(stdio(StdioStream::Error))
        .build()
}
