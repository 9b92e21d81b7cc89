//! The reconciler makes the registry what the plugin folder says: it loads what is new or has changed,
//! puts it in the place of what ran before, and takes away what is gone.
//!
//! A change that does not load is reported once, and the version before it goes on running, after a
//! restart of the host as well. One plugin is loaded at a time, beside the work of the others.

mod catalog;
mod versions;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{PluginConfig, Policies};
use crate::delivery::{Registry, Runner};
use crate::file::apart;
use crate::plugin::{Entry, Files, Loaded, Loader, Plugin, lone_tomls, look, scan};
pub(crate) use crate::reconcile::catalog::{Catalog, Status};
pub(crate) use crate::reconcile::versions::{Good, Versions};
use crate::reconcile::watch::FolderWatch;
use crate::reload::NewPolicies;

/// A plugin whose files are gone goes on for so long: they may only be on their way from one version to
/// the next.
const GONE_GRACE: Duration = Duration::from_secs(1);
/// When something is to be looked at again.
const SOON: Duration = Duration::from_millis(250);
/// Requests of commands that wait.
const REQUESTS_MAX: usize = 16;

/// A wish to load a plugin now, whether or not its files have changed.
pub(crate) struct Reload {
    pub(crate) name: String,
    /// What came of it, in a sentence either way.
    pub(crate) answer: oneshot::Sender<Result<String, String>>,
}

pub(crate) struct Reconciler {
    folder: PathBuf,
    policies: Policies,
    loader: Loader,
    registry: Arc<Registry>,
    catalog: Arc<Catalog>,
    watch: FolderWatch,
    /// `None`: there is no place to keep any.
    versions: Option<Versions>,
    /// What the files of each name were when they were last loaded, whatever came of it.
    known: BTreeMap<String, Entry>,
    gone: BTreeMap<String, Instant>,
    /// Tomls without a plugin, of which it has been said.
    lone: BTreeSet<String>,
    folder_problem: Option<String>,
    reloads: mpsc::Receiver<Reload>,
    adoptions: (mpsc::Sender<NewPolicies>, mpsc::Receiver<NewPolicies>),
}

/// Whether there is more to do before long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    Settled,
    Unsettled,
}

impl Reconciler {
    /// `state`: what belongs to this folder in the state folder.
    pub(crate) fn new(
        folder: &Path,
        state: Option<&Path>,
        policies: Policies,
        loader: Loader,
        registry: Arc<Registry>,
    ) -> (Self, Arc<Catalog>, mpsc::Sender<Reload>) {
        let (sender, reloads) = mpsc::channel(REQUESTS_MAX);
        let catalog = Arc::new(Catalog::new(state));
        let reconciler = Self {
            folder: folder.to_owned(),
            policies,
            loader,
            registry,
            catalog: Arc::clone(&catalog),
            watch: FolderWatch::new(folder.to_owned()),
            versions: state.map(Versions::of),
            known: BTreeMap::new(),
            gone: BTreeMap::new(),
            lone: BTreeSet::new(),
            folder_problem: None,
            reloads,
            adoptions: mpsc::channel(REQUESTS_MAX),
        };
        (reconciler, catalog, sender)
    }

    /// By which the host's own policies can be changed.
    pub(crate) fn adoptions(&self) -> mpsc::Sender<NewPolicies> {
        self.adoptions.0.clone()
    }

    /// Loads everything once.
    pub(crate) async fn begin(&mut self) {
        self.pass(true).await;
    }

    /// Goes on until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut pass = Pass::Unsettled;
        loop {
            let at_most = (pass == Pass::Unsettled).then_some(SOON);
            tokio::select! {
                () = stop.cancelled() => return,
                Some(reload) = self.reloads.recv() => {
                    let answer = self.reload(&reload.name).await;
                    // Who asked may have gone.
                    let _ = reload.answer.send(answer);
                    // It may have been about to see something else.
                    pass = Pass::Unsettled;
                }
                Some(NewPolicies { policies, done }) = self.adoptions.1.recv() => {
                    self.adopt(policies).await;
                    // Who asked may have gone.
                    let _ = done.send(());
                    pass = Pass::Unsettled;
                }
                () = self.watch.changed(at_most) => pass = self.pass(false).await,
            }
        }
    }

    /// Loads those anew whose policies are others now.
    async fn adopt(&mut self, policies: Policies) {
        self.policies = policies;
        let entries: Vec<_> = self.known.values().cloned().collect();
        for entry in entries {
            let Some(runner) = self.registry.get(&entry.name) else { continue };
            let own = PluginConfig::read(&entry.toml, &self.policies);
            if own.is_ok_and(|own| own.policies == runner.plugin().policies) {
                continue;
            }
            // It has been reported.
            let _ = self.load(&entry).await;
        }
    }

    async fn reload(&mut self, name: &str) -> Result<String, String> {
        let (folder, of) = (self.folder.clone(), name.to_owned());
        let Some(entry) = apart(move || look(&folder, &of)).await else {
            let folder = self.folder.display();
            return Err(format!(
                "there is no plugin {name:?} in {folder}: no {name}.wasm, and no {name}.toml that names a file"
            ));
        };
        self.gone.remove(name);
        let done = self.load(&entry).await;
        self.known.insert(name.to_owned(), entry);
        done
    }

    async fn pass(&mut self, first: bool) -> Pass {
        let folder = self.folder.clone();
        let entries = match apart(move || scan(&folder)).await {
            Ok(entries) => entries,
            Err(error) => {
                self.report_folder(&error);
                return Pass::Settled;
            }
        };
        self.folder_problem = None;
        for name in entries.keys() {
            self.catalog.loading(name);
        }
        let mut pass = Pass::Settled;
        for (name, entry) in &entries {
            self.gone.remove(name);
            if self.known.get(name) == Some(entry) {
                continue;
            }
            let age = entry.age();
            if !first && [&entry.toml, &entry.wasm].into_iter().any(|path| self.watch.is_being_written(path, age)) {
                pass = Pass::Unsettled;
                continue;
            }
            // It has been reported.
            let _ = self.load(entry).await;
            self.known.insert(name.clone(), entry.clone());
            if entry.has_changed() {
                pass = Pass::Unsettled;
            }
        }
        let lone = lone_tomls(&self.folder, &entries);
        for name in lone.difference(&self.lone) {
            info!(
                "{name}.toml waits for its plugin: there is no {name}.wasm in the folder, and it names no other file"
            );
        }
        self.lone = lone;
        let missing: BTreeSet<_> = self.known.keys().filter(|name| !entries.contains_key(*name)).cloned().collect();
        for name in missing {
            let since = *self.gone.entry(name.clone()).or_insert_with(Instant::now);
            if since.elapsed() < GONE_GRACE {
                pass = Pass::Unsettled;
                continue;
            }
            self.gone.remove(&name);
            self.known.remove(&name);
            self.catalog.remove(&name);
            if self.registry.get(&name).is_some() {
                self.registry.remove(&name);
                info!(
                    plugin = name,
                    "unloaded: its file is gone; what waits in its queue stays there until it comes back"
                );
            }
        }
        pass
    }

    /// What is loaded stays, whatever became of the folder: a file system may be away for a while.
    fn report_folder(&mut self, error: &std::io::Error) {
        let folder = self.folder.display();
        let problem = if error.kind() == std::io::ErrorKind::NotFound {
            format!("there is no plugin folder {folder}: make it, and put plugins into it")
        } else {
            format!("cannot read the plugin folder {folder}: {error}")
        };
        if self.folder_problem.as_ref() != Some(&problem) {
            warn!("{problem}");
            self.folder_problem = Some(problem);
        }
    }

    /// Loads one, and says what came of it.
    async fn load(&mut self, entry: &Entry) -> Result<String, String> {
        let name = &*entry.name;
        match contained(entry.load(&self.loader, &self.policies)).await {
            Ok(Loaded::Plugin(plugin, files)) => {
                self.remember(&files, &plugin.info.version);
                Ok(self.take_in(*plugin, entry))
            }
            Ok(Loaded::Off) => {
                self.registry.remove(name);
                self.catalog.off(name);
                info!(plugin = name, "switched off by its toml: it gets no events");
                Ok(format!("{name} is switched off by its toml"))
            }
            // The files were on their way, and this says nothing of where to: the next pass will tell.
            Err(problem) if entry.has_changed() => Err(problem),
            Err(problem) => {
                if self.registry.get(name).is_none() {
                    self.fall_back(entry).await;
                }
                let running = self.registry.get(name).map(|runner| runner.plugin().info.version.clone());
                let then = match &running {
                    Some(version) => format!("version {version} goes on running"),
                    None => "it is left out".to_owned(),
                };
                // On one line, so that whoever looks for the plugin finds all of it.
                warn!(plugin = name, "{}; {then}", problem.replace('\n', "; "));
                self.catalog.failed(name, &problem);
                Err(format!("{problem}; {then}"))
            }
        }
    }

    /// From now on this version gets the events.
    fn take_in(&self, plugin: Plugin, entry: &Entry) -> String {
        let name = Arc::clone(&plugin.name);
        let version = plugin.info.version.clone();
        self.catalog.loaded(&name, entry, &plugin);
        let Some(runner) = self.registry.get(&name) else {
            info!(plugin = &*name, version, "loaded: {}", plugin.info.description);
            let runner = Runner::new(plugin, entry.toml.clone());
            if self.catalog.is_held(&name) {
                runner.hold();
                info!(
                    plugin = &*name,
                    "paused by the operator: its events wait in its queue; `notify-host plugin resume {name}` ends that"
                );
            }
            self.registry.put(Arc::new(runner));
            return format!("{name} {version} is loaded");
        };
        let old = runner.plugin();
        info!(
            plugin = &*name,
            version, "loaded anew, in the place of version {}: {}", old.info.version, plugin.info.description
        );
        runner.replace(plugin);
        format!("{name} {version} is loaded")
    }

    /// After a restart a change that does not load must not stop what worked before.
    async fn fall_back(&self, entry: &Entry) {
        let Some(versions) = &self.versions else { return };
        let Some(good) = versions.of_plugin(&entry.name).pop() else { return };
        let content = match versions.content(&good) {
            Ok(content) => content,
            Err(error) => {
                warn!(plugin = entry.name, "version {}, which worked last, cannot be read: {error}", good.version);
                return;
            }
        };
        let files = Files {
            name: entry.name.clone(),
            toml_path: entry.toml.clone(),
            wasm_path: entry.wasm.clone(),
            toml: good.toml,
            digest: good.sha256,
            content,
        };
        match contained(files.load(&self.loader, &self.policies)).await {
            Ok(plugin) => {
                self.take_in(plugin, entry);
            }
            Err(problem) => {
                info!(plugin = entry.name, "the version that worked last does not load any more: {problem}");
            }
        }
    }

    fn remember(&self, files: &Files, version: &str) {
        let Some(versions) = &self.versions else { return };
        if let Err(error) = versions.remember(&self.folder, files, version) {
            warn!(plugin = files.name, "this version cannot be rolled back to: {error}");
        }
    }
}

/// A fault of the host's own in reading somebody's file is a fault of that file, and ends nothing else.
async fn contained<T>(load: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let loaded = AssertUnwindSafe(load).catch_unwind().await;
    loaded.unwrap_or_else(|_| Err("the host failed at it, which is a fault of the host's; see its log".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_in_loading_is_a_problem_of_that_plugin() {
        let problem = contained::<()>(async { panic!("a fault") }).await.unwrap_err();
        assert!(problem.contains("the host failed at it"), "{problem}");
        assert_eq!(contained(async { Ok(1) }).await, Ok(1));
    }
}
