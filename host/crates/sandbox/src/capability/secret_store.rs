//! A vault holds the values of one plugin's secrets, which its toml grants, and hides them in all that leaves the plugin.
//!
//! There is one for each version of a plugin; it is filled as the plugin is loaded, and a file that has changed is read
//! again, so that a secret may be rotated while the host runs. No other plugin's vault is within reach of a guest.

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

/// How old what is known of a file may be.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Values that a secret had before, which are hidden as well: an attempt or an answer may still have one.
const OLD_VALUES_MAX: usize = 4;
/// Of a file's permissions: anybody may read it.
const READABLE_BY_ALL: u32 = 0o004;

/// Why a secret has no value.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct NoValue {
    problem: String,
    /// It lies in a file, which may be there a moment later. The environment does not change while the host runs.
    pub(crate) may_come: bool,
}

/// The secrets of one version of a plugin.
#[derive(Debug, Default)]
pub struct SecretStore {
    plugin: String,
    secrets: Vec<Arc<Held>>,
    redactor: RwLock<Arc<Redactor>>,
}

/// One secret, and its value now.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) grant: SecretGrant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    value: Arc<SecretValue>,
    /// The last one first.
    old: VecDeque<Arc<SecretValue>>,
    /// Of the file that the value is from.
    stamp: Option<Stamp>,
    looked: Instant,
    /// It was said that a new value cannot be read.
    is_stale: bool,
}

impl SecretStore {
    /// Reads the values, which must all be there, unless they may be made up because nothing is sent. The error is one
    /// sentence. Beside the vault: what the operator might want to change, in sentences.
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
                let held = match Held::read(&grant) {
                    Ok(held) => held,
                    Err(problem) if may_make_up => {
                        warnings.push(format!("{problem}; another one is made up, as nothing is sent"));
                        Held::made_up(&grant).map_err(|problem| anyhow!(problem))?
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

    /// One with this secret.
    #[cfg(test)]
    pub(super) fn of(name: &str, value: &str) -> Self {
        let source = config::SecretSource::Env(String::new());
        let grant =
            SecretGrant { name: name.to_owned(), source, to: Vec::new(), reveal: false, place: "p.toml:1".to_owned() };
        let value = SecretValue::new(value.as_bytes().to_vec()).unwrap();
        let mut secret_store =
            Self { secrets: vec![Arc::new(Held::with(&grant, Arc::new(value), None))], ..Self::default() };
        secret_store.redactor = RwLock::new(secret_store.redactor_with(None));
        secret_store
    }

    /// The secret of this name, with its value as it is now.
    pub(super) async fn take(self: &Arc<Self>, name: &str) -> Option<(Arc<Held>, Arc<SecretValue>)> {
        let held = self.secrets.iter().find(|held| held.grant.name == name)?;
        if held.is_due() {
            let (secret_store, held) = (Arc::clone(self), Arc::clone(held));
            // All of it apart, so that it is done even if who asked is gone.
            apart(move || secret_store.renew(&held)).await;
        }
        let value = Arc::clone(&held.state().value);
        Some((Arc::clone(held), value))
    }

    /// Looks for another value of a secret. Nobody can have it before it is hidden.
    fn renew(&self, held: &Held) {
        let Some(value) = held.look() else { return };
        let mut redactor = self.redactor.write().unwrap_or_else(PoisonError::into_inner);
        *redactor = self.redactor_with(Some((&held.grant.name, &value)));
        held.state().replace(value);
        info!(plugin = self.plugin, "the secret {} has a new value", held.grant.name);
    }

    /// The text with the secrets' names instead of their values.
    pub fn redact(&self, text: String) -> String {
        if self.secrets.is_empty() {
            return text;
        }
        self.redactor().redact_text(text)
    }

    /// The bytes with the secrets' names instead of their values.
    pub(crate) fn redact_bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        if self.secrets.is_empty() { Cow::Borrowed(bytes) } else { self.redactor().redact(bytes) }
    }

    /// The same of bytes that need not be copied if there is nothing to replace.
    pub(crate) fn redact_all(&self, bytes: Vec<u8>) -> Vec<u8> {
        match self.redact_bytes(&bytes) {
            Cow::Borrowed(_) => bytes,
            Cow::Owned(redacted) => redacted,
        }
    }

    /// Without any there is nothing to hide.
    pub(crate) fn has_secrets(&self) -> bool {
        !self.secrets.is_empty()
    }

    /// Knows the values that there are now.
    pub(super) fn redactor(&self) -> Arc<Redactor> {
        Arc::clone(&self.redactor.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Knows the values that there are, and one more.
    fn redactor_with(&self, coming: Option<(&str, &SecretValue)>) -> Arc<Redactor> {
        let values: Vec<_> = self.secrets.iter().flat_map(|held| held.values()).collect();
        let values = coming.into_iter().chain(values.iter().map(|(name, value)| (*name, &**value)));
        Arc::new(Redactor::new(values))
    }
}

impl State {
    fn replace(&mut self, value: Arc<SecretValue>) {
        let old = std::mem::replace(&mut self.value, value);
        self.old.push_front(old);
        self.old.truncate(OLD_VALUES_MAX);
    }
}

impl Held {
    fn read(grant: &SecretGrant) -> Result<Self, String> {
        let failed = |problem: String| {
            let SecretGrant { name, source, place, .. } = grant;
            format!("{place}: secrets.{name}: its value cannot be had from {source}: {problem}")
        };
        // Before it is read: what is written afterwards is seen to be new.
        let stamp = path_of(&grant.source).map_err(failed)?.and_then(|path| Stamp::at(&path));
        let value = Arc::new(SecretValue::read(&grant.source).map_err(failed)?);
        Ok(Self::with(grant, value, stamp))
    }

    fn with(grant: &SecretGrant, value: Arc<SecretValue>, stamp: Option<Stamp>) -> Self {
        let state = State { value, old: VecDeque::new(), stamp, looked: Instant::now(), is_stale: false };
        Self { grant: grant.clone(), state: Mutex::new(state) }
    }

    /// A value that stands in for one that is not there.
    fn made_up(grant: &SecretGrant) -> Result<Self, String> {
        let value = SecretValue::new(format!("made-up-value-of-{}", grant.name).into_bytes())?;
        Ok(Self::with(grant, Arc::new(value), None))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn values(&self) -> Vec<(&str, Arc<SecretValue>)> {
        let state = self.state();
        let values = [&state.value].into_iter().chain(&state.old);
        values.map(|value| (self.grant.name.as_str(), Arc::clone(value))).collect()
    }

    /// Whether its file must be looked at again; whoever is told so does it.
    fn is_due(&self) -> bool {
        let mut state = self.state();
        if state.stamp.is_none() || state.looked.elapsed() < LOOK_EVERY {
            return false;
        }
        state.looked = Instant::now();
        true
    }

    /// Looks at the file again; the value in it, if that is another one. While that cannot be read, the old one is used.
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

    /// What stands instead of its value.
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

        // While it is gone or empty, the old one is used.
        fs::remove_file(&path).unwrap();
        secret_store.secrets[0].look();
        assert!(secret_store.secrets[0].state().is_stale);
        assert_eq!(now().await, "second value");
        fs::write(&path, "").unwrap();
        secret_store.secrets[0].look();
        assert_eq!(now().await, "second value");
        fs::write(&path, "third value").unwrap();
        // Nobody has it before it is hidden.
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
