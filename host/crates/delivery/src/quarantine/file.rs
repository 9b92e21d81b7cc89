//! Stores a host's record in a file of its own in the state folder. A lock beside it shows that the host is
//! alive.
//!
//! The system drops the lock when the process ends, however that happens. The next host that starts takes over
//! the record of a host that is gone. Several hosts may share the folder. The record is not flushed to disk: a
//! process that dies does not need that, and no message causes a power failure.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use state::file::read_bounded;
use state::private_folder;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::quarantine::crash_mark::{self, Marking};
use crate::quarantine::record::{Record, SessionEnding};

/// File extension of a lock.
const LOCK: &str = "lock";
/// File extension of a record.
const RECORD: &str = "json";
/// Version of the record's format.
const VERSION: u32 = 1;
/// Maximum bytes of a record file. A record has up to 256 remembered suspects and the messages in hand, of some
/// 200 bytes each.
const RECORD_BYTES_MAX: u64 = 64 << 20;

/// The record file of this host.
#[derive(Debug)]
pub(super) struct RecordFile {
    lock: PathBuf,
    record: PathBuf,
    machine: Machine,
    // The order matters: the mark must be dropped first, so that it never writes to a closed file.
    _marking: Marking,
    _locked: File,
}

#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    version: u32,
    machine: Machine,
    /// Whether the host stopped cleanly and left this for the next one.
    #[serde(default)]
    is_stopped: bool,
    record: Record,
}

/// Facts that the kernel reports about the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Machine {
    /// Changes with each boot.
    boot_id: Option<String>,
    /// Number of processes that the system has killed for lack of memory.
    out_of_memory_kills: Option<u64>,
}

impl Machine {
    fn look() -> Self {
        let text = |path| fs::read_to_string(path).ok();
        Self {
            boot_id: text("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()),
            out_of_memory_kills: text("/proc/vmstat").and_then(|text| out_of_memory_kills(&text)),
        }
    }
}

fn out_of_memory_kills(vmstat: &str) -> Option<u64> {
    vmstat.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

/// Determines how a host that is gone ended.
fn ending(saved: &Saved, mark: Option<&str>, now: &Machine) -> SessionEnding {
    let (then, kills) = (&saved.machine, |machine: &Machine| machine.out_of_memory_kills.unwrap_or(0));
    match mark {
        _ if saved.is_stopped => SessionEnding::Stopped,
        Some(signal) => SessionEnding::Broken(format!("{signal} ended the host")),
        None if then.boot_id != now.boot_id => SessionEnding::MachineRestarted,
        None if kills(now) > kills(then) => SessionEnding::OutOfMemory,
        None => SessionEnding::Unexplained,
    }
}

impl RecordFile {
    /// Creates a record file in this folder, and takes over the records of hosts that are gone.
    pub(super) fn open(folder: &Path, now: i64) -> io::Result<(Self, Record)> {
        private_folder(folder)?;
        let name = Uuid::new_v4().to_string();
        let lock = folder.join(&name).with_extension(LOCK);
        let locked = OpenOptions::new().read(true).write(true).create_new(true).open(&lock)?;
        locked.lock()?;
        let machine = Machine::look();
        let mut record = Record::default();
        let mut taken_over = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != LOCK) || path == lock {
                continue;
            }
            match take_over(&path, &machine, now) {
                Ok(Some((left, held))) => {
                    record.adopt(left, now);
                    taken_over.push((path, held));
                }
                Ok(None) => {}
                Err(error) => warn!("cannot read what a host before left in {}: {error}", path.display()),
            }
        }
        let marking = crash_mark::into(&locked);
        let file = Self { record: lock.with_extension(RECORD), lock, machine, _marking: marking, _locked: locked };
        file.write(&record)?;
        // Remove the old records only after writing ours. Holding their locks until then keeps other hosts from
        // taking them over.
        for (lock, _held) in taken_over {
            let removed = fs::remove_file(lock.with_extension(RECORD)).and_then(|()| fs::remove_file(&lock));
            if let Err(error) = removed {
                debug!("cannot remove {}: {error}", lock.display());
            }
        }
        Ok((file, record))
    }

    pub(super) fn write(&self, record: &Record) -> io::Result<()> {
        self.put(record, false)
    }

    /// Closes the file of a host that stops cleanly. Leaves anything that the next host should know.
    pub(super) fn close(self, record: &Record) {
        let left = if record.is_worth_keeping() {
            self.put(record, true)
        } else {
            fs::remove_file(&self.record).and_then(|()| fs::remove_file(&self.lock))
        };
        if let Err(error) = left {
            debug!("cannot leave {} as it should be: {error}", self.record.display());
        }
    }

    fn put(&self, record: &Record, is_stopped: bool) -> io::Result<()> {
        let saved = Saved { version: VERSION, machine: self.machine.clone(), is_stopped, record: record.clone() };
        // Rename the file into place, so that a process that dies meanwhile leaves either the old file or the new
        // one.
        let new = self.record.with_extension("new");
        fs::write(&new, serde_json::to_vec(&saved)?)?;
        fs::rename(&new, &self.record)
    }
}

/// Reads the record of a host that is gone, and returns it with its lock. Returns `None` while the host is
/// alive.
fn take_over(lock: &Path, machine: &Machine, now: i64) -> io::Result<Option<(Record, File)>> {
    let mut held = match File::open(lock) {
        Ok(file) => file,
        // Another host has just taken it over.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if held.try_lock().is_err() {
        return Ok(None);
    }
    let mut mark = Vec::new();
    held.by_ref().take(1).read_to_end(&mut mark)?;
    let text = match read_bounded(&lock.with_extension(RECORD), RECORD_BYTES_MAX) {
        Ok(text) => text,
        // The host ended before it wrote a record.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some((Record::default(), held))),
        Err(error) => return Err(error),
    };
    // The record helps, but losing it is harmless. One that is damaged or of another version is ignored.
    let saved = serde_json::from_slice::<Saved>(&text).ok().filter(|saved| saved.version == VERSION);
    let Some(mut saved) = saved else { return Ok(Some((Record::default(), held))) };
    let ending = ending(&saved, crash_mark::read(&mark), machine);
    saved.record.end(&ending, now);
    Ok(Some((saved.record, held)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quarantine::fingerprint::Fingerprint;

    fn record_in_hand() -> Record {
        let mut record = Record::default();
        record.take(Fingerprint::of_number(1), true, false);
        record
    }

    fn saved(is_stopped: bool) -> Saved {
        let machine = Machine { boot_id: Some("a".to_owned()), out_of_memory_kills: Some(3) };
        Saved { version: VERSION, machine, is_stopped, record: record_in_hand() }
    }

    #[test]
    fn how_a_host_ended_is_told_by_what_it_left_and_by_the_machine() {
        let machine = |boot_id: &str, kills| Machine { boot_id: Some(boot_id.to_owned()), out_of_memory_kills: kills };
        for (mark, now, expected) in [
            (None, machine("a", Some(3)), SessionEnding::Unexplained),
            (None, machine("a", Some(4)), SessionEnding::OutOfMemory),
            (None, machine("a", None), SessionEnding::Unexplained),
            (None, machine("b", Some(9)), SessionEnding::MachineRestarted),
            (Some("SIGABRT"), machine("a", Some(3)), SessionEnding::Broken("SIGABRT ended the host".to_owned())),
        ] {
            assert_eq!(ending(&saved(false), mark, &now), expected, "{mark:?} {now:?}");
            assert_eq!(ending(&saved(true), mark, &now), SessionEnding::Stopped);
        }
        assert_eq!(out_of_memory_kills("oom_kill_x 9\npgfault 1\noom_kill 17\n"), Some(17));
        assert_eq!(out_of_memory_kills("pgfault 1\n"), None);
    }

    /// Releases the lock as the death of the host does. A child that another test is just starting may hold a copy of it
    /// for a moment.
    fn die(file: RecordFile) {
        let lock = file.lock.clone();
        drop(file);
        let is_free = || File::open(&lock).unwrap().try_lock().is_ok();
        testbed::eventually(std::time::Duration::from_secs(30), "the lock is free", is_free);
    }

    #[test]
    fn what_a_host_leaves_is_taken_over_once_it_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("quarantine");
        let files = || fs::read_dir(&folder).unwrap().count();
        let (first, record) = RecordFile::open(&folder, 0).unwrap();
        assert_eq!(record, Record::default());
        first.write(&record_in_hand()).unwrap();
        // Nobody takes the record while its host is alive.
        let (second, record) = RecordFile::open(&folder, 0).unwrap();
        assert_eq!((record, files()), (Record::default(), 4));
        second.close(&Record::default());
        assert_eq!(files(), 2);

        // Imitate a crash, which leaves the mark and no lock.
        fs::write(&first.lock, [u8::try_from(libc::SIGABRT).unwrap()]).unwrap();
        die(first);
        let (third, record) = RecordFile::open(&folder, 0).unwrap();
        assert!(record.conviction(&Fingerprint::of_number(1)).is_some());
        assert_eq!(files(), 2, "the first one's are gone");
        // A clean stop keeps the evidence.
        third.close(&record);
        let (fourth, record) = RecordFile::open(&folder, 0).unwrap();
        assert!(record.conviction(&Fingerprint::of_number(1)).is_some());

        // An unreadable record is ignored.
        fs::write(&fourth.record, "{").unwrap();
        die(fourth);
        let (fifth, record) = RecordFile::open(&folder, 0).unwrap();
        assert_eq!(record, Record::default());
        fifth.close(&record);
        assert_eq!(files(), 0);
    }
}
