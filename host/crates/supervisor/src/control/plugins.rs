//! Lists, pauses, resumes and reloads plugins. Each answer, good or bad, is a sentence for the operator.

use std::sync::Arc;
use std::time::Duration;

use delivery::{Registry, Runner};
use sandbox::is_plugin_name;
use tokio::sync::{mpsc, oneshot};
use tracing::info;

use crate::control::report::PluginReport;
use crate::reconcile::{Catalog, Reload, Status};

/// How long a reloaded plugin may take to get events. Its queue has to be declared first.
const SERVED_TIME_MAX: Duration = Duration::from_secs(5);

/// Controls the plugins of this host.
#[derive(Clone)]
pub struct PluginControl {
    pub registry: Arc<Registry>,
    pub catalog: Arc<Catalog>,
    pub reloads: mpsc::Sender<Reload>,
}

/// Fails if no plugin can have the name. Such a name may be a path, and must not reach a file.
pub fn check_name(plugin: &str) -> Result<(), String> {
    if is_plugin_name(plugin) {
        return Ok(());
    }
    Err(format!("{plugin:?} is no name of a plugin: that is made of a-z, 0-9 and -, up to 64 of them"))
}

impl PluginControl {
    pub fn list(&self) -> Vec<PluginReport> {
        let all = self.catalog.all().into_iter();
        all.map(|(name, status)| PluginReport::new(self.registry.get(&name).as_deref(), name, status)).collect()
    }

    pub fn pause(&self, plugin: &str) -> Result<String, String> {
        check_name(plugin)?;
        let runner = self.runner(plugin)?;
        let keep = self.catalog.hold(plugin, true);
        if runner.hold() {
            info!(plugin, "paused by the operator: its events wait in its queue");
        }
        keep.map_err(|error| format!("{plugin} is paused, but only until the host stops: {error}"))?;
        Ok(format!("{plugin} is paused: its events wait in its queue"))
    }

    pub fn resume(&self, plugin: &str) -> Result<String, String> {
        check_name(plugin)?;
        let keep = self.catalog.hold(plugin, false);
        let news = self.runner(plugin)?.let_go();
        keep.map_err(|error| format!("{plugin} is resumed, but only until the host stops: {error}"))?;
        if news {
            info!(plugin, "resumed by the operator");
            return Ok(format!("{plugin} is resumed: it gets its events again"));
        }
        Ok(format!("{plugin} was running already"))
    }

    /// Loads the plugin anew. Waits until it gets events, if that is soon.
    pub async fn reload(&self, plugin: &str) -> Result<String, String> {
        check_name(plugin)?;
        let (answer, answered) = oneshot::channel();
        let stopping = || "the host is stopping".to_owned();
        self.reloads.send(Reload { name: plugin.to_owned(), answer }).await.map_err(|_| stopping())?;
        let done = answered.await.map_err(|_| stopping())??;
        Ok(match self.registry.get(plugin) {
            Some(runner) if !runner.is_served_within(SERVED_TIME_MAX).await => {
                format!("{done}, but gets no events yet: the host has no queue for it in the broker")
            }
            Some(_) | None => done,
        })
    }

    fn runner(&self, plugin: &str) -> Result<Arc<Runner>, String> {
        self.registry.get(plugin).ok_or_else(|| {
            let all = self.catalog.all();
            match all.get(plugin) {
                Some(Status { is_off: true, .. }) => {
                    format!("{plugin} is switched off by its toml: see `notify-host plugin enable {plugin}`")
                }
                Some(Status { problem: Some(problem), .. }) => format!("{plugin} does not load: {problem}"),
                Some(_) => format!("{plugin} is just being loaded"),
                None => {
                    let names: Vec<_> = all.keys().map(String::as_str).collect();
                    let those = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                    format!("there is no plugin {plugin:?}; there is: {those}")
                }
            }
        })
    }
}
