//! The follower reads what is new in the journal, once for all who listen, and only while somebody does.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use journal::Subjects;
use journal::{Reader, Record, StoreError};
use state::file::apart;
use tokio::sync::{Notify, broadcast};
use tracing::debug;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Looks that who listens may fall behind.
const BEHIND_MAX: usize = 16;

/// What is new, with the subject of each.
pub(super) type News = Arc<Vec<(Record, Option<String>)>>;

pub(super) struct Follower {
    news: broadcast::Sender<News>,
    /// The place of what was read last, while somebody listens.
    after: Mutex<Option<i64>>,
    begun: Notify,
}

impl Follower {
    pub(super) fn new() -> Self {
        Self { news: broadcast::Sender::new(BEHIND_MAX), after: Mutex::default(), begun: Notify::new() }
    }

    /// What is written from now on.
    pub(super) async fn listen(self: &Arc<Self>, file: &Path) -> Result<broadcast::Receiver<News>, StoreError> {
        let (own, file) = (Arc::clone(self), file.to_owned());
        apart(move || {
            let mut after = own.after.lock().unwrap_or_else(PoisonError::into_inner);
            if after.is_none() {
                *after = Some(match Reader::open(&file) {
                    Ok(reader) => reader.end()?,
                    // The host has just begun.
                    Err(StoreError::Absent(_)) => 0,
                    Err(error) => return Err(error),
                });
                own.begun.notify_one();
            }
            Ok(own.news.subscribe())
        })
        .await
    }

    /// Works for as long as it is polled.
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

    /// Whether somebody still listens.
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
            // The last one who listened may just have gone.
            let _ = self.news.send(Arc::new(news));
        }
        true
    }
}
