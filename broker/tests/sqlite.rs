//! Promises of the SQLite engine alone: processes that share a file, and die at any moment.
//!
//! The other processes are this test program itself, started again with a role to play.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use broker::{
    Broker, BrokerUrl, ConnectOptions, ExchangeKind, Message, PublishError, QueueNames, Source, Target, Value,
};
use testbed::{ChildGuard, eventually};

/// Everything here takes well under a second on a quiet machine.
const SOON: Duration = Duration::from_mins(1);
const ROLE: &str = "NOTIFY_TEST_ROLE";
const FILE: &str = "NOTIFY_TEST_FILE";

async fn connect(file: &Path) -> Result<Broker, broker::ConnectError> {
    let options = ConnectOptions { name: "test".to_owned(), timeout: SOON };
    Broker::connect(&BrokerUrl::Sqlite(file.to_owned()), &options).await
}

async fn open(file: &Path) -> Broker {
    let broker = connect(file).await.unwrap();
    let source = Source {
        exchange: "orders".to_owned(),
        kind: ExchangeKind::Topic,
        names: QueueNames::new("queue"),
        bindings: vec!["#".to_owned()],
    };
    broker.declare_source(&source).await.unwrap();
    broker
}

/// Starts this program again in another process, with one of the roles below.
fn play(role: &str, file: &Path) -> ChildGuard {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "roles", "--nocapture"]).env(ROLE, role).env(FILE, file);
    ChildGuard::spawn(command)
}

/// Not a test of its own, but the code of the other processes. Without a role it does nothing.
#[tokio::test]
async fn roles() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let broker = open(Path::new(&std::env::var_os(FILE).unwrap())).await;
    match role.as_str() {
        "publish" => {
            for number in 0_u64.. {
                broker.publish(Target::Queue("queue"), &Message::json(number.to_string())).await.unwrap();
                println!("confirmed {number}");
            }
        }
        "hoard" => {
            let mut consumer = broker.consume("queue", 10).await.unwrap();
            let mut hoard = Vec::new();
            while let Some(delivery) = consumer.next().await {
                hoard.push(delivery.unwrap());
                println!("has {}", hoard.len());
            }
        }
        other => panic!("no role {other}"),
    }
}

fn confirmed(publisher: &ChildGuard) -> Vec<u64> {
    // Only complete lines count.
    let text = publisher.stdout();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().filter_map(|line| line.rsplit_once("confirmed ")?.1.parse().ok()).collect()
}

#[tokio::test]
async fn what_a_killed_publisher_was_told_is_there_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("queue.db");
    for _ in 0..3 {
        let publisher = play("publish", &file);
        eventually(SOON, "some are confirmed", || confirmed(&publisher).len() > 50);
        publisher.kill();
        let confirmed = confirmed(&publisher);

        let broker = open(&file).await;
        let ready = broker.inspect("queue").await.unwrap().unwrap().ready;
        let mut consumer = broker.consume("queue", 100).await.unwrap();
        let mut found = BTreeSet::new();
        for _ in 0..ready {
            let delivery = consumer.next().await.unwrap().unwrap();
            found.insert(String::from_utf8_lossy(&delivery.message.body).parse::<u64>().unwrap());
            delivery.receipt.ack();
        }
        consumer.close().await.unwrap();
        assert!(confirmed.iter().all(|number| found.contains(number)), "{confirmed:?} {found:?}");
        assert_eq!(broker.inspect("queue").await.unwrap().unwrap().ready, 0);
        broker.close().await;
    }
}

#[tokio::test]
async fn what_a_killed_consumer_had_goes_to_another() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("queue.db");
    let broker = open(&file).await;
    for number in 0..10 {
        broker.publish(Target::Queue("queue"), &Message::json(number.to_string())).await.unwrap();
    }
    let hoarder = play("hoard", &file);
    eventually(SOON, "it has them all", || hoarder.stdout().contains("has 10"));
    let mut consumer = broker.consume("queue", 10).await.unwrap();
    // While the process lives, the messages stay with it, however long that takes. This waits for
    // more than two looks for dead sessions.
    let early = tokio::time::timeout(Duration::from_millis(2500), consumer.next()).await;
    assert!(early.is_err(), "{early:?}");
    hoarder.kill();
    for number in 0..10 {
        let delivery = tokio::time::timeout(SOON, consumer.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(delivery.message.body, number.to_string());
        assert!(delivery.redelivered);
        delivery.receipt.ack();
    }
    consumer.close().await.unwrap();
    let state = broker.inspect("queue").await.unwrap().unwrap();
    assert_eq!((state.ready, state.consumers), (0, 0));
}

#[tokio::test]
async fn a_consumer_hears_the_doorbell_of_another_session() {
    const ROUNDS: u32 = 5;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("queue.db");
    let (publisher, consumers) = (open(&file).await, open(&file).await);
    let mut consumer = consumers.consume("queue", 10).await.unwrap();
    let started = Instant::now();
    for _ in 0..ROUNDS {
        publisher.publish(Target::Queue("queue"), &Message::json("{}")).await.unwrap();
        consumer.next().await.unwrap().unwrap().receipt.ack();
    }
    // Without a wakeup, each round takes a second until the next look.
    assert!(started.elapsed() < Duration::from_millis(500) * ROUNDS, "{:?}", started.elapsed());
}

#[tokio::test]
async fn two_processes_may_make_the_file_at_the_same_moment() {
    for _ in 0..10 {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deep/er/queue.db");
        let (one, two) = tokio::join!(connect(&file), connect(&file));
        one.unwrap();
        two.unwrap();
    }
}

#[tokio::test]
async fn a_file_that_is_not_ours_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let check = async |name: &str, problem: &str| {
        let file = folder.path().join(name);
        let before = std::fs::read(&file).ok();
        let error = connect(&file).await.unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
        assert!(error.contains(name), "{error}");
        assert_eq!(std::fs::read(&file).ok(), before, "{name} was changed");
    };

    std::fs::write(folder.path().join("text"), "a text, and longer than a header of a database is ".repeat(20))
        .unwrap();
    check("text", "it is not an SQLite database").await;

    let foreign = rusqlite::Connection::open(folder.path().join("foreign")).unwrap();
    foreign.execute_batch("CREATE TABLE theirs (x)").unwrap();
    drop(foreign);
    check("foreign", "it is a database of another program").await;

    open(&folder.path().join("newer")).await.close().await;
    let newer = rusqlite::Connection::open(folder.path().join("newer")).unwrap();
    newer.pragma_update(None, "user_version", 1000).unwrap();
    newer.pragma_update(None, "journal_mode", "delete").unwrap();
    drop(newer);
    check("newer", "newer version of this program").await;

    std::fs::create_dir(folder.path().join("folder")).unwrap();
    check("folder", "check that it is a file").await;
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_handed_out_as_far_as_it_can_and_stops_nothing() {
    const COUNT: i64 = 9;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("queue.db");
    let broker = open(&file).await;
    for number in 1..=COUNT {
        broker.publish(Target::Queue("queue"), &Message::json(number.to_string())).await.unwrap();
    }
    let db = rusqlite::Connection::open(&file).unwrap();
    db.busy_timeout(SOON).unwrap();
    db.execute_batch(
        "BEGIN IMMEDIATE;
         -- A table that takes anything, as one that was restored by hand may be.
         ALTER TABLE content RENAME TO strict;
         CREATE TABLE content (message INTEGER PRIMARY KEY, exchange, routing_key, properties, body);
         INSERT INTO content SELECT * FROM strict;
         UPDATE content SET properties = '{' WHERE message = 1;
         UPDATE content SET properties = CAST(x'7bff7d' AS TEXT) WHERE message = 2;
         UPDATE content SET properties = NULL WHERE message = 3;
         UPDATE content SET properties = '{\"priority\":\"high\"}' WHERE message = 4;
         UPDATE content SET body = NULL WHERE message = 5;
         DELETE FROM content WHERE message = 6;
         UPDATE content SET exchange = 42, routing_key = CAST(x'63616665e9' AS TEXT) WHERE message = 7;
         UPDATE message SET deliveries = 9223372036854775807 WHERE id = 8;
         INSERT INTO consumer (queue, presence) SELECT id, CAST(x'ff' AS TEXT) FROM queue LIMIT 1;
         INSERT INTO binding (exchange, routing_key, queue) SELECT 'orders', CAST(x'ff' AS TEXT), id FROM queue LIMIT 1;
         COMMIT;",
    )
    .unwrap();

    let mut consumer = broker.consume("queue", 20).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..COUNT {
        let delivery = tokio::time::timeout(SOON, consumer.next()).await.unwrap().unwrap().unwrap();
        let body = String::from_utf8(delivery.message.body.to_vec()).unwrap();
        let problem = delivery.unreadable.as_ref().map(|unreadable| unreadable.problem.clone());
        let raw = delivery.unreadable.as_ref().map(|unreadable| unreadable.properties.to_vec()).unwrap_or_default();
        seen.push((body, problem.unwrap_or_default(), raw, delivery.exchange, delivery.routing_key));
        delivery.receipt.ack();
    }
    let rest = [
        ("1", "its properties cannot be read: EOF", &b"{"[..]),
        ("2", "its properties cannot be read: ", b"{\xff}"),
        ("3", "its properties cannot be read: EOF", b""),
        ("4", "its properties cannot be read: invalid type", b"{\"priority\":\"high\"}"),
        ("", "its body is missing from the file", b""),
        ("", "its content is missing from the file", b""),
        ("7", "", b""),
        ("8", "", b""),
        ("9", "", b""),
    ];
    for ((body, problem, raw, ..), (expected_body, expected_problem, expected_raw)) in seen.iter().zip(rest) {
        assert_eq!((&**body, &**raw), (expected_body, expected_raw));
        assert!(
            problem.starts_with(expected_problem) && problem.is_empty() == expected_problem.is_empty(),
            "{problem}"
        );
    }
    assert_eq!((&*seen[6].3, &*seen[6].4), ("42", "cafeé"));

    // The rest of the file is read in the same way.
    broker.publish(Target::Exchange { exchange: "orders", routing_key: "k" }, &Message::json("10")).await.unwrap();
    let delivery = tokio::time::timeout(SOON, consumer.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(delivery.message.body, "10");
    delivery.receipt.ack();
    consumer.close().await.unwrap();
    let state = broker.inspect("queue").await.unwrap().unwrap();
    assert_eq!((state.ready, state.consumers), (0, 0), "the consumer without a readable name is forgotten");
    assert_eq!(broker.broken_by_message(), None);
}

#[tokio::test]
async fn a_header_that_could_not_be_read_again_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(&folder.path().join("queue.db")).await;
    let mut message = Message::json("{}");
    let deep = (0..100).fold(Value::Void, |value, _| Value::List(vec![value]));
    message.properties.headers.insert("deep".to_owned(), deep);
    let error = broker.publish(Target::Queue("queue"), &message).await.unwrap_err();
    assert!(matches!(error, PublishError::Inexpressible(_)), "{error}");
    assert!(message.make_expressible());
    broker.publish(Target::Queue("queue"), &message).await.unwrap();
    let mut consumer = broker.consume("queue", 1).await.unwrap();
    let delivery = tokio::time::timeout(SOON, consumer.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(delivery.message, message);
    delivery.receipt.ack();
    consumer.close().await.unwrap();
}
