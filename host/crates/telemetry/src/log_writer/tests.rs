use std::sync::mpsc;

use super::*;
use crate::log_writer::writer_loop::LogNotice;

/// A writer whose writes end as the test decides, and the messages it reports.
struct Rig {
    writer: LogWriter,
    answers: mpsc::Sender<io::Result<()>>,
    written: mpsc::Receiver<String>,
    news: mpsc::Receiver<LogNotice>,
    thread: std::thread::JoinHandle<()>,
}

const SOON: Duration = Duration::from_secs(20);

fn rig() -> Rig {
    rig_with(None)
}

fn rig_with(direct: Option<direct::Write>) -> Rig {
    let shared = WriterShared {
        state: Mutex::default(),
        work: Condvar::new(),
        ended: Condvar::new(),
        status: LogStatus::default(),
        direct,
    };
    let shared = Arc::new(shared);
    let (answers, answered) = mpsc::channel::<io::Result<()>>();
    let (writes, written) = mpsc::channel();
    let (tell, news) = mpsc::channel();
    let own = Arc::clone(&shared);
    let thread = std::thread::spawn(move || {
        let _ended = EndGuard(&own);
        let write = |bytes: &[u8]| {
            writes.send(String::from_utf8_lossy(bytes).into_owned()).unwrap();
            // Once the test has dropped its sender, every write succeeds.
            answered.recv().unwrap_or(Ok(())).map(|()| bytes.len())
        };
        let tell = |said: &LogNotice| {
            let said = match said {
                LogNotice::Failing(error) => LogNotice::Failing(Arc::clone(error)),
                LogNotice::Recovered(_) => LogNotice::Recovered(Duration::ZERO),
                LogNotice::Dropped(lines) => LogNotice::Dropped(*lines),
            };
            tell.send(said).unwrap();
        };
        WriterLoop::new(&own, write, tell).run();
    });
    Rig { writer: LogWriter(shared), answers, written, news, thread }
}

fn next<T>(channel: &mpsc::Receiver<T>) -> T {
    channel.recv_timeout(SOON).expect("it comes")
}

#[test]
fn a_reader_that_does_not_read_keeps_nobody_waiting_and_what_was_dropped_is_told() {
    let rig = rig();
    rig.writer.push(b"first\n");
    assert_eq!(next(&rig.written), "first\n");
    // The writer now waits for its reader.
    let lines = Arc::<RequiredLines>::default();
    let mark = lines.mark();
    rig.writer.push(b"required\n");
    drop(mark);
    let mut pushed = 0;
    while rig.writer.0.status.lines_lost(LogLoss::QueueFull) < 3 {
        rig.writer.push(b"flood\n");
        pushed += 1;
    }
    assert!(!lines.is_settled());
    rig.writer.close(Duration::from_millis(1));
    assert!(!rig.thread.is_finished(), "the end did not wait for the reader either");
    drop(rig.answers);
    rig.thread.join().unwrap();
    assert!(lines.is_settled());
    let rest: String = rig.written.iter().collect();
    assert_eq!(rest.matches("flood\n").count(), pushed - 3);
    assert!(rest.starts_with("required\n"), "in their order");
    assert_eq!(rig.news.iter().collect::<Vec<_>>(), [LogNotice::Dropped(3)]);
}

#[test]
fn what_cannot_be_written_fails_what_needs_it_and_the_rest_is_tried_again() {
    let rig = rig();
    let lines = Arc::<RequiredLines>::default();
    let mark = lines.mark();
    rig.writer.push(b"required\n");
    drop(mark);
    assert_eq!(next(&rig.written), "required\n");
    rig.writer.push(b"other\n");
    let full = || io::Error::from(io::ErrorKind::StorageFull);
    rig.answers.send(Err(full())).unwrap();
    assert_eq!(next(&rig.news), LogNotice::Failing(full().to_string().into()));
    assert!(rig.writer.0.status.is_blocked());
    assert_eq!(lines.pending(), 1);
    assert!(lines.is_settled(), "its attempt need not wait");
    assert_eq!(rig.writer.0.status.lines_lost(LogLoss::WriteFailed), 1);
    // Only the other line is left to retry.
    for answer in [Err(full()), Err(io::ErrorKind::Interrupted.into()), Ok(())] {
        assert_eq!(next(&rig.written), "other\n");
        rig.answers.send(answer).unwrap();
    }
    assert_eq!(next(&rig.news), LogNotice::Recovered(Duration::ZERO), "told once, however often it was tried");
    assert!(!rig.writer.0.status.is_blocked());
    assert_eq!(rig.writer.0.status.failed_writes(), 2);
    rig.writer.close(SOON);
    rig.thread.join().unwrap();
}

/// Bytes that the direct writes of one test have taken.
static TAKEN: Mutex<Vec<u8>> = Mutex::new(Vec::new());

#[test]
fn an_attempt_writes_its_lines_itself_and_leaves_to_the_thread_what_would_have_to_wait() {
    // A pipe with room for ten bytes.
    fn write(bytes: &[u8]) -> io::Result<usize> {
        let mut taken = TAKEN.lock().unwrap();
        let room = 10 - taken.len();
        if room == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        taken.extend(&bytes[..bytes.len().min(room)]);
        Ok(bytes.len().min(room))
    }
    let shared = WriterShared {
        state: Mutex::default(),
        work: Condvar::new(),
        ended: Condvar::new(),
        status: LogStatus::default(),
        direct: Some(write),
    };
    let writer = LogWriter(Arc::new(shared));
    let push = |line: &[u8]| {
        let lines = Arc::<RequiredLines>::default();
        let _mark = lines.mark();
        writer.push(line);
        lines
    };
    let first = push(b"first\n");
    writer.0.write_now();
    assert!(first.is_settled(), "without the thread, which has not even begun");
    let (second, third) = (push(b"second\n"), push(b"third\n"));
    writer.0.write_now();
    assert!(!second.is_settled() && !third.is_settled());
    let last = push(b"last\n");
    writer.0.write_now();
    assert!(!last.is_settled(), "the thread comes first");
    assert_eq!(*TAKEN.lock().unwrap(), b"first\nseco");

    writer.close(Duration::ZERO);
    let mut rest = Vec::new();
    let write = |bytes: &[u8]| {
        rest.extend_from_slice(bytes);
        Ok(bytes.len())
    };
    WriterLoop::new(&writer.0, write, |_: &LogNotice| {}).run();
    assert_eq!(String::from_utf8(rest).unwrap(), "nd\nthird\nlast\n");
    assert!(second.is_settled() && third.is_settled() && last.is_settled());
}

#[test]
fn an_attempt_never_writes_while_the_thread_does() {
    let rig = rig_with(Some(|_| panic!("the thread writes")));
    rig.writer.push(b"first\n");
    assert_eq!(next(&rig.written), "first\n");
    let lines = Arc::<RequiredLines>::default();
    let mark = lines.mark();
    rig.writer.push(b"required\n");
    drop(mark);
    rig.writer.0.write_now();
    assert!(!lines.is_settled());
    rig.answers.send(Ok(())).unwrap();
    // The thread looks after it, though nobody wakes it.
    assert_eq!(next(&rig.written), "required\n");
    drop(rig.answers);
    rig.writer.close(SOON);
    rig.thread.join().unwrap();
    assert!(lines.is_settled());
}

#[test]
fn many_lines_are_written_at_once_and_the_last_one_before_the_end() {
    let rig = rig();
    rig.writer.push(b"0\n");
    next(&rig.written);
    for number in 1..1000 {
        rig.writer.push(format!("{number}\n").as_bytes());
    }
    rig.answers.send(Ok(())).unwrap();
    drop(rig.answers);
    rig.writer.close(SOON);
    rig.thread.join().unwrap();
    let writes: Vec<String> = rig.written.iter().collect();
    assert_eq!(writes.len(), 1, "all that waited");
    assert!(writes[0].ends_with("\n999\n"));
    assert!(rig.news.iter().next().is_none());
}
