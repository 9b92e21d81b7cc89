//! A plugin is a WebAssembly component that exports the world `notify:plugin/plugin`.
//!
//! Each attempt runs in a fresh instance, within limits of memory and time, in a task of its own,
//! so that whatever it does ends with it. Nothing here knows queues.

mod bindings;
mod code;
mod compile;
mod engine;
mod failure;
mod folder;
mod instance;
mod limits;
mod load;
mod turns;

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::AbortOnDropHandle;

use crate::capability::PluginLog;
use crate::config::Policies;
use crate::digest::Digest;
use crate::event::Event;
use crate::plugin::bindings::PluginPre;
pub(crate) use crate::plugin::bindings::exports::notify::plugin::metadata;
pub(crate) use crate::plugin::bindings::notify::plugin as contract;
pub(crate) use crate::plugin::compile::{COMMAND as COMPILE_COMMAND, compile_standard_input};
pub(crate) use crate::plugin::engine::{Engine, MEMORY_BYTES_MAX};
pub(crate) use crate::plugin::failure::PluginFailure;
pub(crate) use crate::plugin::folder::{Entry, Files, Loaded, is_plugin_name, look, plugin_names, scan};
pub(crate) use crate::plugin::instance::Guest;
pub(crate) use crate::plugin::limits::Limits;
pub(crate) use crate::plugin::load::Loader;

/// A loaded plugin.
pub(crate) struct Plugin {
    /// What the operator calls it: its file's name.
    pub(crate) name: Arc<str>,
    pub(crate) version: String,
    /// Of its file.
    pub(crate) digest: Digest,
    pub(crate) description: String,
    /// Which events it gets. None: all.
    pub(crate) subscriptions: Vec<Subscription>,
    settings: Arc<serde_json::Map<String, serde_json::Value>>,
    pub(crate) limits: Limits,
    pub(crate) policies: Policies,
    ready: PluginPre<Guest>,
    engine: Engine,
    /// Of all plugins together.
    slots: Arc<Semaphore>,
}

/// Room for one attempt: a slot of the plugin's, and one of the engine's.
pub(crate) struct Room {
    _own: OwnedSemaphorePermit,
    _shared: Option<OwnedSemaphorePermit>,
}

/// Patterns for an event's attributes; all that are given must match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) event_type: String,
    pub(crate) source: Option<String>,
    pub(crate) subject: Option<String>,
}

impl From<&metadata::Subscription> for Subscription {
    fn from(subscription: &metadata::Subscription) -> Self {
        let metadata::Subscription { event_type, source, subject } = subscription.clone();
        Self { event_type, source, subject }
    }
}

/// What surrounds one attempt.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    /// From 1.
    pub(crate) number: u32,
    /// After this many the delivery is given up.
    pub(crate) max: u32,
    pub(crate) idempotency_key: String,
    pub(crate) transport: Vec<(String, String)>,
}

/// What the plugin answered.
pub(crate) type Answer = Result<contract::types::Outcome, contract::types::Failure>;

impl Plugin {
    /// Waits for a slot of the engine's, too.
    pub(crate) async fn room(&self, own: OwnedSemaphorePermit) -> Room {
        // It is never closed; if it were, the attempt would go on without it.
        Room { _own: own, _shared: Arc::clone(&self.slots).acquire_owned().await.ok() }
    }

    /// One call. Its room is given up when the call has ended for good.
    pub(crate) async fn attempt(
        &self,
        event: &Event,
        attempt: Attempt,
        room: Option<Room>,
    ) -> Result<Answer, PluginFailure> {
        let log = PluginLog::new(Arc::clone(&self.name), event.id.as_str().into(), &self.limits);
        let mut store = instance::store(&self.engine, &self.limits, log, Arc::clone(&self.settings));
        let ready = self.ready.clone();
        let (limits, engine) = (self.limits.clone(), self.engine.clone());
        let delivery = contract::types::Delivery {
            attempt: attempt.number,
            max_attempts: attempt.max,
            budget: u64::try_from(limits.time.as_millis()).unwrap_or(u64::MAX),
            idempotency_key: attempt.idempotency_key,
            transport: attempt.transport,
        };
        let event = event.to_contract();
        let call = tokio::spawn(async move {
            let _room = room;
            let _running = engine.running();
            let call = async {
                let world = ready.instantiate_async(&mut store).await?;
                world.notify_plugin_handler().call_handle(&mut store, &event, &delivery).await
            };
            let answer = tokio::time::timeout(limits.time, call).await;
            store.data().log.close();
            match answer {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(error)) => Err(PluginFailure::of(&error, &store.data().limiter, limits.memory_bytes)),
                Err(_) => Err(PluginFailure::TimedOut(limits.time)),
            }
        });
        AbortOnDropHandle::new(call).await.unwrap_or_else(|error| Err(PluginFailure::HostPanicked(error.to_string())))
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin").field("name", &self.name).field("version", &self.version).finish_non_exhaustive()
    }
}
