//! An instance permit lets one attempt run, for any plugin. A few plugins with long calls could hold all permits, so
//! each plugin has one more for itself.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::engine::Engine;

/// All instance permits of one engine.
#[derive(Clone, Debug)]
pub(super) struct InstancePermits {
    shared: Arc<Semaphore>,
    /// The number of shared permits.
    count: usize,
    /// Permits that can still become a plugin's own.
    unowned: Arc<Semaphore>,
}

/// The instance permits that one plugin may take.
#[derive(Clone, Debug)]
pub(super) struct PluginInstancePermits {
    shared: Arc<Semaphore>,
    /// `None` if there are very many plugins.
    own: Option<Arc<OwnPermit>>,
}

#[derive(Debug)]
struct OwnPermit {
    free: Arc<Semaphore>,
    _owned: OwnedSemaphorePermit,
}

/// A permit that is taken.
#[derive(Debug)]
pub(super) struct PoolPermit {
    _permit: Option<OwnedSemaphorePermit>,
    /// Keeps the plugin's own permit until its last attempt has ended.
    _own: Option<Arc<OwnPermit>>,
}

impl InstancePermits {
    pub(super) fn new(engine: &Engine) -> Self {
        Self::of(engine.capacity.shared, engine.capacity.own)
    }

    fn of(shared: usize, own: usize) -> Self {
        Self { count: shared, shared: Arc::new(Semaphore::new(shared)), unowned: Arc::new(Semaphore::new(own)) }
    }

    pub(super) fn shared(&self) -> SharedInstancePermits {
        SharedInstancePermits { free: Arc::clone(&self.shared), count: self.count }
    }

    pub(super) fn of_a_plugin(&self) -> PluginInstancePermits {
        let owned = Arc::clone(&self.unowned).try_acquire_owned().ok();
        let own = owned.map(|owned| Arc::new(OwnPermit { free: Arc::new(Semaphore::new(1)), _owned: owned }));
        PluginInstancePermits { shared: Arc::clone(&self.shared), own }
    }
}

/// The shared permits, for reporting how many are in use.
#[derive(Clone, Debug)]
pub struct SharedInstancePermits {
    free: Arc<Semaphore>,
    count: usize,
}

impl SharedInstancePermits {
    /// Returns how many are taken, and how many are free.
    pub fn used_and_free(&self) -> (usize, usize) {
        let free = self.free.available_permits();
        (self.count.saturating_sub(free), free)
    }
}

impl PluginInstancePermits {
    /// Takes over the other's own permit, if it has none itself.
    pub(super) fn take_over(&mut self, other: &Self) {
        if self.own.is_none() {
            self.own.clone_from(&other.own);
        }
    }

    /// Takes a permit if one is free.
    pub(super) fn take_at_once(&self) -> Option<PoolPermit> {
        if let Some(own) = &self.own
            && let Ok(permit) = Arc::clone(&own.free).try_acquire_owned()
        {
            return Some(PoolPermit { _permit: Some(permit), _own: Some(Arc::clone(own)) });
        }
        let permit = Arc::clone(&self.shared).try_acquire_owned().ok()?;
        Some(PoolPermit { _permit: Some(permit), _own: None })
    }

    /// Waits for a permit. The semaphores are never closed; if they were, the attempt would continue without one.
    pub(super) async fn take(&self) -> PoolPermit {
        let shared = Arc::clone(&self.shared).acquire_owned();
        let Some(own) = &self.own else { return PoolPermit { _permit: shared.await.ok(), _own: None } };
        tokio::select! {
            biased;
            permit = Arc::clone(&own.free).acquire_owned() => {
                PoolPermit { _permit: permit.ok(), _own: Some(Arc::clone(own)) }
            }
            permit = shared => PoolPermit { _permit: permit.ok(), _own: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_plugin_that_takes_all_it_can_leaves_the_others_one_place_each() {
        let instance_permits = InstancePermits::of(2, 2);
        let (greedy, modest, third) =
            (instance_permits.of_a_plugin(), instance_permits.of_a_plugin(), instance_permits.of_a_plugin());
        let taken: Vec<_> = std::iter::from_fn(|| greedy.take().now_or_never()).collect();
        assert_eq!(taken.len(), 3);
        let own = modest.take().now_or_never().expect("a place of its own");
        assert!(modest.take().now_or_never().is_none() && modest.take_at_once().is_none());
        assert!(third.take().now_or_never().is_none(), "there were places of their own for two");
        drop(own);
        assert!(modest.take_at_once().is_some(), "it comes back");
        assert!(modest.take().now_or_never().is_some(), "and again");
    }

    #[test]
    fn a_place_is_owned_as_long_as_somebody_is_in_it() {
        let instance_permits = InstancePermits::of(0, 1);
        let plugin = instance_permits.of_a_plugin();
        let taken = plugin.take().now_or_never().expect("its own");
        drop(plugin);
        assert!(instance_permits.of_a_plugin().take().now_or_never().is_none());
        drop(taken);
        assert!(instance_permits.of_a_plugin().take().now_or_never().is_some());
    }
}
