//! Loads a plugin from a file: compiles it, asks it for its description, and keeps it ready.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use anyhow::bail;
use config::Subscription;
use config::{LogPolicy, PluginConfig, SettingsError, complete};
use contract::handler::{Guest as Handler, GuestIndices};
use contract::metadata::{self, PluginInfo};
use contract::{Plugin as World, PluginPre};
use state::digest::Digest;
use state::file::read_bounded;
use telemetry::metrics::PluginMetrics;
use tracing::{info, warn};
use wasmtime::Store;
use wasmtime::component::{Component, InstancePre, Linker};

use crate::capability::CallContext;
use crate::capability::{HostServices, NoValue, PluginLog, Preview, SecretStore};
use crate::capability_request::{self, Sentence};
use crate::compile::Compiler;
use crate::engine::Engine;
use crate::hardening::keep_memory_private;
use crate::instance::{self, Guest};
use crate::instance_permits::{InstancePermits, SharedInstancePermits};
use crate::load_error::{LoadError, is_of_the_machine};
use crate::{Chooser, Plugin, PluginFailure, call, componentize, contract_check};

/// Maximum bytes of a plugin's file.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Time limit of `describe`, which computes nothing.
const DESCRIBE_TIME: Duration = Duration::from_secs(2);
/// A `describe` that has computed for this long computes without end. One that did not get the processor for this
/// long only shows that the machine is busy.
const DESCRIBE_COMPUTING_MAX: Duration = Duration::from_secs(1);
/// Maximum bytes of the configuration's schema that `describe` returns.
const SCHEMA_BYTES_MAX: usize = 64 << 10;
/// Maximum bytes of any other text in the description.
const TEXT_BYTES_MAX: usize = 4 << 10;
/// Maximum number of entries in each list of the description.
const ENTRIES_MAX: usize = 256;
/// Maximum number of messages about plugins that are remembered.
const SAID_MAX: usize = 1024;

fn subscription(subscription: &metadata::Subscription) -> Subscription {
    let metadata::Subscription { event_type, source, subject } = subscription.clone();
    Subscription { event_type, source, subject }
}

/// Loads plugins from files.
pub struct Loader {
    engine: Engine,
    compiler: Compiler,
    linker: Arc<Linker<Guest>>,
    services: HostServices,
    /// Watches the messages that plugins send.
    preview: Option<Preview>,
    instance_permits: InstancePermits,
    /// Code in use, by its file's content. The same file under several names, or with another toml, is the same code.
    in_use: Mutex<HashMap<Digest, Weak<Ready>>>,
    /// Messages about plugins that were already logged.
    said: Mutex<HashSet<Sentence>>,
}

/// The description of a plugin's file.
pub struct Described {
    pub info: PluginInfo,
    ready: Arc<Ready>,
}

/// A plugin's code with its imports linked, from which each attempt starts.
pub(super) struct Ready {
    instance: InstancePre<Guest>,
    /// Where the handler is. Attempts need no other export.
    handler: GuestIndices,
}

impl Ready {
    fn new(linker: &Linker<Guest>, component: &Component) -> anyhow::Result<Self> {
        let instance =
            linker.instantiate_pre(component).map_err(|error| contract_check::why_not_linked(component, &error))?;
        let world = PluginPre::new(instance).map_err(|error| contract_check::why_not_a_plugin(&error))?;
        let instance = world.instance_pre().clone();
        let handler = GuestIndices::new(&instance).map_err(|error| contract_check::why_not_a_plugin(&error))?;
        Ok(Self { instance, handler })
    }

    /// Creates a fresh instance and returns its handler.
    pub(super) async fn handler(&self, store: &mut Store<Guest>) -> wasmtime::Result<Handler> {
        let instance = self.instance.instantiate_async(&mut *store).await?;
        self.handler.load(&mut *store, &instance)
    }
}

impl Described {
    /// Returns the names of its imports: interfaces with their versions.
    pub fn imports(&self) -> Vec<String> {
        let component = self.ready.instance.component();
        let imports = component.component_type();
        imports.imports(component.engine()).map(|(name, _)| name.to_owned()).collect()
    }
}

impl Loader {
    /// Creates a loader. `state` is the state folder, where compiled plugins are kept. `preview` watches the messages
    /// that plugins send.
    pub fn new(
        engine: Engine,
        state: Option<&Path>,
        services: HostServices,
        preview: Option<Preview>,
    ) -> anyhow::Result<Self> {
        let compiler = Compiler::new(engine.clone(), state);
        let linker = Arc::new(instance::linker(&engine)?);
        keep_memory_private();
        let instance_permits = InstancePermits::new(&engine);
        let (in_use, said) = Default::default();
        Ok(Self { engine, compiler, linker, services, preview, instance_permits, in_use, said })
    }

    /// Returns the instance permits that all plugins share.
    pub fn instance_permits(&self) -> SharedInstancePermits {
        self.instance_permits.shared()
    }

    /// Returns the metrics of the plugin with this name, which need not be loaded.
    pub fn metrics_of(&self, name: &str) -> Arc<PluginMetrics> {
        self.services.metrics_of(name)
    }

    /// Reads a plugin's file, up to a size limit.
    pub fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
        read_bounded(path, FILE_BYTES_MAX).map_err(|error| LoadError::of_own_file("cannot read it", &error))
    }

    /// Loads a plugin's file under the name that the operator gave it. The error is one sentence, without the file's
    /// name.
    pub async fn load_content(
        &self,
        name: &str,
        content: &[u8],
        digest: Digest,
        config: PluginConfig,
    ) -> Result<Plugin, LoadError> {
        if let Some(pin) = config.sha256.filter(|pin| *pin != digest) {
            return Err(LoadError::Permanent(format!(
                "its SHA-256 is {digest}, and its toml demands {pin}; if you trust it, change the toml"
            )));
        }
        let Described { info, ready } = self.describe_content(name, content, digest, &config).await?;
        for sentence in capability_request::report(name, &info, &config.grants) {
            self.say_once(sentence);
        }
        let is_dry = self.preview.as_ref().is_some_and(|preview| preview.is_dry);
        let (secret_store, warnings) =
            SecretStore::open(name, &config.secrets, is_dry).await.map_err(without_a_secret)?;
        for warning in warnings {
            self.say_once(Sentence::ToChange(warning));
        }
        let access = self.services.access(name, &config, secret_store, self.preview.clone());
        let settings = match &info.config_schema {
            Some(schema) => complete(schema.clone(), config.settings).await.map_err(with_wrong_settings)?,
            None => config.settings.values,
        };
        let (subscriptions, subscribed_by) = match config.subscriptions {
            Some(subscriptions) => (subscriptions, Chooser::Operator),
            None => (info.subscriptions.iter().map(subscription).collect(), Chooser::Plugin),
        };
        let log = config.log.unwrap_or_else(|| LogPolicy::asked_for(&info.annotations));
        Ok(Plugin {
            name: name.into(),
            digest,
            info,
            subscriptions,
            subscribed_by,
            filter: config.filter,
            log,
            settings: Arc::new(settings.into()),
            access,
            policies: config.policies,
            limits: config.limits,
            ready,
            engine: self.engine.clone(),
            instance_permits: self.instance_permits.of_a_plugin(),
        })
    }

    /// Compiles the file and asks for its description, without applying its settings.
    pub async fn describe_content(
        &self,
        name: &str,
        content: &[u8],
        digest: Digest,
        config: &PluginConfig,
    ) -> Result<Described, LoadError> {
        let ready = self.ready(name, content, digest).await?;
        let info = self.describe(name, &ready, config).await?;
        check(&info).map_err(LoadError::permanent)?;
        Ok(Described { info, ready })
    }

    /// Returns the code, compiled unless it is already in use.
    async fn ready(&self, name: &str, content: &[u8], digest: Digest) -> Result<Arc<Ready>, LoadError> {
        if let Some(ready) = self.in_use().get(&digest).and_then(Weak::upgrade) {
            return Ok(ready);
        }
        // A file of an obviously wrong format need not start a process.
        componentize::check_beginning(content).map_err(LoadError::permanent)?;
        let component = self.compiler.component(name, content, digest).await?;
        let ready = Arc::new(Ready::new(&self.linker, &component).map_err(LoadError::permanent)?);
        let mut in_use = self.in_use();
        in_use.retain(|_, ready| ready.strong_count() > 0);
        in_use.insert(digest, Arc::downgrade(&ready));
        Ok(ready)
    }

    fn in_use(&self) -> MutexGuard<'_, HashMap<Digest, Weak<Ready>>> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs a message once. A version that is loaded again because its toml changed has nothing new to say.
    fn say_once(&self, sentence: Sentence) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() >= SAID_MAX {
            said.clear();
        }
        match &sentence {
            _ if said.contains(&sentence) => return,
            Sentence::ToKnow(text) => info!("{text}"),
            Sentence::ToChange(text) => warn!("{text}"),
        }
        said.insert(sentence);
    }

    async fn describe(&self, name: &str, ready: &Arc<Ready>, config: &PluginConfig) -> Result<PluginInfo, LoadError> {
        let log = PluginLog::new(name.into(), "describe".into(), &config.limits);
        // The description may depend on the settings. They are not checked yet, because their schema is part of it.
        let settings = Arc::new(config.settings.values.clone().into());
        let context = CallContext { settings, ..CallContext::of_nothing(DESCRIBE_TIME) };
        let store = instance::store(&self.engine, &config.limits, log, context);
        let ready = Arc::clone(ready);
        let answer = call::make(&self.engine, store, DESCRIBE_TIME, (), |store| {
            Box::pin(async move {
                let instance = match ready.instance.instantiate_async(&mut *store).await {
                    Ok(instance) => instance,
                    Err(error) if is_of_the_machine(&error) => return Ok(Err(LoadError::transient(error))),
                    Err(error) => return Err(error),
                };
                // Instantiating does not check the types of exports; this does.
                let world = match World::new(&mut *store, &instance) {
                    Ok(world) => world,
                    Err(error) => return Ok(Err(LoadError::permanent(contract_check::why_not_a_plugin(&error)))),
                };
                world.notify_plugin_metadata().call_describe(&mut *store).await.map(Ok)
            })
        });
        let (answer, usage, _) = answer.await;
        answer.unwrap_or_else(|failure| Err(not_described(&failure, usage.computed)))
    }
}

/// Decides whether the plugin or the machine is at fault for a failed description, after this much computing.
fn not_described(failure: &PluginFailure, computed: Duration) -> LoadError {
    let problem = format!("asked to describe itself: {failure}");
    match failure {
        PluginFailure::TimedOut(_) if computed < DESCRIBE_COMPUTING_MAX => LoadError::Transient(problem),
        // Neither a panic nor the log says anything about the file.
        PluginFailure::HostPanicked(_) | PluginFailure::LogNotWritten(_) => LoadError::Transient(problem),
        PluginFailure::TimedOut(_) | PluginFailure::Trapped { .. } | PluginFailure::OutOfMemory(_) => {
            LoadError::Permanent(problem)
        }
    }
}

/// A secret's file may appear a moment later, and nothing notifies the host of that.
fn without_a_secret(error: anyhow::Error) -> LoadError {
    if error.downcast_ref::<NoValue>().is_some_and(|no_value| no_value.may_come) {
        LoadError::transient(error)
    } else {
        LoadError::permanent(error)
    }
}

fn with_wrong_settings(error: SettingsError) -> LoadError {
    match error {
        SettingsError::Faults(faults) => LoadError::Settings(faults),
        SettingsError::Schema(_) => LoadError::permanent(error),
        SettingsError::NotChecked(_) => LoadError::transient(error),
    }
}

/// Checks that the description, which goes into logs and pages, has a sensible size.
fn check(info: &PluginInfo) -> anyhow::Result<()> {
    if info.config_schema.as_ref().is_some_and(|schema| schema.len() > SCHEMA_BYTES_MAX) {
        bail!("the schema of its configuration has more than {} KiB", SCHEMA_BYTES_MAX >> 10);
    }
    let own = [&info.name, &info.version, &info.description].into_iter();
    let annotations = info.annotations.iter().flat_map(|(name, value)| [name, value]);
    let requests = info.requests.iter().flat_map(|request| [&request.capability, &request.scope, &request.why]);
    let subscribed = info.subscriptions.iter();
    let subscriptions = subscribed.flat_map(|one| [&one.event_type].into_iter().chain(&one.source).chain(&one.subject));
    if own.chain(annotations).chain(requests).chain(subscriptions).any(|text| text.len() > TEXT_BYTES_MAX) {
        bail!("it describes itself with a text of more than {} KiB", TEXT_BYTES_MAX >> 10);
    }
    if info.subscriptions.len().max(info.requests.len()).max(info.annotations.len()) > ENTRIES_MAX {
        bail!("it describes itself with a list of more than {ENTRIES_MAX} entries");
    }
    let allowed = |character: char| matches!(character, 'a'..='z' | '0'..='9' | '-');
    if info.name.is_empty() || !info.name.chars().all(allowed) {
        bail!("it calls itself {:?}, and a name is made of a-z, 0-9 and -", info.name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract_check_tests;

    #[tokio::test]
    async fn the_same_file_under_several_names_is_the_same_code() {
        let loader = Loader::new(Engine::new().unwrap(), None, HostServices::default(), None).unwrap();
        let load = async |name, content: &[u8]| {
            let plugin = loader.load_content(name, content, Digest::of(content), PluginConfig::default()).await;
            plugin.unwrap().ready
        };
        let [_, content] = contract_check_tests::good();
        // A custom section makes it another file.
        let other = [&content[..], &[0, 2, 1, b'v']].concat();
        let (one, two, three) = (load("one", &content).await, load("two", &content).await, load("three", &other).await);
        assert!(Arc::ptr_eq(&one, &two));
        assert!(!Arc::ptr_eq(&one, &three));
        drop((one, two, three));
        load("one", &content).await;
        assert_eq!(loader.in_use().len(), 1, "what nobody uses any more is let go");
    }

    #[test]
    fn a_describe_that_had_no_processor_is_told_from_one_that_never_ends() {
        let timed_out = PluginFailure::TimedOut(DESCRIBE_TIME);
        assert!(not_described(&timed_out, Duration::from_millis(300)).is_transient());
        assert!(!not_described(&timed_out, Duration::from_millis(1900)).is_transient());
        assert!(!not_described(&PluginFailure::OutOfMemory(64), Duration::ZERO).is_transient());
        assert!(not_described(&PluginFailure::HostPanicked(String::new()), Duration::ZERO).is_transient());
    }

    #[tokio::test]
    async fn what_a_describe_computes_is_measured() {
        let loader = Loader::new(Engine::new().unwrap(), None, HostServices::default(), None).unwrap();
        let endless = "(loop $for_ever (br $for_ever))";
        let guest = crate::assemble::Guest { describe: endless, ..Default::default() };
        let content = guest.assemble();
        // On a busy machine several tries may be needed until it gets the processor for half of the time.
        for _ in 0..20 {
            let plugin = loader.load_content("p", &content, Digest::of(&content), PluginConfig::default()).await;
            let error = plugin.unwrap_err();
            assert!(error.to_string().contains("it passed its time limit of 2000 ms"), "{error}");
            if !error.is_transient() {
                return;
            }
        }
        panic!("a plugin that computes without end is taken for a busy machine");
    }
}
