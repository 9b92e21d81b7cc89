//! The file's layout, and how it is opened: new files are created, old ones checked, foreign ones refused.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

/// Application id that marks the file as ours
/// (<https://www.sqlite.org/pragma.html#pragma_application_id>): "ntfy" in ASCII.
const APPLICATION_ID: i32 = 0x6e74_6679;
/// Version of the layout below.
const LAYOUT_VERSION: i32 = 1;
/// Shortest and longest pause between two attempts to start a transaction while another process writes.
/// Most of our transactions take a fraction of a millisecond, those that wait for the disk a few.
const BUSY_INTERVAL_MIN: Duration = Duration::from_micros(100);
const BUSY_INTERVAL_MAX: Duration = Duration::from_millis(1);
/// Maximum total wait for another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum bytes of the `-wal` file that remain after a checkpoint.
const WAL_BYTES_KEPT: u32 = 64 << 20;

/// The content is separate from the small row that changes hands, so that claiming a message of 16
/// MiB does not write it again. The indexes are partial, so that finding the next message costs the
/// same however many others are waiting, delayed or with consumers.
const LAYOUT: &str = "
    CREATE TABLE exchange (
        name TEXT PRIMARY KEY,
        kind TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE queue (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
    ) STRICT;

    CREATE TABLE binding (
        exchange TEXT NOT NULL REFERENCES exchange,
        routing_key TEXT NOT NULL,
        queue INTEGER NOT NULL REFERENCES queue,
        PRIMARY KEY (exchange, routing_key, queue)
    ) STRICT, WITHOUT ROWID;

    -- `presence` names the lock file that its process holds while it lives.
    CREATE TABLE consumer (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        queue INTEGER NOT NULL REFERENCES queue,
        presence TEXT NOT NULL
    ) STRICT;

    -- `due_at`: milliseconds since 1970, NULL for at once. `consumer`: who has it now.
    CREATE TABLE message (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        queue INTEGER NOT NULL REFERENCES queue,
        due_at INTEGER,
        consumer INTEGER,
        deliveries INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX message_ready ON message (queue, id) WHERE consumer IS NULL AND due_at IS NULL;
    CREATE INDEX message_delayed ON message (queue, due_at, id) WHERE consumer IS NULL AND due_at IS NOT NULL;
    CREATE INDEX message_taken ON message (consumer) WHERE consumer IS NOT NULL;

    CREATE TABLE content (
        message INTEGER PRIMARY KEY,
        exchange TEXT NOT NULL,
        routing_key TEXT NOT NULL,
        properties TEXT NOT NULL,
        body BLOB NOT NULL
    ) STRICT;
";

/// Opens the file, and creates it, its folder and its tables if they are missing. The error is the
/// rest of a sentence that begins with the file's name.
pub(super) fn open(path: &Path) -> Result<Connection, String> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)
            .map_err(|error| format!("cannot make the folder {}: {error}", folder.display()))?;
    }
    // Without SQLITE_OPEN_URI: the path is never parsed as a URI, whatever characters it has.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(explain)?;
    connection.busy_handler(Some(waiting())).map_err(explain)?;
    // Check before the first write: a file of another program stays unchanged.
    check(&connection)?;
    use_write_ahead_log(&connection).map_err(explain)?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT).map_err(explain)?;
    connection.set_prepared_statement_cache_capacity(64);
    make_tables(&mut connection)?;
    Ok(connection)
}

fn make_tables(connection: &mut Connection) -> Result<(), String> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(explain)?;
    // Check again, now that no other process can write: one may have been faster.
    if check(&transaction)? == FileKind::Empty {
        transaction.execute_batch(LAYOUT).map_err(explain)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(explain)?;
        transaction.pragma_update(None, "user_version", LAYOUT_VERSION).map_err(explain)?;
    }
    transaction.commit().map_err(explain)
}

#[derive(PartialEq, Eq)]
enum FileKind {
    Empty,
    OurQueue,
}

fn check(connection: &Connection) -> Result<FileKind, String> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0)).map_err(explain);
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(explain)?;
    match (number("application_id")?, number("user_version")?) {
        (0, 0) if tables == 0 => Ok(FileKind::Empty),
        (APPLICATION_ID, LAYOUT_VERSION) => Ok(FileKind::OurQueue),
        (APPLICATION_ID, version) if version > LAYOUT_VERSION => Err(format!(
            "it was made by a newer version of this program (layout {version}, this one knows {LAYOUT_VERSION}): \
             upgrade, or name another file"
        )),
        (APPLICATION_ID, version) => Err(format!("its layout {version} is none that this program knows")),
        _ => Err("it is a database of another program: name another file".to_owned()),
    }
}

/// Switches to the write-ahead log. Two processes that switch a new file at the same moment collide
/// without calling the busy handler, so this retries by itself.
fn use_write_ahead_log(connection: &Connection) -> rusqlite::Result<()> {
    let started = Instant::now();
    loop {
        match connection.pragma_update(None, "journal_mode", "wal") {
            Err(error) if is_busy(&error) && started.elapsed() < BUSY_TIMEOUT => {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

/// Returns the busy handler, which waits while another process writes, usually for a few
/// milliseconds. SQLite's own handler sleeps for up to 100 ms at a time, and so keeps losing the
/// lock to newcomers.
fn waiting() -> impl FnMut(i32) -> bool + Send {
    let mut since = Instant::now();
    move |tries| {
        if tries == 0 {
            since = Instant::now();
        }
        let doublings = tries.clamp(0, 8).unsigned_abs();
        std::thread::sleep((BUSY_INTERVAL_MIN * 2_u32.pow(doublings)).min(BUSY_INTERVAL_MAX));
        since.elapsed() < BUSY_TIMEOUT
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Returns SQLite's message, with advice where there is any.
#[expect(clippy::needless_pass_by_value, reason = "it is given to `map_err`")]
pub(super) fn explain(error: rusqlite::Error) -> String {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => "it is not an SQLite database: name another file".to_owned(),
        Some(ErrorCode::DatabaseCorrupt) => {
            format!("it is damaged ({error}): save it with `sqlite3 FILE .recover`, or move it away")
        }
        Some(ErrorCode::CannotOpen) => format!("{error}: check that it is a file in a folder that may be written"),
        Some(ErrorCode::DiskFull) => "the disk is full".to_owned(),
        Some(ErrorCode::ReadOnly) => "it may not be written: check its owner and permissions".to_owned(),
        Some(ErrorCode::DatabaseBusy) => {
            format!("another process has kept it locked for {} s", BUSY_TIMEOUT.as_secs())
        }
        _ => error.to_string(),
    }
}
