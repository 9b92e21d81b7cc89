//! Loading makes a plugin of a file: compile, ask what it is, keep it ready.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use tokio::sync::Semaphore;
use tracing::{info, warn};
use wasmtime::component::{Component, Linker};

use crate::capability::PluginLog;
use crate::config::{PluginConfig, complete};
use crate::digest::Digest;
use crate::plugin::bindings::exports::notify::plugin::metadata::PluginInfo;
use crate::plugin::bindings::{Plugin as World, PluginPre};
use crate::plugin::compile::Compiler;
use crate::plugin::engine::Engine;
use crate::plugin::failure::PluginFailure;
use crate::plugin::instance::{self, Guest};
use crate::plugin::wish::{self, Sentence};
use crate::plugin::{Chooser, Plugin, Subscription};

const WANTED: &str = "a plugin is a WebAssembly component that exports the world notify:plugin/plugin";
/// A plugin's file.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// `describe`, which computes nothing.
const DESCRIBE_TIME: Duration = Duration::from_secs(2);
/// What `describe` may answer: each text, and the number of entries in each list.
const TEXT_BYTES_MAX: usize = 64 << 10;
const ENTRIES_MAX: usize = 256;
/// Sentences about plugins that are remembered.
const SAID_MAX: usize = 1024;

/// Makes plugins of files.
pub(crate) struct Loader {
    engine: Engine,
    compiler: Compiler,
    linker: Arc<Linker<Guest>>,
    /// Attempts of all plugins together.
    slots: Arc<Semaphore>,
    /// What was said of plugins already.
    said: Mutex<HashSet<Sentence>>,
}

/// What is in a file.
pub(crate) struct Described {
    pub(crate) info: PluginInfo,
    ready: PluginPre<Guest>,
}

impl Described {
    /// The names of what it imports: interfaces, with their versions.
    pub(crate) fn imports(&self) -> Vec<String> {
        let component = self.ready.instance_pre().component();
        let imports = component.component_type();
        imports.imports(component.engine()).map(|(name, _)| name.to_owned()).collect()
    }
}

impl Loader {
    /// `state`: the state folder, where compiled plugins are kept.
    pub(crate) fn new(engine: Engine, state: Option<&Path>) -> anyhow::Result<Self> {
        let compiler = Compiler::new(engine.clone(), state)?;
        let linker = Arc::new(instance::linker(&engine)?);
        let slots = Arc::new(Semaphore::new(crate::plugin::engine::ATTEMPTS_AT_ONCE_MAX));
        Ok(Self { engine, compiler, linker, slots, said: Mutex::default() })
    }

    /// Reads a plugin's file, within bounds.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
        let size = std::fs::metadata(path).context("cannot read it")?.len();
        if size > FILE_BYTES_MAX {
            bail!("it has {} MiB, and may have {} MiB", size >> 20, FILE_BYTES_MAX >> 20);
        }
        std::fs::read(path).context("cannot read it")
    }

    /// Loads a plugin's file under the name that the operator gave it. The error is one sentence,
    /// without the file's name.
    pub(crate) async fn load_content(
        &self,
        name: &str,
        content: &[u8],
        digest: Digest,
        config: PluginConfig,
    ) -> anyhow::Result<Plugin> {
        if let Some(pin) = config.sha256.filter(|pin| *pin != digest) {
            bail!("its SHA-256 is {digest}, and its toml demands {pin}; if you trust it, change the toml");
        }
        let Described { info, ready } = self.describe_content(name, content, digest, &config).await?;
        for sentence in wish::report(name, &info, &config.grants) {
            self.say_once(sentence);
        }
        let settings = match &info.config_schema {
            Some(schema) => complete(schema.clone(), config.settings).await?,
            None => config.settings.values,
        };
        let (subscriptions, subscribed_by) = match config.subscriptions {
            Some(subscriptions) => (subscriptions, Chooser::Operator),
            None => (info.subscriptions.iter().map(Subscription::from).collect(), Chooser::Plugin),
        };
        Ok(Plugin {
            name: name.into(),
            digest,
            info,
            subscriptions,
            subscribed_by,
            filter: config.filter,
            settings: Arc::new(settings),
            policies: config.policies,
            limits: config.limits,
            ready,
            engine: self.engine.clone(),
            slots: Arc::clone(&self.slots),
        })
    }

    /// Compiles it and asks what it is, without taking its settings into use.
    pub(crate) async fn describe_content(
        &self,
        name: &str,
        content: &[u8],
        digest: Digest,
        config: &PluginConfig,
    ) -> anyhow::Result<Described> {
        if let Kind::Neither(what) = Kind::of(content) {
            bail!("{what}; {WANTED}");
        }
        let component = self.compiler.component(name, content, digest).await?;
        let ready = prepare(&self.linker, &component)?;
        let info = self.describe(name, &ready, config).await?;
        check(&info)?;
        Ok(Described { info, ready })
    }

    /// A version that is loaded again, because its toml changed, has nothing new to say.
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

    async fn describe(
        &self,
        name: &str,
        ready: &PluginPre<Guest>,
        config: &PluginConfig,
    ) -> anyhow::Result<PluginInfo> {
        let log = PluginLog::new(name.into(), "describe".into(), &config.limits);
        let mut store = instance::store(&self.engine, &config.limits, log, Arc::default());
        let _running = self.engine.running();
        let call = async {
            let world: World = ready.instantiate_async(&mut store).await?;
            world.notify_plugin_metadata().call_describe(&mut store).await
        };
        let answer = tokio::time::timeout(DESCRIBE_TIME, call).await;
        match answer {
            Ok(Ok(info)) => Ok(info),
            Ok(Err(error)) => {
                let failure = PluginFailure::of(&error, &store.data().limiter, config.limits.memory_bytes);
                Err(failure).context("asked to describe itself")
            }
            Err(_) => Err(PluginFailure::TimedOut(DESCRIBE_TIME)).context("asked to describe itself"),
        }
    }
}

/// The code of a plugin's file. The error is one sentence.
pub(super) fn code_of(engine: &wasmtime::Engine, content: &[u8]) -> anyhow::Result<Vec<u8>> {
    let component = match Kind::of(content) {
        Kind::Component => Cow::Borrowed(content),
        Kind::CoreModule => componentize(content)?.into(),
        Kind::Neither(what) => bail!("{what}; {WANTED}"),
    };
    engine.precompile_component(&component).map_err(|error| anyhow!("it does not compile: {}", last_line(&error)))
}

fn prepare(linker: &Linker<Guest>, component: &Component) -> anyhow::Result<PluginPre<Guest>> {
    let pre = linker
        .instantiate_pre(component)
        .map_err(|error| anyhow!("it imports what the host does not offer: {error:#}"))?;
    PluginPre::new(pre).map_err(|error| anyhow!("it does not export the world notify:plugin/plugin: {error:#}"))
}

fn last_line(error: &wasmtime::Error) -> String {
    error.root_cause().to_string().lines().collect::<Vec<_>>().join(" ")
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Component,
    CoreModule,
    Neither(&'static str),
}

impl Kind {
    /// By the first eight bytes (<https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md>).
    fn of(bytes: &[u8]) -> Self {
        match bytes {
            [b'\0', b'a', b's', b'm', _, _, 0, 0, ..] => Self::CoreModule,
            [b'\0', b'a', b's', b'm', _, _, 1, 0, ..] => Self::Component,
            [] => Self::Neither("it is empty"),
            [b'\0', b'a', b's', b'm', ..] => Self::Neither("it is cut off, or of an unknown WebAssembly version"),
            [0x7f, b'E', b'L', b'F', ..] => Self::Neither("it is a program for this machine, not WebAssembly"),
            _ => Self::Neither("it is not WebAssembly"),
        }
    }
}

/// A plain core module that carries its component type: what `wasm32-unknown-unknown` builds. One that
/// was built for WASI's first version gets what translates that into the second.
fn componentize(module: &[u8]) -> anyhow::Result<Vec<u8>> {
    use wasi_preview1_component_adapter_provider as preview1;
    let (name, adapter) =
        (preview1::WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, preview1::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER);
    wit_component::ComponentEncoder::default()
        .module(module)
        .and_then(|encoder| encoder.adapter(name, adapter)?.validate(true).encode())
        .map_err(|error| anyhow!("it is a core module that cannot be made a component: {error:#}"))
}

/// What a plugin says of itself goes into logs and pages: it must be of a sensible size.
fn check(info: &PluginInfo) -> anyhow::Result<()> {
    let too_long = |text: &String| text.len() > TEXT_BYTES_MAX;
    if [&info.name, &info.version, &info.description].into_iter().chain(info.config_schema.as_ref()).any(too_long) {
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

    #[test]
    fn a_file_is_known_by_its_first_bytes() {
        assert_eq!(Kind::of(b"\0asm\x01\0\0\0"), Kind::CoreModule);
        assert_eq!(Kind::of(b"\0asm\x0d\0\x01\0more"), Kind::Component);
        for (bytes, what) in [
            (&b""[..], "it is empty"),
            (b"\0asm\x01", "it is cut off, or of an unknown WebAssembly version"),
            (b"\x7fELF...", "it is a program for this machine, not WebAssembly"),
            (b"hello", "it is not WebAssembly"),
        ] {
            assert_eq!(Kind::of(bytes), Kind::Neither(what));
        }
    }
}
