//! The secret store holds the values of one plugin's secrets, as its toml grants them, and hides them in everything
//! that leaves the plugin.
//!
//! Each version of a plugin has its own, filled when the plugin is loaded. A changed file is read again, so a secret
//! can be rotated while the host runs. A guest cannot reach the secret store of another plugin.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use config::SecretGrant;
use outbound::redact::{REDACTED_BYTES_MIN, Redactor, instead_of};
use outbound::secret_value::{SecretValue, Stamp, path_of};
use state::file::apart;
use tracing::{info, warn};

/// How often a secret's file is checked for changes.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Former values of a secret that are hidden as well: an attempt or a response may still contain one.
const OLD_VALUES_MAX: usize = 4;
/// The permission bit that lets anybody read a file.
const READABLE_BY_ALL: u32 = 0o004;

/// Why a secret has no value.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct NoValue {
    problem: String,
    /// The value comes from a file, which may appear later. The environment does not change while the host runs.
    pub(crate) may_come: bool,
}

/// The secrets of one version of a plugin.
#[derive(Debug, Default)]
pub struct SecretStore {
    plugin: String,
    secrets: Vec<Arc<StoredSecret>>,
    redactor: RwLock<Arc<Redactor>>,
}

/// One secret and its current value.
#[derive(Debug)]
pub(super) struct StoredSecret {
    pub(super) grant: SecretGrant,
    state: Mutex<SecretState>,
}

#[derive(Debug)]
struct SecretState {
    value: Arc<SecretValue>,
    /// Former values, latest first.
    old: VecDeque<Arc<SecretValue>>,
    /// The stamp of the file that the value came from.
    stamp: Option<Stamp>,
    looked: Instant,
    /// Whether a warning said that the new value cannot be read.
    is_stale: bool,
}

impl SecretStore {
    /// Reads the values. All must exist, unless they may be made up because nothing is sent. The error is one
    /// sentence. Also returns sentences about things the operator might want to change.
    pub async fn open(
        plugin: &str,
        grants: &[SecretGrant],
        may_make_up: bool,
    ) -> anyhow::Result<(Arc<Self>, Vec<String>)> {
        if grants.is_empty() {
            return Ok((Arc::default(), Vec::new()));
        }
        let (plugin, grants) = (plugin.to_owned(), grants.to_vec());
        apart(move || {
            let (mut secrets, mut warnings) = (Vec::new(), Vec::new());
            for grant in grants {
                let held = match StoredSecret::read(&grant) {
                    Ok(held) => held,
                    Err(problem) if may_make_up => {
                        warnings.push(format!("{problem}; another one is made up, as nothing is sent"));
                        StoredSecret::made_up(&grant).map_err(|problem| anyhow!(problem))?
                    }
                    Err(problem) => {
                        let may_come = path_of(&grant.source).is_ok_and(|path| path.is_some());
                        bail!(NoValue { problem, may_come });
                    }
                };
                warnings.extend(held.warnings());
                secrets.push(Arc::new(held));
            }
            let mut secret_store = Self { plugin, secrets, redactor: RwLock::default() };
            secret_store.redactor = RwLock::new(secret_store.redactor_with(None));
            Ok((Arc::new(secret_store), warnings))
        })
        .await
    }

    /// Creates a store with this secret.
    #[cfg(test)]
    pub(super) fn of(name: &str, value: &str) -> Self {
        let source = config::SecretSource::Env(String::new());
        let grant =
            SecretGrant { name: name.to_owned(), source, to: Vec::new(), reveal: false, place: "p.toml:1".to_owned() };
        let value = SecretValue::new(value.as_bytes().to_vec()).unwrap();
        let mut secret_store =
            Self { secrets: vec![Arc::new(StoredSecret::with(&grant, Arc::new(value), None))], ..Self::default() };
        secret_store.redactor = RwLock::new(secret_store.redactor_with(None));
        secret_store
    }

    /// Returns the secret with this name, and its current value.
    pub(super) async fn take(self: &Arc<Self>, name: &str) -> Option<(Arc<StoredSecret>, Arc<SecretValue>)> {
        let held = self.secrets.iter().find(|held| held.grant.name == name)?;
        if held.is_due() {
            let (secret_store, held) = (Arc::clone(self), Arc::clone(held));
            // The whole renewal runs in a thread of its own, so that it completes even if the caller is gone.
            apart(move || secret_store.renew(&held)).await;
        }
        let value = Arc::clone(&held.state().value);
        Some((Arc::clone(held), value))
    }

    /// Checks for a new value. It is hidden before anybody can get it.
    fn renew(&self, held: &StoredSecret) {
        let Some(value) = held.look() else { return };
        let mut redactor = self.redactor.write().unwrap_or_else(PoisonError::into_inner);
        *redactor = self.redactor_with(Some((&held.grant.name, &value)));
        held.state().replace(value);
        info!(plugin = self.plugin, "the secret {} has a new value", held.grant.name);
    }

    /// Returns the text with secrets replaced by their names.
    pub fn redact(&self, text: String) -> String {
        if self.secrets.is_empty() {
            return text;
        }
        self.redactor().redact_text(text)
    }

    /// Returns the bytes with secrets replaced by their names.
    pub(crate) fn redact_bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        if self.secrets.is_empty() { Cow::Borrowed(bytes) } else { self.redactor().redact(bytes) }
    }

    /// Like [`Self::redact_bytes`], without a copy if there is nothing to replace.
    pub(crate) fn redact_all(&self, bytes: Vec<u8>) -> Vec<u8> {
        match self.redact_bytes(&bytes) {
            Cow::Borrowed(_) => bytes,
            Cow::Owned(redacted) => redacted,
        }
    }

    /// Returns whether there is anything to hide.
    pub(crate) fn has_secrets(&self) -> bool {
        !self.secrets.is_empty()
    }

    /// Returns a redactor for the current and former values.
    pub(super) fn redactor(&self) -> Arc<Redactor> {
        Arc::clone(&self.redactor.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Creates a redactor for these values and one more.
    fn redactor_with(&self, coming: Option<(&str, &SecretValue)>) -> Arc<Redactor> {
        let values: Vec<_> = self.secrets.iter().flat_map(|held| held.values()).collect();
        let values = coming.into_iter().chain(values.iter().map(|(name, value)| (*name, &**value)));
        Arc::new(Redactor::new(values))
    }
}

impl SecretState {
    fn replace(&mut self, value: Arc<SecretValue>) {
        let old = std::mem::replace(&mut self.value, value);
        self.old.push_front(old);
        self.old.truncate(OLD_VALUES_MAX);
    }
}

impl StoredSecret {
    fn read(grant: &SecretGrant) -> Result<Self, String> {
        let failed = |problem: String| {
            let SecretGrant { name, source, place, .. } = grant;
            format!("{place}: secrets.{name}: its value cannot be had from {source}: {problem}")
        };
        // Take the stamp before reading, so that a later write is noticed.
        let stamp = path_of(&grant.source).map_err(failed)?.and_then(|path| Stamp::at(&path));
        let value = Arc::new(SecretValue::read(&grant.source).map_err(failed)?);
        Ok(Self::with(grant, value, stamp))
    }

    fn with(grant: &SecretGrant, value: Arc<SecretValue>, stamp: Option<Stamp>) -> Self {
        let state = SecretState { value, old: VecDeque::new(), stamp, looked: Instant::now(), is_stale: false };
        Self { grant: grant.clone(), state: Mutex::new(state) }
    }

    /// Creates a placeholder value for one that is missing.
    fn made_up(grant: &SecretGrant) -> Result<Self, String> {
        let value = SecretValue::new(format!("made-up-value-of-{}", grant.name).into_bytes())?;
        Ok(Self::with(grant, Arc::new(value), None))
    }

    fn state(&self) -> MutexGuard<'_, SecretState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn values(&self) -> Vec<(&str, Arc<SecretValue>)> {
        let state = self.state();
        let values = [&state.value].into_iter().chain(&state.old);
        values.map(|value| (self.grant.name.as_str(), Arc::clone(value))).collect()
    }

    /// Returns whether the file must be checked again. A caller that gets `true` does so.
    fn is_due(&self) -> bool {
        let mut state = self.state();
        if state.stamp.is_none() || state.looked.elapsed() < LOOK_EVERY {
            return false;
        }
        state.looked = Instant::now();
        true
    }

    /// Checks the file, and returns its value if it is new. While the file cannot be read, the old value stays in
    /// use.
    fn look(&self) -> Option<Arc<SecretValue>> {
        let Ok(Some(path)) = path_of(&self.grant.source) else { return None };
        let stamp = Stamp::at(&path);
        if stamp.is_some() && stamp == self.state().stamp {
            return None;
        }
        let read = SecretValue::read(&self.grant.source);
        let mut state = self.state();
        match read {
            Ok(value) => {
                (state.stamp, state.is_stale) = (stamp.or(state.stamp), false);
                (value != *state.value).then(|| Arc::new(value))
            }
            Err(problem) => {
                if !std::mem::replace(&mut state.is_stale, true) {
                    let SecretGrant { name, source, place, .. } = &self.grant;
                    warn!(
                        "{place}: secrets.{name}: its new value cannot be had from {source}, and the old one is used: {problem}"
                    );
                }
                None
            }
        }
    }

    fn warnings(&self) -> Vec<String> {
        let SecretGrant { name, source, place, .. } = &self.grant;
        let mut warnings = Vec::new();
        let bytes = self.state().value.bytes().len();
        if bytes < REDACTED_BYTES_MIN {
            warnings.push(format!(
                "{place}: secrets.{name}: a value of {bytes} bytes can be guessed, and is too short to be hidden in the log: \
                 use a longer one"
            ));
        }
        let mode = path_of(source).ok().flatten().and_then(|path| fs::metadata(path).ok()).map(|file| file.mode());
        if mode.is_some_and(|mode| mode & READABLE_BY_ALL != 0) {
            warnings.push(format!(
                "{place}: secrets.{name}: everybody on this machine may read {source}: take that right away, by chmod o-r"
            ));
        }
        warnings
    }

    /// Returns the text that replaces the value.
    pub(super) fn instead(&self) -> String {
        instead_of(&self.grant.name)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use config::SecretSource;
    use testbed::eventually;

    use super::*;

    fn grant(source: SecretSource) -> SecretGrant {
        SecretGrant { name: "token".to_owned(), source, to: Vec::new(), reveal: false, place: "p.toml:3".to_owned() }
    }

    fn file(path: &Path) -> SecretGrant {
        grant(SecretSource::File(path.to_owned()))
    }

    async fn problem(source: SecretSource) -> String {
        SecretStore::open("p", &[grant(source)], false).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn a_value_that_is_not_there_is_told_with_its_place_and_source() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let of_file = |problem: &str| {
            let path = path.display();
            format!("p.toml:3: secrets.token: its value cannot be had from the file {path}: {problem}")
        };
        let source = SecretSource::File(path.clone());
        assert_eq!(problem(source.clone()).await, of_file(&format!("there is no file {}", path.display())));
        fs::write(&path, "\n").unwrap();
        assert_eq!(problem(source.clone()).await, of_file("it is empty"));
        fs::write(&path, vec![b'x'; (64 << 10) + 1]).unwrap();
        let told = problem(source).await;
        assert!(told.ends_with("it has more than 64 KiB") && !told.contains("xxx"), "{told}");
        assert_eq!(
            problem(SecretSource::Env("NOTIFY_TEST_NO_SUCH_VARIABLE".to_owned())).await,
            "p.toml:3: secrets.token: its value cannot be had from the environment variable NOTIFY_TEST_NO_SUCH_VARIABLE: it \
             is not set"
        );
    }

    #[tokio::test]
    async fn a_file_that_changed_is_read_again_and_its_old_value_stays_hidden() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "first value\n").unwrap();
        let (secret_store, _) = SecretStore::open("p", &[file(&path)], false).await.unwrap();
        let now = async || secret_store.take("token").await.unwrap().1.text().unwrap().to_owned();
        assert_eq!(now().await, "first value");
        let becomes = async |expected: &str| {
            while now().await != expected {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let soon = Duration::from_secs(20);

        let next = folder.path().join("next");
        fs::write(&next, "second value").unwrap();
        fs::rename(&next, &path).unwrap();
        tokio::time::timeout(soon, becomes("second value")).await.unwrap();

        // While the file is missing or empty, the old value is used.
        fs::remove_file(&path).unwrap();
        secret_store.secrets[0].look();
        assert!(secret_store.secrets[0].state().is_stale);
        assert_eq!(now().await, "second value");
        fs::write(&path, "").unwrap();
        secret_store.secrets[0].look();
        assert_eq!(now().await, "second value");
        fs::write(&path, "third value").unwrap();
        // The value is not handed out before it is hidden.
        assert_eq!(secret_store.secrets[0].look().unwrap().text(), Some("third value"));
        assert_eq!(secret_store.secrets[0].state().value.text(), Some("second value"));
        secret_store.secrets[0].state().stamp = None;
        secret_store.renew(&secret_store.secrets[0]);
        assert_eq!(secret_store.redact("third value".to_owned()), "[secret token]");
        tokio::time::timeout(soon, becomes("third value")).await.unwrap();
        assert!(!secret_store.secrets[0].state().is_stale);

        let text = "first value, second value, third value".to_owned();
        eventually(soon, "the redactor knows them", || {
            secret_store.redact(text.clone()) == "[secret token], [secret token], [secret token]"
        });
    }

    #[tokio::test]
    async fn what_the_operator_should_change_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "short").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let (secret_store, warnings) = SecretStore::open("p", &[file(&path)], false).await.unwrap();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].starts_with("p.toml:3: secrets.token: a value of 5 bytes can be guessed"), "{warnings:?}");
        assert!(warnings[1].contains("everybody on this machine may read the file"), "{warnings:?}");
        assert!(!format!("{secret_store:?}").contains("short"));
        fs::write(&path, "long enough").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(SecretStore::open("p", &[file(&path)], false).await.unwrap().1, Vec::<String>::new());
    }
}
