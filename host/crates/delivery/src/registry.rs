//! A registry holds the current runners. The host's own registry outlives sessions, and the reconciler that
//! fills it knows no session. Each session has another one, for the plugins that events may go to.

use std::sync::Arc;

use tokio::sync::watch;

use crate::runner::Runner;

/// Runners sorted by plugin name.
pub type Runners = Arc<[Arc<Runner>]>;

pub struct Registry {
    runners: watch::Sender<Runners>,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    pub fn new() -> Self {
        Self { runners: watch::Sender::new(Arc::default()) }
    }

    pub fn runners(&self) -> Runners {
        Arc::clone(&self.runners.borrow())
    }

    pub fn get(&self, name: &str) -> Option<Arc<Runner>> {
        self.runners.borrow().iter().find(|runner| &*runner.name == name).cloned()
    }

    pub(super) fn holds(&self, runner: &Arc<Runner>) -> bool {
        self.runners.borrow().iter().any(|other| Arc::ptr_eq(other, runner))
    }

    /// Adds a runner, in place of any other with the same name.
    pub fn put(&self, runner: Arc<Runner>) {
        self.runners.send_modify(|runners| *runners = with(runners, runner));
    }

    /// Adds several runners at once, so that none gets events before the others do.
    pub fn put_all(&self, new: Vec<Arc<Runner>>) {
        if !new.is_empty() {
            self.runners.send_modify(|runners| {
                *runners = new.into_iter().fold(Arc::clone(runners), |runners, runner| with(&runners, runner));
            });
        }
    }

    pub fn remove(&self, name: &str) {
        self.runners.send_modify(|runners| *runners = without(runners, name).collect());
    }

    /// Waits until the registry has a runner if `some`, or has none otherwise.
    pub(super) async fn until(&self, some: bool) {
        // Cannot fail: `self` owns the sender.
        let _ = self.runners.subscribe().wait_for(|runners| runners.is_empty() != some).await;
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Runners> {
        self.runners.subscribe()
    }
}

fn with(runners: &Runners, runner: Arc<Runner>) -> Runners {
    let mut all: Vec<_> = without(runners, &runner.name).collect();
    let at = all.partition_point(|other| other.name < runner.name);
    all.insert(at, runner);
    all.into()
}

fn without(runners: &Runners, name: &str) -> impl Iterator<Item = Arc<Runner>> {
    runners.iter().filter(move |runner| &*runner.name != name).cloned()
}
