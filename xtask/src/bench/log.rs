//! Follows a host's growing log. It reads only new text, and only when that does not disturb the measurement.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use jiff::Timestamp;

/// A file that another process writes.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    read: u64,
    /// The beginning of an incomplete line.
    begun: Vec<u8>,
}

impl LogFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, read: 0, begun: Vec::new() }
    }

    /// Returns the file's size, a cheap check for growth.
    pub(super) fn size(&self) -> io::Result<u64> {
        Ok(fs::metadata(&self.path)?.len())
    }

    /// Returns the number of bytes read so far.
    pub(super) fn read(&self) -> u64 {
        self.read
    }

    /// Returns the lines that were completed since the last call.
    pub(super) fn new_lines(&mut self) -> io::Result<Vec<String>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut new = std::mem::take(&mut self.begun);
        self.read += file.read_to_end(&mut new)? as u64;
        let whole = new.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.begun = new.split_off(whole);
        Ok(String::from_utf8_lossy(&new).lines().map(str::to_owned).collect())
    }
}

/// Returns when a plugin wrote this line, or `None` if the host did. The log must be in the human format.
pub(super) fn spoken_at(line: &str) -> Option<Timestamp> {
    let mut words = line.splitn(4, ' ').filter(|word| !word.is_empty());
    let (at, _level, name) = (words.next()?, words.next()?, words.next()?);
    name.starts_with('[').then(|| at.parse().ok())?
}

/// Counts the plugins' lines.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct LineCount {
    pub(super) count: usize,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
}

impl LineCount {
    pub(super) fn add(&mut self, lines: &[String]) {
        let mut times = lines.iter().filter_map(|line| spoken_at(line));
        if let Some(first) = times.next() {
            self.count += 1;
            self.first.get_or_insert(first);
            self.last = Some(first);
        }
        for time in times {
            self.count += 1;
            self.last = Some(time);
        }
    }

    /// Returns the seconds from the first line to the last.
    pub(super) fn seconds(&self) -> f64 {
        let (Some(first), Some(last)) = (self.first, self.last) else { return 0.0 };
        last.duration_since(first).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn only_what_is_new_and_whole_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut file = File::create(&path).unwrap();
        let mut log = LogFile::new(path);
        let mut check = |written: &str, lines: &[&str]| {
            file.write_all(written.as_bytes()).unwrap();
            assert_eq!(log.new_lines().unwrap(), lines, "{written:?}");
        };
        check("", &[]);
        check("one\ntw", &["one"]);
        check("", &[]);
        check("o\nthree\n", &["two", "three"]);
        check("\nfive", &[""]);
        check("\n", &["five"]);
        assert_eq!(log.size().unwrap(), 20);
    }

    #[test]
    fn a_plugins_lines_are_told_from_the_hosts() {
        let at = |line| spoken_at(line).map(|at| at.to_string());
        let time = Some("2026-11-24T12:00:00.123Z".to_owned());
        assert_eq!(at("2026-11-24T12:00:00.123Z INFO  [logger] OrderCreated 4711: product [x]"), time);
        assert_eq!(at("2026-11-24T12:00:00.123Z ERROR [logger-2] no"), time);
        assert_eq!(at("2026-11-24T12:00:00.123Z INFO  ready: consuming \"notifications\" queue=[x]"), None);
        assert_eq!(at(""), None);
        assert_eq!(at("a b [c] d"), None);
    }

    #[test]
    fn a_tally_goes_from_the_first_line_to_the_last() {
        let line = |second: &str| format!("2026-11-24T12:00:{second}Z INFO  [logger] x");
        let mut tally = LineCount::default();
        tally.add(&["2026-11-24T11:00:00.000Z INFO  ready: x".to_owned()]);
        assert_eq!((tally.count, tally.seconds()), (0, 0.0));
        tally.add(&[line("01.500"), line("02.000")]);
        tally.add(&[line("05.000")]);
        assert_eq!((tally.count, tally.seconds()), (3, 3.5));
    }
}
