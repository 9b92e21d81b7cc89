//! The reconciler makes the registry match the plugin folder: it loads new and changed plugins, replaces
//! earlier versions, and unloads plugins whose files are gone.
//!
//! A change that does not load is reported once. The previous version keeps running, even after a restart of
//! the host. Plugins load one at a time, while the others keep working.
//!
//! If the machine was at fault, loading is tried again. Meanwhile the previous version keeps running. If there
//! is none, the plugin still gets a runner, so that its events wait in its queue.

mod catalog;
mod retries;
mod versions;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::{PluginConfig, Policies};
use delivery::{Registry, Runner};
use futures_util::FutureExt as _;
use sandbox::{Entry, Files, LoadError, Loaded, Loader, Plugin, is_plugin_name, is_transient, lone_tomls, look, scan};
use state::file::apart;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub use crate::reconcile::catalog::{Catalog, Status};
use crate::reconcile::retries::Retries;
pub use crate::reconcile::versions::{Good, Versions};
use crate::reconcile::watch::FolderWatch;
use crate::reload::NewPolicies;

/// How long a plugin keeps running after its files are gone. They may only be in the middle of being replaced.
const GONE_GRACE: Duration = Duration::from_secs(1);
/// Delay before the next pass, if the last one left work to do.
const SOON: Duration = Duration::from_millis(250);
/// Maximum number of waiting requests.
const REQUESTS_MAX: usize = 16;

/// A request to load a plugin now, whether or not its files have changed.
pub struct Reload {
    pub name: String,
    /// Receives the result: a sentence, for success and failure alike.
    pub answer: oneshot::Sender<Result<String, String>>,
}

pub struct Reconciler {
    folder: PathBuf,
    policies: Policies,
    loader: Loader,
    registry: Arc<Registry>,
    catalog: Arc<Catalog>,
    watch: FolderWatch,
    /// `None` if there is no state folder to keep versions in.
    versions: Option<Versions>,
    /// The files of each plugin as of the last attempt to load them, successful or not.
    known: BTreeMap<String, Entry>,
    gone: BTreeMap<String, Instant>,
    retries: Retries,
    /// Whether the folder was readable once, and its plugins were loaded. Until then no plugin gets events.
    has_begun: bool,
    /// Runners that enter the registry together.
    gathered: Option<Vec<Arc<Runner>>>,
    /// Tomls without a plugin that were already reported.
    lone: BTreeSet<String>,
    folder_problem: Option<String>,
    reloads: mpsc::Receiver<Reload>,
    adoptions: (mpsc::Sender<NewPolicies>, mpsc::Receiver<NewPolicies>),
}

/// Whether another pass is needed soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PassResult {
    Complete,
    Incomplete,
}

impl Reconciler {
    /// Creates a reconciler. `state` is the state folder of the plugin folder.
    pub fn new(
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
            retries: Retries::default(),
            has_begun: false,
            gathered: None,
            lone: BTreeSet::new(),
            folder_problem: None,
            reloads,
            adoptions: mpsc::channel(REQUESTS_MAX),
        };
        (reconciler, catalog, sender)
    }

    /// Returns a sender that changes the host's own policies.
    pub fn adoptions(&self) -> mpsc::Sender<NewPolicies> {
        self.adoptions.0.clone()
    }

    /// Loads all plugins once.
    pub async fn begin(&mut self) {
        self.pass().await;
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut pass = PassResult::Incomplete;
        loop {
            let soon = (pass == PassResult::Incomplete).then_some(SOON);
            let at_most = soon.into_iter().chain(self.retries.wait(Instant::now())).min();
            tokio::select! {
                () = stop.cancelled() => return,
                Some(reload) = self.reloads.recv() => {
                    let answer = self.reload(&reload.name).await;
                    // The requester may be gone.
                    let _ = reload.answer.send(answer);
                    // This may have interrupted the wait for another change, so look again soon.
                    pass = PassResult::Incomplete;
                }
                Some(NewPolicies { policies, done }) = self.adoptions.1.recv() => {
                    self.adopt(policies).await;
                    // The requester may be gone.
                    let _ = done.send(());
                    pass = PassResult::Incomplete;
                }
                () = self.watch.changed(at_most) => pass = self.pass().await,
            }
        }
    }

    /// Adopts new host policies, and reloads the plugins whose policies change with them.
    async fn adopt(&mut self, policies: Policies) {
        self.policies = policies;
        let entries: Vec<_> = self.known.values().cloned().collect();
        for entry in entries {
            // A plugin that is not loaded yet gets these policies when it loads.
            let Some(plugin) = self.registry.get(&entry.name).and_then(|runner| runner.plugin()) else { continue };
            let own = PluginConfig::read(&entry.toml, &self.policies);
            if own.is_ok_and(|own| own.policies == plugin.policies) {
                continue;
            }
            // Ignore the result: `load` has reported it.
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

    async fn pass(&mut self) -> PassResult {
        let folder = self.folder.clone();
        // A panic here, for example because the system is out of threads, must not stop the reconciler.
        let scanned = AssertUnwindSafe(apart(move || scan(&folder))).catch_unwind().await;
        let entries = match scanned.unwrap_or_else(|_| Err(io::Error::other("the host failed at it; see its log"))) {
            Ok(entries) => entries,
            Err(error) => {
                self.report_folder(&error);
                return PassResult::Complete;
            }
        };
        // Events pass by every plugin that is not loaded yet as soon as another one gets events. If none runs so
        // far, perhaps because the folder was not readable until now, add all of them at once.
        if self.registry.runners().is_empty() {
            self.gathered = Some(Vec::new());
        }
        let pass = Box::pin(self.bring_up_to_date(entries)).await;
        self.registry.put_all(self.gathered.take().unwrap_or_default());
        self.has_begun = true;
        pass
    }

    async fn bring_up_to_date(&mut self, entries: BTreeMap<String, Entry>) -> PassResult {
        self.folder_problem = None;
        for name in entries.keys() {
            self.catalog.loading(name);
        }
        let mut pass = PassResult::Complete;
        for (name, entry) in &entries {
            self.gone.remove(name);
            if self.known.get(name) == Some(entry) && !self.retries.is_due(name, Instant::now()) {
                continue;
            }
            let age = entry.age();
            if self.has_begun
                && [&entry.toml, &entry.wasm].into_iter().any(|path| self.watch.is_being_written(path, age))
            {
                pass = PassResult::Incomplete;
                continue;
            }
            // Ignore the result: `load` has reported it.
            let _ = self.load(entry).await;
            self.known.insert(name.clone(), entry.clone());
            if entry.has_changed() {
                pass = PassResult::Incomplete;
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
                pass = PassResult::Incomplete;
                continue;
            }
            self.gone.remove(&name);
            self.known.remove(&name);
            self.retries.forget(&name);
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

    /// Reports that the folder cannot be read. Loaded plugins stay: a file system may be away for a while.
    fn report_folder(&mut self, error: &io::Error) {
        let folder = self.folder.display();
        let problem = if error.kind() == io::ErrorKind::NotFound {
            format!("there is no plugin folder {folder}: make it, and put plugins into it")
        } else {
            format!("cannot read the plugin folder {folder}: {error}")
        };
        if self.folder_problem.as_ref() != Some(&problem) {
            warn!("{problem}");
            self.folder_problem = Some(problem);
        }
    }

    /// Loads one plugin, and returns the result as a sentence.
    async fn load(&mut self, entry: &Entry) -> Result<String, String> {
        let name = &*entry.name;
        let held = self.catalog.is_held(name).map_err(|error| {
            LoadError::Transient(format!("whether it is paused by the operator cannot be read: {error}"))
        });
        let loaded = match held {
            Ok(held) => contained(entry.load(&self.loader, &self.policies)).await.map(|loaded| (loaded, held)),
            Err(error) => Err(error),
        };
        match loaded {
            Ok((Loaded::Plugin(plugin, files), held)) => {
                self.retries.forget(name);
                self.remember(&files, &plugin.info.version);
                Ok(self.take_in(*plugin, entry, held))
            }
            Ok((Loaded::Off, _)) => {
                self.retries.forget(name);
                self.registry.remove(name);
                self.catalog.off(name);
                info!(plugin = name, "switched off by its toml: it gets no events");
                Ok(format!("{name} is switched off by its toml"))
            }
            // The files were being replaced, so this failure says nothing about the final ones. The next pass will
            // tell.
            Err(error) if entry.has_changed() => {
                if !self.has_begun {
                    self.keep_its_events(entry);
                }
                Err(error.to_string())
            }
            Err(error) => Err(self.failed(entry, error).await),
        }
    }

    /// Handles a failed load, and returns a sentence about the problem and its consequence.
    async fn failed(&mut self, entry: &Entry, error: LoadError) -> String {
        let name = &*entry.name;
        let problem = error.to_string();
        // A transient error says nothing against the new files, so there is no reason to fall back to an earlier
        // version.
        let is_to_be_tried_again =
            error.is_transient() || (self.running(name).is_none() && self.fall_back(entry).await == Fallback::NotNow);
        let running = self.running(name);
        let (again_in, is_news) = if is_to_be_tried_again {
            let (wait, is_news) = self.retries.failed(name, &problem, Instant::now());
            (Some(wait), is_news)
        } else {
            self.retries.forget(name);
            (None, true)
        };
        let then = match (&running, again_in) {
            (Some(version), Some(wait)) => {
                format!("version {version} goes on running; next try in {} ms", wait.as_millis())
            }
            (Some(version), None) => format!("version {version} goes on running"),
            (None, Some(wait)) => {
                self.keep_its_events(entry);
                format!("its events wait in its queue until it has loaded; next try in {} ms", wait.as_millis())
            }
            (None, None) => {
                // Earlier transient failures may have left a runner that keeps the plugin's events.
                self.registry.remove(name);
                "it is left out".to_owned()
            }
        };
        // Log a single line, so that a search for the plugin finds all of it.
        let line = format!("{}; {then}", problem.replace('\n', "; "));
        if is_news {
            warn!(plugin = name, "{line}");
        } else {
            debug!(plugin = name, "{line}");
        }
        self.catalog.failed(name, &problem, again_in);
        format!("{problem}; {then}")
    }

    fn runner(&self, name: &str) -> Option<Arc<Runner>> {
        let gathered = self.gathered.iter().flatten().find(|runner| &*runner.name == name).cloned();
        gathered.or_else(|| self.registry.get(name))
    }

    /// Returns the version that gets the plugin's events now.
    fn running(&self, name: &str) -> Option<String> {
        Some(self.runner(name)?.plugin()?.info.version.clone())
    }

    fn put(&mut self, runner: Arc<Runner>) {
        match &mut self.gathered {
            Some(gathered) => gathered.push(runner),
            None => self.registry.put(runner),
        }
    }

    /// Adds a runner without a plugin, so that events wait in the plugin's queue until it has loaded.
    fn keep_its_events(&mut self, entry: &Entry) {
        // Queue names contain the plugin's name, so an invalid one cannot have a queue.
        if is_plugin_name(&entry.name) && self.runner(&entry.name).is_none() {
            let metrics = self.loader.metrics_of(&entry.name);
            self.put(Arc::new(Runner::new(entry.name.as_str().into(), metrics, entry.toml.clone())));
        }
    }

    /// Puts a loaded version into service.
    fn take_in(&mut self, plugin: Plugin, entry: &Entry, held: bool) -> String {
        let name = Arc::clone(&plugin.name);
        let version = plugin.info.version.clone();
        self.catalog.loaded(&name, entry, &plugin);
        let runner = self.runner(&name);
        if let Some(old) = runner.as_ref().and_then(|runner| runner.plugin()) {
            info!(
                plugin = &*name,
                version, "loaded anew, in the place of version {}: {}", old.info.version, plugin.info.description
            );
        } else {
            info!(plugin = &*name, version, "loaded: {}", plugin.info.description);
        }
        let is_first = !runner.as_ref().is_some_and(|runner| runner.is_loaded());
        let (runner, is_new) = match runner {
            Some(runner) => (runner, false),
            None => (Arc::new(Runner::new(Arc::clone(&name), plugin.metrics(), entry.toml.clone())), true),
        };
        // Pause before anything is taken from its queue.
        if held && is_first {
            runner.hold();
            info!(
                plugin = &*name,
                "paused by the operator: its events wait in its queue; `notify-host plugin resume {name}` ends that"
            );
        }
        runner.replace(plugin);
        if is_new {
            self.put(runner);
        }
        format!("{name} {version} is loaded")
    }

    /// Loads the version that worked last. After a restart, a change that does not load must not stop a plugin
    /// that worked before.
    async fn fall_back(&mut self, entry: &Entry) -> Fallback {
        let name = &*entry.name;
        let Some(versions) = &self.versions else { return Fallback::None };
        let unreadable = |what: &str, error: &io::Error| {
            warn!(plugin = name, "{what} cannot be read: {error}");
            if is_transient(error) { Fallback::NotNow } else { Fallback::None }
        };
        let good = match versions.of_plugin(name) {
            Ok(mut all) => all.pop(),
            Err(error) => return unreadable("the list of the versions that worked", &error),
        };
        let Some(good) = good else { return Fallback::None };
        let content = match versions.content(&good) {
            Ok(content) => content,
            Err(error) => return unreadable(&format!("version {}, which worked last,", good.version), &error),
        };
        let Ok(held) = self.catalog.is_held(name) else { return Fallback::NotNow };
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
                self.take_in(plugin, entry, held);
                Fallback::Runs
            }
            Err(problem) => {
                info!(plugin = name, "the version that worked last does not load any more: {problem}");
                if problem.is_transient() { Fallback::NotNow } else { Fallback::None }
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

/// The result of falling back to the version that worked last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fallback {
    Runs,
    /// The machine could not load it either.
    NotNow,
    /// There is none, or it no longer loads.
    None,
}

/// Turns a panic while loading into a transient error. The panic must not stop anything else, and it says
/// nothing about the plugin's file: the system may have been out of threads.
async fn contained<T>(load: impl Future<Output = Result<T, LoadError>>) -> Result<T, LoadError> {
    let loaded = AssertUnwindSafe(load).catch_unwind().await;
    loaded.unwrap_or_else(|_| {
        Err(LoadError::Transient("the host failed at it, which is a fault of the host's; see its log".to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_in_loading_is_a_problem_of_that_plugin() {
        let problem = contained::<()>(async { panic!("a fault") }).await.unwrap_err();
        assert!(problem.is_transient() && problem.to_string().contains("the host failed at it"), "{problem}");
        assert_eq!(contained(async { Ok(1) }).await, Ok(1));
    }
}
