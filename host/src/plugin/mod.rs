//! A plugin is a WebAssembly component that exports the world `notify:plugin/plugin`.
//!
//! Each attempt runs in a fresh instance, within limits of memory and time, in a task of its own,
//! so that whatever it does ends with it. Nothing here knows queues.

mod bindings;
mod engine;
mod failure;
mod folder;
mod instance;
mod limits;
mod load;

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use crate::capability::PluginLog;
use crate::event::Event;
use crate::plugin::bindings::PluginPre;
pub(crate) use crate::plugin::bindings::exports::notify::plugin::metadata;
pub(crate) use crate::plugin::bindings::notify::plugin as contract;
pub(crate) use crate::plugin::engine::{Engine, MEMORY_BYTES_MAX};
pub(crate) use crate::plugin::failure::PluginFailure;
pub(crate) use crate::plugin::folder::load_folder;
pub(crate) use crate::plugin::instance::Guest;
pub(crate) use crate::plugin::limits::Limits;
pub(crate) use crate::plugin::load::Loader;

/// A loaded plugin.
pub(crate) struct Plugin {
    /// What the operator calls it: its file's name.
    pub(crate) name: Arc<str>,
    pub(crate) version: String,
    pub(crate) description: String,
    /// Which events it gets. None: all.
    pub(crate) subscriptions: Vec<Subscription>,
    settings: Arc<serde_json::Map<String, serde_json::Value>>,
    limits: Limits,
    ready: PluginPre<Guest>,
    engine: Engine,
    slots: Arc<Semaphore>,
    own_slots: Arc<Semaphore>,
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
    /// One call, once there is room for it.
    pub(crate) async fn attempt(&self, event: &Event, attempt: Attempt) -> Result<Answer, PluginFailure> {
        // Neither is ever closed; if one were, the attempt would go on without it.
        let _own = Arc::clone(&self.own_slots).acquire_owned().await.ok();
        let _slot = Arc::clone(&self.slots).acquire_owned().await.ok();
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
