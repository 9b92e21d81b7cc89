//! The quarantine sets a message aside that breaks the session, or the process with it, whatever the cause.
//!
//! A message that does so comes again, here or at another host, and would do so for ever. After a break the messages that
//! the broker offers again are suspects, for one of them may have been the cause. They are taken one at a time, and who
//! is in hand is written down before anything is done with it. If the session breaks again, it is known who was alone in
//! hand: that one goes to the dead letters unhandled. See [`record`] for what counts as evidence.
//!
//! In an ordinary session nothing of this happens: what it costs a message is to look at a flag.

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
pub(super) use crate::quarantine::record::Form;
use crate::quarantine::record::{Conviction, Ending, Record};
pub(super) use crate::quarantine::turn::{Admission, Caution};

/// The folder's name in the state of one plugin folder.
const FOLDER: &str = "quarantine";
/// The code of a dead letter.
pub const CODE: &str = "quarantined";
/// A session that lasts for so long is no part of a series that a message causes.
const SESSION_LONG: Duration = Duration::from_mins(1);

/// The host's knowledge of messages that break sessions. Clones share it, and it outlives sessions.
#[derive(Clone)]
pub struct Quarantine(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Apart from the state, for whoever writes waits for a disk.
    store: Mutex<Store>,
}

#[derive(Default)]
struct State {
    record: Record,
    /// How often it was changed.
    changes: u64,
    /// Sessions that there were. The last is open, or none is; one that is over says nothing more.
    sessions: u64,
    is_open: bool,
}

#[derive(Default)]
struct Store {
    /// `None` where there is no state folder, or it cannot be written to: then only this process remembers.
    file: Option<RecordFile>,
    /// How many changes the file holds.
    changes: u64,
    is_said: bool,
}

impl Quarantine {
    /// `folder`: what belongs to the plugin folder in the host's own, if there is one.
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
        let state = State { record, ..State::default() };
        let store = Store { file, ..Store::default() };
        Self(Arc::new(Shared { state: Mutex::new(state), store: Mutex::new(store) }))
    }

    /// A session begins. `stop`: nothing waits for its turn any more.
    pub(super) fn begin(&self, stop: CancellationToken) -> Arc<Caution> {
        let mut state = self.state();
        (state.sessions, state.is_open) = (state.sessions + 1, true);
        let is_cautious = state.record.is_cautious(now());
        if is_cautious {
            warn!("a message may have broken an earlier session: those that come again are taken one at a time");
        }
        Arc::new(Caution::new(self.clone(), state.sessions, is_cautious, state.record.together(), stop))
    }

    /// The session is lost. `by_message`: in a way that a message can cause; which, as the subject and verb of a sentence.
    pub(super) fn lost(&self, by_message: Option<String>) {
        let ending = by_message.map_or(Ending::Unexplained, Ending::Broken);
        self.state().end(&ending);
        self.save();
    }

    /// The host stops in good order.
    pub fn close(&self) {
        let file = self.store().file.take();
        let mut state = self.state();
        state.end(&Ending::Stopped);
        if let Some(file) = file {
            file.close(&state.record);
        }
    }

    /// Changes the record on behalf of a session, and has it written before it returns. `None`: the session is over.
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

    /// Writes the record as it is now, unless somebody else has just done that.
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locked before the state, where both are.
    fn store(&self) -> MutexGuard<'_, Store> {
        self.0.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn change<T>(&mut self, session: u64, change: impl FnOnce(&mut Record) -> T) -> Option<T> {
        if !self.is_open || self.sessions != session {
            return None;
        }
        self.changes += 1;
        Some(change(&mut self.record))
    }

    fn end(&mut self, ending: &Ending) {
        self.is_open = false;
        self.changes += 1;
        self.record.end(ending, now());
    }
}

/// The verdict on a message that is set aside.
pub(super) struct Verdict {
    pub(super) form: Form,
    pub(super) fault: Fault,
}

impl Verdict {
    fn new(conviction: Conviction, suspect: &Fingerprint) -> Self {
        let Conviction { form, cause, count, at } = conviction;
        let at = Timestamp::from_millisecond(at).map_or_else(|_| at.to_string(), |at| format!("{at:.0}"));
        let times = if count == 1 { "once".to_owned() } else { format!("{count} times") };
        let in_form = match form {
            Form::Whole => "",
            Form::PropertiesAsText => "; its headers and properties are in the header x-original-properties, as text",
            Form::BodyOnly => "; its headers and properties were left out",
        };
        let reason = format!(
            "it breaks the session: {times} after an earlier break this was the only message in hand, last at {at}: {cause}; \
             it was not handled again{in_form} (message {})",
            suspect.short()
        );
        Self { form, fault: Fault::new(CODE, reason) }
    }
}
