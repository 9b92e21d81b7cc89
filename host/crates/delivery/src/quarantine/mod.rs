//! The quarantine sets aside a message that breaks the session, or the process with it, whatever the cause.
//!
//! Such a message is offered again, here or at another host, and would break sessions forever. After a break,
//! one of the messages that the broker offers again may have been the cause, so all of them are suspects. They
//! are taken one at a time, and the message in hand is recorded before anything is done with it. If the session
//! breaks again, the record shows which message was alone in hand. It goes to the dead letters unhandled. See
//! [`record`] for the rules of evidence.
//!
//! An ordinary session does none of this. Its cost for each message is one look at a flag.

mod crash_mark;
mod file;
mod fingerprint;
mod record;
mod turn;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event::clock::now;
use jiff::Timestamp;
use state::file::apart;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::policy::Fault;
use crate::quarantine::file::RecordFile;
use crate::quarantine::fingerprint::Fingerprint;
pub(super) use crate::quarantine::record::DeadLetterForm;
use crate::quarantine::record::{Conviction, Record, SessionEnding};
pub(super) use crate::quarantine::turn::{Admission, Caution};

/// Name of the folder within the state folder of one plugin folder.
const FOLDER: &str = "quarantine";
/// Code of a quarantined dead letter.
pub const CODE: &str = "quarantined";
/// A session that lasts this long is not part of a series that a message causes.
const SESSION_LONG: Duration = Duration::from_mins(1);

/// Everything the host knows about messages that break sessions. Clones share it, and it outlives sessions.
#[derive(Clone)]
pub struct Quarantine(Arc<QuarantineInner>);

struct QuarantineInner {
    state: Mutex<QuarantineState>,
    /// A lock of its own, because writing waits for the disk.
    store: Mutex<Store>,
}

#[derive(Default)]
struct QuarantineState {
    record: Record,
    /// Number of changes to the record.
    changes: u64,
    /// Number of sessions so far. At most the last one is open. An ended session can no longer change the
    /// record.
    sessions: u64,
    is_open: bool,
}

#[derive(Default)]
struct Store {
    /// `None` if there is no state folder, or it is not writable. Then only this process remembers.
    file: Option<RecordFile>,
    /// Number of changes that the file holds.
    changes: u64,
    is_said: bool,
}

impl Quarantine {
    /// Opens the quarantine. `folder` is the state folder of the plugin folder, if there is one.
    pub fn open(folder: Option<&Path>) -> Self {
        let (file, record) = match folder.map(|folder| RecordFile::open(&folder.join(FOLDER), now())) {
            Some(Ok((file, record))) => (Some(file), record),
            Some(Err(error)) => {
                warn!(
                    "a message that ends the process cannot be set aside: cannot write to the folder {FOLDER:?} in the \
                     state folder: {error}; make it writable"
                );
                (None, Record::default())
            }
            None => (None, Record::default()),
        };
        let state = QuarantineState { record, ..QuarantineState::default() };
        let store = Store { file, ..Store::default() };
        Self(Arc::new(QuarantineInner { state: Mutex::new(state), store: Mutex::new(store) }))
    }

    /// Begins a session. After `stop`, no message waits for its turn any more.
    pub(super) fn begin(&self, stop: CancellationToken) -> Arc<Caution> {
        let mut state = self.state();
        (state.sessions, state.is_open) = (state.sessions + 1, true);
        let is_cautious = state.record.is_cautious(now());
        if is_cautious {
            warn!("a message may have broken an earlier session: those that come again are taken one at a time");
        }
        Arc::new(Caution::new(self.clone(), state.sessions, is_cautious, state.record.together(), stop))
    }

    /// Records that the session is lost. `by_message` is set if a message can cause that: the cause, as the
    /// subject and verb of a sentence.
    pub(super) fn lost(&self, by_message: Option<String>) {
        let ending = by_message.map_or(SessionEnding::Unexplained, SessionEnding::Broken);
        self.state().end(&ending);
        self.save();
    }

    /// Closes the quarantine when the host stops cleanly.
    pub fn close(&self) {
        let file = self.store().file.take();
        let mut state = self.state();
        state.end(&SessionEnding::Stopped);
        if let Some(file) = file {
            file.close(&state.record);
        }
    }

    /// Changes the record on behalf of a session, and returns once it is written. Returns `None` if the session
    /// is over.
    async fn change<T: Send + 'static>(
        &self,
        session: u64,
        change: impl FnOnce(&mut Record) -> T + Send + 'static,
    ) -> Option<T> {
        let changed = self.state().change(session, change)?;
        let quarantine = self.clone();
        apart(move || quarantine.save()).await;
        Some(changed)
    }

    fn look<T>(&self, look: impl FnOnce(&Record) -> T) -> T {
        look(&self.state().record)
    }

    /// Writes the current record, unless another caller has just done so.
    fn save(&self) {
        let mut store = self.store();
        let (record, changes) = {
            let state = self.state();
            if state.changes == store.changes {
                return;
            }
            (state.record.clone(), state.changes)
        };
        store.changes = changes;
        let Some(Err(error)) = store.file.as_ref().map(|file| file.write(&record)) else { return };
        if !store.is_said {
            warn!("cannot write down which messages are in hand; one that ends the process may not be found: {error}");
            store.is_said = true;
        }
    }

    fn state(&self) -> MutexGuard<'_, QuarantineState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the store. If both locks are needed, take this one before the state's.
    fn store(&self) -> MutexGuard<'_, Store> {
        self.0.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QuarantineState {
    fn change<T>(&mut self, session: u64, change: impl FnOnce(&mut Record) -> T) -> Option<T> {
        if !self.is_open || self.sessions != session {
            return None;
        }
        self.changes += 1;
        Some(change(&mut self.record))
    }

    fn end(&mut self, ending: &SessionEnding) {
        self.is_open = false;
        self.changes += 1;
        self.record.end(ending, now());
    }
}

/// The verdict on a message that is set aside.
pub(super) struct QuarantineVerdict {
    pub(super) form: DeadLetterForm,
    pub(super) fault: Fault,
}

impl QuarantineVerdict {
    fn new(conviction: Conviction, suspect: &Fingerprint) -> Self {
        let Conviction { form, cause, count, at } = conviction;
        let at = Timestamp::from_millisecond(at).map_or_else(|_| at.to_string(), |at| format!("{at:.0}"));
        let times = if count == 1 { "once".to_owned() } else { format!("{count} times") };
        let in_form = match form {
            DeadLetterForm::Whole => "",
            DeadLetterForm::PropertiesAsText => {
                "; its headers and properties are in the header x-original-properties, as text"
            }
            DeadLetterForm::BodyOnly => "; its headers and properties were left out",
        };
        let reason = format!(
            "it breaks the session: {times} after an earlier break this was the only message in hand, last at {at}: {cause}; \
             it was not handled again{in_form} (message {})",
            suspect.short()
        );
        Self { form, fault: Fault::new(CODE, reason) }
    }
}
