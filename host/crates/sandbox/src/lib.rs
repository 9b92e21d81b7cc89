//! The sandbox loads and runs plugins. A plugin is a WebAssembly component that exports the world
//! `notify:plugin/plugin`.
//!
//! Each attempt runs in a fresh instance, within limits of memory and time, and all its effects end with it. Nothing
//! here knows queues.

#![allow(missing_docs, reason = "internal to the host: most of these names say what they are")]

#[cfg(test)]
#[path = "../../../tests/guests/assemble.rs"]
mod assemble;
mod background_runtime;
mod call;
pub mod capability;
mod capability_request;
mod compile;
mod compile_cache;
mod componentize;
mod contract_check;
#[cfg(test)]
mod contract_check_tests;
mod cpu_slices;
mod engine;
mod failure;
mod folder;
mod hardening;
mod instance;
mod instance_permits;
mod limits;
mod load;
mod load_error;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use config::{Grants, Limits, LogPolicy, Policies, Subscription};
pub use contract::metadata;
use contract::metadata::PluginInfo;
use event::{Event, Filter};
use state::digest::Digest;
use telemetry::log_writer::{LogFault, RequiredLines};
use telemetry::metrics::{LogLoss, PluginMetrics};
use telemetry::spans::Within;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

pub use crate::capability::CallContext;
use crate::capability::{Beginning, LogLine, PluginAccess, PluginLog, PluginSettings, SecretStore};
pub use crate::capability_request::{CapabilityRequest, GrantState, capability_requests};
pub use crate::compile::{COMMAND as COMPILE_COMMAND, COMPILE_TIME_MAX, TRY_AGAIN, compile_standard_input};
pub use crate::engine::Engine;
pub use crate::failure::PluginFailure;
pub use crate::folder::{Entry, Files, Loaded, is_plugin_name, lone_tomls, look, plugin_names, scan};
pub use crate::instance::Guest;
pub use crate::instance_permits::SharedInstancePermits;
use crate::instance_permits::{PluginInstancePermits, PoolPermit};
pub use crate::load::Loader;
use crate::load::Ready;
pub use crate::load_error::{LoadError, is_transient};
pub use crate::usage::Usage;

/// Minimum time that the lines of a call have to be written, even if the call has used up its own time.
const LOG_TIME_MIN: Duration = Duration::from_millis(500);

/// A loaded plugin.
pub struct Plugin {
    /// The operator's name for it: its file's name.
    pub name: Arc<str>,
    /// The digest of its file.
    pub digest: Digest,
    /// Its description of itself.
    pub info: PluginInfo,
    /// The events it receives. Empty means all.
    pub subscriptions: Vec<Subscription>,
    pub subscribed_by: Chooser,
    /// Narrows the subscribed events further.
    pub filter: Option<Filter>,
    /// Whether its log lines are its work.
    pub log: LogPolicy,
    settings: Arc<PluginSettings>,
    access: Arc<PluginAccess>,
    pub limits: Limits,
    pub policies: Policies,
    ready: Arc<Ready>,
    engine: Engine,
    instance_permits: PluginInstancePermits,
}

/// The permit for one attempt: a slot of the plugin, and an instance permit of the engine.
pub struct InstancePermit {
    slot: OwnedSemaphorePermit,
    pool_permit: PoolPermit,
}

/// The party that chose a plugin's subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chooser {
    /// The operator, in the plugin's toml.
    Operator,
    /// The plugin, in its description.
    Plugin,
}

/// The context of one attempt.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Counted from 1.
    pub number: u32,
    /// After this many attempts the delivery is given up.
    pub max: u32,
    pub idempotency_key: String,
    pub transport: Vec<(String, String)>,
    /// The parent span for the attempt's calls.
    pub within: Within,
}

/// The plugin's answer.
pub type Answer = Result<contract::types::Outcome, contract::types::Failure>;

impl Plugin {
    /// Takes over the own permit of the version that this one replaces. The old version holds on to it until its last
    /// call has ended.
    #[must_use]
    pub fn in_place_of(mut self, old: &Self) -> Self {
        self.instance_permits.take_over(&old.instance_permits);
        self
    }

    /// Takes a slot and an instance permit, if both are free.
    pub fn permit_at_once(&self, slots: &Arc<Semaphore>) -> Option<InstancePermit> {
        let slot = Arc::clone(slots).try_acquire_owned().ok()?;
        Some(InstancePermit { slot, pool_permit: self.instance_permits.take_at_once()? })
    }

    /// Waits for an instance permit, in addition to the slot.
    pub async fn instance_permit(&self, slot: OwnedSemaphorePermit) -> InstancePermit {
        InstancePermit { slot, pool_permit: self.instance_permits.take().await }
    }

    /// Makes one call. Its permit is released when the call has ended for good. If its log lines are required, the
    /// attempt ends only after they are written. With `keep_log`, the beginning of its log is returned.
    pub async fn attempt(
        &self,
        event: &Event,
        attempt: Attempt,
        permit: Option<InstancePermit>,
        keep_log: bool,
    ) -> (Result<Answer, PluginFailure>, Beginning) {
        let (name, event_id) = (Arc::clone(&self.name), event.id.as_str().into());
        let new = if keep_log { PluginLog::keeping_the_beginning } else { PluginLog::new };
        let required = (self.log == LogPolicy::Required).then(Arc::<RequiredLines>::default);
        let log = new(name, event_id, &self.limits).hiding(&self.access.secret_store).requiring(required.as_ref());
        let kept = keep_log.then(|| log.clone());
        let deadline = Instant::now() + self.limits.time;
        let (mut answer, _, permit) = self.call(event, attempt, permit, log).await;
        if let Some(lines) = required
            && let Err(fault) = self.written(&lines, permit, deadline).await
        {
            answer = Err(PluginFailure::LogNotWritten(fault));
        }
        (answer, kept.map(|log| log.take_beginning()).unwrap_or_default())
    }

    /// Waits until the lines of an ended call are written.
    async fn written(
        &self,
        lines: &Arc<RequiredLines>,
        permit: Option<InstancePermit>,
        deadline: Instant,
    ) -> Result<(), LogFault> {
        // Nothing runs in the instance any more. The slot is kept unless `may_wait` grants a permit, so that a stuck
        // log holds only a limited number of messages.
        let slot = permit.map(|InstancePermit { slot, pool_permit }| {
            drop(pool_permit);
            slot
        });
        if !lines.is_settled() {
            self.access.log.write_now();
        }
        let waits = if lines.is_settled() { None } else { self.access.log.may_wait() };
        let _slot = slot.filter(|_| waits.is_none());
        let written = lines.written(deadline.max(Instant::now() + LOG_TIME_MIN)).await;
        if written == Err(LogFault::TooLate) {
            self.access.log.lost(LogLoss::TooLate, lines.pending());
        }
        written
    }

    /// Returns whether its log lines are required and the log accepts none, so that a call would be useless.
    pub fn is_blocked_by_log(&self) -> bool {
        self.log == LogPolicy::Required && self.access.log.is_blocked()
    }

    /// Returns why it is not called, if the log is the reason.
    pub fn trouble_with_log(&self) -> Option<String> {
        self.access.log.trouble().filter(|_| self.log == LogPolicy::Required)
    }

    /// Makes one observed call. Returns what it used and what it logged. `shown` writes the lines to the host's log
    /// as well.
    pub async fn rehearse(
        &self,
        event: &Event,
        attempt: Attempt,
        shown: bool,
    ) -> (Result<Answer, PluginFailure>, Usage, Vec<LogLine>) {
        let log = PluginLog::keeping(Arc::clone(&self.name), event.id.as_str().into(), &self.limits, shown);
        let log = log.hiding(&self.access.secret_store);
        let kept = log.clone();
        let (answer, usage, _) = self.call(event, attempt, None, log).await;
        (answer, usage, kept.take_lines())
    }

    /// Returns the operator's grants.
    pub fn grants(&self) -> &Grants {
        &self.access.grants
    }

    /// Returns its metrics, across its versions.
    pub fn metrics(&self) -> Arc<PluginMetrics> {
        Arc::clone(&self.access.metrics)
    }

    /// Returns the text without the values of the plugin's secrets.
    pub fn redact(&self, text: String) -> String {
        self.access.secret_store.redact(text)
    }

    async fn call(
        &self,
        event: &Event,
        attempt: Attempt,
        permit: Option<InstancePermit>,
        log: PluginLog,
    ) -> (Result<Answer, PluginFailure>, Usage, Option<InstancePermit>) {
        let context = CallContext {
            settings: Arc::clone(&self.settings),
            access: Arc::clone(&self.access),
            idempotency_key: attempt.idempotency_key.as_str().into(),
            within: attempt.within.clone(),
            deadline: Instant::now() + self.limits.time,
        };
        let store = instance::store(&self.engine, &self.limits, log, context);
        let ready = Arc::clone(&self.ready);
        let delivery = contract::types::Delivery {
            attempt: attempt.number,
            max_attempts: attempt.max,
            budget: u64::try_from(self.limits.time.as_millis()).unwrap_or(u64::MAX),
            idempotency_key: attempt.idempotency_key,
            transport: attempt.transport,
        };
        let mut event = event.clone();
        if attempt.within.is_somewhere() {
            attempt.within.mark(&mut event.attributes_mut().extensions);
        }
        let answer = call::make(&self.engine, store, self.limits.time, permit, |store| {
            Box::pin(async move {
                let handler = ready.handler(store).await?;
                handler.call_handle(&mut *store, &event, &delivery).await
            })
        });
        let (answer, usage, permit) = answer.await;
        let secret_store = &self.access.secret_store;
        let answer = match answer {
            Ok(answer) => Ok(within(answer, self.limits.result_bytes, secret_store)),
            Err(failure) => Err(failure.map(|text| secret_store.redact(text))),
        };
        (answer, usage, permit.flatten())
    }
}

/// Returns the answer with texts made fit for logs, headers and pages.
fn within(answer: Answer, bytes_max: usize, secret_store: &SecretStore) -> Answer {
    use contract::types::{Failure, Outcome, Rejection, Retry};
    // Redact before truncating: a value cut in half would not be found.
    let cut = |text| failure::cut(secret_store.redact(text), bytes_max);
    match answer {
        Ok(Outcome::Done(note)) => Ok(Outcome::Done(note.map(cut))),
        Ok(Outcome::Skipped(reason)) => Ok(Outcome::Skipped(cut(reason))),
        Err(Failure::Retry(Retry { reason, after })) => Err(Failure::Retry(Retry { reason: cut(reason), after })),
        Err(Failure::Reject(Rejection { reason, code })) => {
            Err(Failure::Reject(Rejection { reason: cut(reason), code: cut(code) }))
        }
        Err(Failure::Misconfigured(reason)) => Err(Failure::Misconfigured(cut(reason))),
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin").field("name", &self.name).field("version", &self.info.version).finish_non_exhaustive()
    }
}
