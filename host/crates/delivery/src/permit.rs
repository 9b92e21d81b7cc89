//! A permit is the right to make one attempt.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use event::Event;
use sandbox::capability::Beginning;
use sandbox::{Attempt, InstancePermit, Plugin};

use crate::breaker::Change;
use crate::policy::Outcome;
use crate::runner::{Runner, Version};

/// The right to make one attempt. Dropping it, or the attempt, gives it back.
pub(super) struct Permit {
    pub(super) runner: Arc<Runner>,
    pub(super) version: Arc<Version>,
    pub(super) instance: Option<InstancePermit>,
    pub(super) probe: bool,
    /// The breaker's generation at admission.
    pub(super) generation: u64,
    pub(super) ended: bool,
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.probe && !self.ended {
            let mut breaker = self.runner.breaker();
            if breaker.generation() == self.generation {
                breaker.not_made(true);
            }
            drop(breaker);
            self.runner.changed.send_replace(());
        }
    }
}

impl Permit {
    /// Returns whether the permit is for the current version of the plugin.
    pub(super) fn is_current(&self) -> bool {
        self.runner.current().is_some_and(|current| Arc::ptr_eq(&current, &self.version))
    }

    /// Returns the version of the plugin that the permit is for, which has the limits and policies to apply.
    pub(super) fn plugin(&self) -> &Plugin {
        &self.version.plugin
    }

    /// Makes the attempt. Returns its outcome and the change in the plugin's health. With `keep_log`, also
    /// returns the beginning of the plugin's log.
    pub(super) async fn attempt(
        mut self,
        event: &Event,
        attempt: Attempt,
        keep_log: bool,
    ) -> (Outcome, Option<Change>, Beginning) {
        let counted = InFlightCall::new(&self.runner.in_flight);
        let (answer, log) = self.version.plugin.attempt(event, attempt, self.instance.take(), keep_log).await;
        let outcome = Outcome::of(answer);
        drop(counted);
        self.ended = true;
        let change = {
            let mut breaker = self.runner.breaker();
            let is_of_now = breaker.generation() == self.generation;
            if is_of_now && let Some(reason) = outcome.failure() {
                *self.runner.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
            }
            match &outcome {
                // A call of an earlier generation says nothing about the plugin now.
                _ if !is_of_now => None,
                Outcome::Misconfigured(_) => breaker.pause(),
                Outcome::Retry { .. } => breaker.ended(self.probe, true, Instant::now()),
                // A fault of the machine says nothing about the plugin.
                Outcome::MachineFault(_) => {
                    breaker.not_made(self.probe);
                    None
                }
                // The plugin works, even if it rejects the event.
                Outcome::Done(_) | Outcome::Skipped(_) | Outcome::Reject(_) => {
                    breaker.ended(self.probe, false, Instant::now())
                }
            }
        };
        if change.is_some() || self.probe {
            self.runner.changed.send_replace(());
        }
        (outcome, change, log)
    }
}

/// Counts one call as in flight for as long as this lives.
struct InFlightCall<'c>(&'c AtomicUsize);

impl<'c> InFlightCall<'c> {
    fn new(count: &'c AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for InFlightCall<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
