//! Follows the journal: reads new records once for all listeners, and only while there are any.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use journal::Subjects;
use journal::{Reader, Record, StoreError};
use state::file::apart;
use tokio::sync::{Notify, broadcast};
use tracing::debug;

/// Poll interval.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Number of polls that a listener may fall behind.
const BEHIND_MAX: usize = 16;

/// New records, each with its event's subject.
pub(super) type NewRecords = Arc<Vec<(Record, Option<String>)>>;

pub(super) struct Follower {
    news: broadcast::Sender<NewRecords>,
    /// Position of the last record read; `None` while nobody listens.
    after: Mutex<Option<i64>>,
    begun: Notify,
}

impl Follower {
    pub(super) fn new() -> Self {
        Self { news: broadcast::Sender::new(BEHIND_MAX), after: Mutex::default(), begun: Notify::new() }
    }

    /// Subscribes to records written from now on.
    pub(super) async fn listen(self: &Arc<Self>, file: &Path) -> Result<broadcast::Receiver<NewRecords>, StoreError> {
        let (own, file) = (Arc::clone(self), file.to_owned());
        apart(move || {
            let mut after = own.after.lock().unwrap_or_else(PoisonError::into_inner);
            if after.is_none() {
                *after = Some(match Reader::open(&file) {
                    Ok(reader) => reader.end()?,
                    // The host has just started, and the journal has no file yet.
                    Err(StoreError::Absent(_)) => 0,
                    Err(error) => return Err(error),
                });
                own.begun.notify_one();
            }
            Ok(own.news.subscribe())
        })
        .await
    }

    /// Polls the journal for as long as the future is polled.
    pub(super) async fn run(self: Arc<Self>, file: &Path) {
        loop {
            self.begun.notified().await;
            let mut subjects = Subjects::default();
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let (own, file) = (Arc::clone(&self), file.to_owned());
                let (goes_on, returned) = apart(move || (own.look(&file, &mut subjects), subjects)).await;
                if !goes_on {
                    break;
                }
                subjects = returned;
            }
        }
    }

    /// Reads the new records. Returns whether anybody still listens.
    fn look(&self, file: &Path, subjects: &mut Subjects) -> bool {
        let mut after = self.after.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(from) = *after else { return false };
        if self.news.receiver_count() == 0 {
            *after = None;
            return false;
        }
        let mut news = Vec::new();
        let read = Reader::open(file).and_then(|reader| {
            reader.since(0, from, |record| {
                subjects.learn(&record);
                let subject = subjects.of(&record).map(str::to_owned);
                news.push((record, subject));
            })
        });
        match read {
            Ok(last) => *after = Some(last),
            Err(error) => debug!(%error, "cannot read what is new in the journal"),
        }
        if !news.is_empty() {
            // Sending fails if the last listener has just gone, which does not matter.
            let _ = self.news.send(Arc::new(news));
        }
        true
    }
}
