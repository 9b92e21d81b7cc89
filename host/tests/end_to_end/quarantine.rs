//! A message that breaks the session or the process is set aside, whatever the cause. A host that is merely killed or
//! cut off sets nothing aside.
//!
//! No message of a test can crash the host by itself, or the bug would be fixed. So the receiver of a webhook crashes
//! the host while it handles that message. To the host, the message looks like the cause.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker::{Delivery, Value};
use testbed::eventually;
use testbed::proxy::Proxy;
use testbed::receiver::{Answer, Receiver, Reply, Request};

use crate::on_both_engines;
use crate::webhook::{create, plug};
use crate::world::{Host, SOON, World};

/// Maximum breaks: the first, the one that convicts, and spares for a busy machine, where others may be in flight.
const BREAKS_MAX: usize = 4;

/// A receiver that makes one event poison for the host, as long as it is armed.
struct Trap {
    receiver: Receiver,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    poison: Mutex<String>,
    is_armed: AtomicBool,
    hits: AtomicU32,
    /// Answers the poison with 503 before this request.
    from_request: AtomicU32,
    seen: AtomicU32,
}

impl Trap {
    /// Starts a trap. The poison's request gets no answer; the test watches [`Self::hits`] and decides what happens.
    fn set() -> Self {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let receiver = Receiver::start(move |request| own.reply(request));
        Self { receiver, shared }
    }

    fn arm(&self, poison: &str) {
        poison.clone_into(&mut self.shared.poison.lock().unwrap());
        self.shared.is_armed.store(true, Ordering::SeqCst);
    }

    fn disarm(&self) {
        self.shared.is_armed.store(false, Ordering::SeqCst);
    }

    fn hits(&self) -> u32 {
        self.shared.hits.load(Ordering::SeqCst)
    }

    fn has_got(&self, id: &str) -> bool {
        self.receiver.requests().iter().any(|request| String::from_utf8_lossy(&request.body).contains(id))
    }
}

impl Shared {
    fn reply(&self, request: &Request) -> Reply {
        let poison = self.poison.lock().unwrap().clone();
        if self.is_armed.load(Ordering::SeqCst) && String::from_utf8_lossy(&request.body).contains(&poison) {
            if self.seen.fetch_add(1, Ordering::SeqCst) < self.from_request.load(Ordering::SeqCst) {
                return Reply::Answer(Answer::status(503));
            }
            self.hits.fetch_add(1, Ordering::SeqCst);
            return Reply::Hang;
        }
        Reply::Answer(Answer::status(204))
    }
}

/// Waits for the poison's next hit. Returns `false` once the host has set it aside.
fn is_hit(world: &World, host: &Host, trap: &Trap, hits: u32) -> bool {
    let is_aside = || host.logged("\"code\":\"quarantined\"");
    eventually(SOON, &format!("it is hit or set aside; {}", world.path("state").display()), || {
        trap.hits() > hits || is_aside()
    });
    !is_aside()
}

fn header(letter: &Delivery, name: &str) -> String {
    letter.message.properties.headers.get(name).and_then(Value::to_text).unwrap_or_default()
}

/// Publishes five events, the poison, and five more while no host runs. Returns the poison's id, then the others.
fn events(world: &World, trap: &Trap) -> (String, Vec<String>) {
    world.host().stop();
    let mut ids: Vec<_> = (0..11).map(|_| create(world)).collect();
    let poison = ids.remove(5);
    trap.arm(&poison);
    (poison, ids)
}

fn replay(world: &World) {
    let replayed = world.host_command(&["dead-letters", "replay", "--all", "--yes"]).output().unwrap();
    assert!(replayed.status.success(), "{}", String::from_utf8_lossy(&replayed.stderr));
}

on_both_engines! {
    fn a_message_that_ends_the_process_is_set_aside_and_all_others_are_handled(world: &World) {
        let trap = Trap::set();
        plug(world, "hook", &trap.receiver.url("/"), "", "");
        let (poison, others) = events(world, &trap);
        let mut breaks = 0;
        let host = loop {
            let (hits, host) = (trap.hits(), world.host());
            if !is_hit(world, &host, &trap, hits) {
                break host;
            }
            // Alternate between an abort, as a library would cause, and a segmentation fault.
            let signal = if breaks % 2 == 0 { "ABRT" } else { "SEGV" };
            host.child_guard.send(signal);
            let status = host.child_guard.wait_timeout(SOON).expect("it ends");
            assert!(status.signal().is_some(), "{status}");
            breaks += 1;
            assert!(breaks <= BREAKS_MAX, "it breaks the host for ever");
        };
        assert!(breaks >= 2, "once may be chance");
        eventually(SOON, "all others are handled", || others.iter().all(|id| trap.has_got(id)));
        let hits = trap.hits();
        assert!(host.logged("SEGV ended the host") || host.logged("SIGABRT ended the host"), "{}", host.child_guard.stderr());

        let broker = world.broker();
        let letter = world.dead_letters(&broker, 1).remove(0);
        assert_eq!(header(&letter, "x-notify-code"), "quarantined");
        assert_eq!(header(&letter, "x-notify-given-up"), "quarantined");
        assert!(header(&letter, "x-notify-reason").contains("it breaks the session"), "{letter:?}");
        assert!(String::from_utf8_lossy(&letter.message.body).contains(&poison));
        assert_eq!(letter.message.properties.content_type.as_deref(), Some("application/json"), "as it came");
        assert_eq!(trap.hits(), hits, "nobody handles it");
        eventually(SOON, "the journal tells it", || {
            let told = world.journal_command(&["events", "--outcome", "quarantined"]);
            String::from_utf8_lossy(&told.stdout).contains("set aside, dead-lettered: it breaks the session")
        });
        assert_eq!(world.queue_state(&broker, &world.queue).ready, 0);

        // Once the cause is fixed, a replay delivers the message.
        trap.disarm();
        replay(world);
        eventually(SOON, "it arrives", || trap.receiver.requests().iter().filter(|request| {
            String::from_utf8_lossy(&request.body).contains(&poison)
        }).count() > usize::try_from(hits).unwrap());
        host.stop();
        assert_eq!(world.queue_state(&broker, &world.names().dead()).ready, 0);
    }

    fn a_message_that_ends_the_process_at_a_later_attempt_is_set_aside_for_that_plugin(world: &World) {
        let trap = Trap::set();
        trap.shared.from_request.store(1, Ordering::SeqCst);
        plug(world, "hook", &trap.receiver.url("/"), "", "");
        world.plug_logger();
        let (poison, others) = events(world, &trap);
        let mut breaks = 0;
        let host = loop {
            let (hits, host) = (trap.hits(), world.host());
            if !is_hit(world, &host, &trap, hits) {
                break host;
            }
            host.child_guard.send("ABRT");
            host.child_guard.wait_timeout(SOON).expect("it ends");
            breaks += 1;
            assert!(breaks <= BREAKS_MAX, "it breaks the host for ever");
        };
        eventually(SOON, "all others are handled", || others.iter().all(|id| trap.has_got(id)));
        let letter = world.dead_letters(&world.broker(), 1).remove(0);
        assert!(String::from_utf8_lossy(&letter.message.body).contains(&poison));
        assert_eq!(header(&letter, "x-notify-code"), "quarantined");
        assert_eq!((&*header(&letter, "x-notify-plugin"), &*header(&letter, "x-notify-attempts")), ("hook", "1"));
        trap.disarm();
        let before = host.orders().len();
        replay(world);
        let arrived = || trap.receiver.requests().iter().filter(|request| {
            String::from_utf8_lossy(&request.body).contains(&poison)
        }).count();
        eventually(SOON, "it arrives", || arrived() > usize::try_from(trap.hits()).unwrap() + 1);
        host.stop();
        assert_eq!(host.orders().len(), before, "the other plugin is done with it");
    }

    fn a_healthy_host_that_is_killed_again_and_again_sets_nothing_aside(world: &World) {
        const KILLS: u32 = 8;
        let trap = Trap::set();
        plug(world, "hook", &trap.receiver.url("/"), "", "");
        let (poison, others) = events(world, &trap);
        for kills in 0..KILLS {
            let host = world.host();
            eventually(SOON, "it is in the middle of it", || trap.hits() > kills);
            host.child_guard.kill();
        }
        trap.disarm();
        let host = world.host();
        eventually(SOON, "the one that was cut off is handled", || {
            let answered = |request: &&Request| String::from_utf8_lossy(&request.body).contains(&poison);
            trap.receiver.requests().iter().filter(answered).count() > usize::try_from(trap.hits()).unwrap()
        });
        eventually(SOON, "all others are handled", || others.iter().all(|id| trap.has_got(id)));
        host.stop();
        let broker = world.broker();
        for queue in [world.queue.clone(), world.names().plugin("hook"), world.names().dead()] {
            let state = world.queue_state(&broker, &queue);
            assert_eq!((state.ready, state.delayed), (0, 0), "{queue}");
        }
        let left = std::fs::read_dir(world.path("state/folders")).unwrap();
        for folder in left {
            let files = std::fs::read_dir(folder.unwrap().path().join("quarantine")).unwrap().count();
            assert_eq!(files, 0, "a host that stops in good order leaves nothing");
        }
    }

    fn two_hosts_that_a_message_goes_round_are_rid_of_it(world: &World) {
        let trap = Trap::set();
        plug(world, "hook", &trap.receiver.url("/"), "", "");
        let (poison, others) = events(world, &trap);
        let mut hosts = vec![world.host(), world.host()];
        let mut breaks = 0;
        let mut hits = 0;
        loop {
            let is_aside = || hosts.iter().any(|host: &Host| host.logged("\"code\":\"quarantined\""));
            eventually(SOON, "it is hit or set aside", || trap.hits() > hits || is_aside());
            if is_aside() {
                break;
            }
            hits = trap.hits();
            // Crash the host that has the message in flight.
            let holder = hosts.iter().position(|host| has_open(host, &trap)).expect("one of them has it");
            let host = hosts.swap_remove(holder);
            host.child_guard.send("ABRT");
            host.child_guard.wait_timeout(SOON).expect("it ends");
            breaks += 1;
            // At worst, each host has to learn by itself.
            assert!(breaks <= 2 * BREAKS_MAX, "it goes round for ever");
            hosts.push(world.host());
        }
        eventually(SOON, "all others are handled", || others.iter().all(|id| trap.has_got(id)));
        let letter = world.dead_letters(&world.broker(), 1).remove(0);
        assert!(String::from_utf8_lossy(&letter.message.body).contains(&poison));
        for host in hosts {
            host.stop();
        }
    }
}

/// Returns whether the host has a connection to the trap.
fn has_open(host: &Host, trap: &Trap) -> bool {
    let folder = format!("/proc/{}/fd", host.child_guard.id());
    let own: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()?.to_str().map(str::to_owned))
        .collect();
    // The fields are `sl local remote state … inode`; state 01 is established.
    let remote = format!("0100007F:{:04X}", trap.receiver.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).any(|fields| {
        fields.get(2) == Some(&remote.as_str())
            && fields.get(3) == Some(&"01")
            && fields.get(9).is_some_and(|inode| own.contains(&format!("socket:[{inode}]")))
    })
}

fn world_through(proxy: &Proxy) -> World {
    let mut world = World::on_rabbitmq();
    world.host_url = format!("amqp://127.0.0.1:{}?heartbeat=30", proxy.port());
    world
}

/// Returns `connection.close` with this code, as RabbitMQ sends it (AMQP 0-9-1, section 1.4.2.10).
fn connection_close(code: u16, text: &str) -> Vec<u8> {
    let mut method = vec![0, 10, 0, 50];
    method.extend(code.to_be_bytes());
    method.push(u8::try_from(text.len()).unwrap());
    method.extend(text.as_bytes());
    method.extend([0, 0, 0, 0]);
    let mut frame = vec![1, 0, 0];
    frame.extend(u32::try_from(method.len()).unwrap().to_be_bytes());
    frame.extend(method);
    frame.push(0xCE);
    frame
}

#[test]
fn a_message_over_which_the_broker_closes_the_connection_is_set_aside() {
    let proxy = Proxy::to(testbed::rabbitmq::shared().port());
    let world = world_through(&proxy);
    let trap = Trap::set();
    plug(&world, "hook", &trap.receiver.url("/"), "", "");
    let (poison, others) = events(&world, &trap);
    let host = world.host();
    let mut breaks = 0;
    while is_hit(&world, &host, &trap, breaks) {
        proxy.send_to_clients(&connection_close(501, "FRAME_ERROR - cannot decode it"));
        breaks += 1;
        assert!(breaks <= u32::try_from(BREAKS_MAX).unwrap(), "it breaks the session for ever");
        let lost = || host.child_guard.stderr().matches("lost the broker").count();
        eventually(SOON, "the session is lost", || lost() >= usize::try_from(breaks).unwrap());
    }
    assert!(breaks >= 2, "once may be chance");
    assert!(host.logged("FRAME_ERROR - cannot decode it; it was not handled again"), "{}", host.child_guard.stderr());
    eventually(SOON, "all others are handled", || others.iter().all(|id| trap.has_got(id)));
    let letter = world.dead_letters(&world.broker(), 1).remove(0);
    assert!(String::from_utf8_lossy(&letter.message.body).contains(&poison));
    host.stop();
}

#[test]
fn a_network_that_is_cut_and_a_broker_that_closes_set_nothing_aside() {
    let proxy = Proxy::to(testbed::rabbitmq::shared().port());
    let world = world_through(&proxy);
    let trap = Trap::set();
    plug(&world, "hook", &trap.receiver.url("/"), "", "");
    let (poison, others) = events(&world, &trap);
    let host = world.host();
    for breaks in 0..6 {
        eventually(SOON, "it is in the middle of it", || trap.hits() > breaks);
        if breaks % 2 == 0 {
            proxy.drop_connections();
        } else {
            proxy.send_to_clients(&connection_close(320, "CONNECTION_FORCED - broker forced connection closure"));
        }
    }
    trap.disarm();
    eventually(SOON, "the one that was cut off is handled", || {
        let answered = |request: &&Request| String::from_utf8_lossy(&request.body).contains(&poison);
        trap.receiver.requests().iter().filter(answered).count() > usize::try_from(trap.hits()).unwrap()
    });
    eventually(SOON, "all others are handled", || others.iter().all(|id| trap.has_got(id)));
    host.stop();
    assert_eq!(world.queue_state(&world.broker(), &world.names().dead()).ready, 0);
}

/// Simulates a file that was edited or partly restored.
#[test]
fn rows_that_cannot_be_read_become_dead_letters_and_stop_nothing() {
    const BREAK: &str = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=60)
ids = [row[0] for row in db.execute('SELECT id FROM message ORDER BY id')]
(own,) = db.execute('SELECT id FROM queue WHERE name = ?', ('notifications.plugin.logger',)).fetchone()
db.execute('UPDATE content SET properties = ? WHERE message = ?', ('{', ids[1]))
db.execute('DELETE FROM content WHERE message = ?', (ids[2],))
db.execute('UPDATE message SET queue = ? WHERE id = ?', (own, ids[3]))
db.execute('UPDATE content SET properties = ? WHERE message = ?', ('[1]', ids[3]))
db.commit()
";
    let world = World::on_sqlite();
    world.plug_logger();
    world.host().stop();
    let ids: Vec<_> = (0..5).map(|_| create(&world)).collect();
    let python = std::env::var_os("NOTIFY_TEST_PYTHON").expect("run the tests by `cargo xtask test`");
    let broken = Command::new(python).args(["-c", BREAK]).arg(world.path("queue.db")).output().unwrap();
    assert!(broken.status.success(), "{}", String::from_utf8_lossy(&broken.stderr));
    let host = world.host();
    for id in [&ids[0], &ids[4]] {
        host.wait_for_order(id);
    }
    let letters = world.dead_letters(&world.broker(), 3);
    let raw = |letter: &Delivery| letter.message.properties.headers.get("x-notify-raw-properties").cloned();
    let of =
        |id: &str| letters.iter().find(|letter| String::from_utf8_lossy(&letter.message.body).contains(id)).unwrap();
    assert!(letters.iter().all(|letter| header(letter, "x-notify-code") == "unreadable-properties"), "{letters:?}");
    assert_eq!(raw(of(&ids[1])), Some(Value::Bytes(b"{".to_vec())));
    assert_eq!(header(of(&ids[1]), "x-notify-routing-key"), "order.created", "what can be read is there");
    assert!(letters.iter().any(|letter| header(letter, "x-notify-reason").contains("content is missing")));
    // The queue still tells which plugin it was for, so a replay reaches no other.
    assert_eq!(header(of(&ids[3]), "x-notify-plugin"), "logger");
    assert_eq!(host.orders().len(), 2);
    host.stop();
}

/// The host's own headers do not fit beside these in a frame of this size.
#[test]
fn headers_that_leave_no_room_in_a_small_frame_do_not_keep_a_message_from_being_tried_again() {
    let mut world = World::on_rabbitmq();
    world.host_url = format!("{}?frame_max=8192", world.url);
    world.plug_misbehaver_with("twice", "[retry]\npause-max = \"1s\"\n");
    let host = world.host();
    let broker = world.broker();
    let mut message = broker::Message::json(r#"{"event":"OrderCreated","order_id":"1","user_id":"u","product":"p"}"#);
    message.properties.headers.insert("large".to_owned(), Value::Text("x".repeat(7800)));
    world.block_on(broker.publish(broker::Target::Queue(&world.queue), &message)).unwrap();
    eventually(SOON, "it gets through", || {
        host.said("misbehaver-twice").iter().any(|(_, line)| line.starts_with("success"))
    });
    host.stop();
}

/// The test's own script kills the host, so that no other process is involved.
#[test]
fn a_crash_is_told_from_a_kill_in_the_folder_of_the_host() {
    let world = World::on_sqlite();
    world.plug_logger();
    let files = || {
        let folders = std::fs::read_dir(world.path("state/folders")).unwrap();
        let all = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path().join("quarantine")).unwrap());
        all.map(|file| file.unwrap().path()).collect::<Vec<_>>()
    };
    let mark = || {
        let files = files();
        let lock = files.iter().find(|path| path.extension().is_some_and(|extension| extension == "lock")).unwrap();
        std::fs::read(lock).unwrap()
    };
    for (signal, expected) in [("KILL", vec![]), ("ABRT", vec![6]), ("BUS", vec![7])] {
        let host = world.host();
        assert_eq!(files().len(), 2, "its own, and what the one before left is gone");
        assert!(
            Command::new("kill").args(["-s", signal, &host.child_guard.id().to_string()]).status().unwrap().success()
        );
        host.child_guard.wait_timeout(Duration::from_mins(1)).expect("it ends");
        assert_eq!(mark(), expected, "{signal}");
    }
}
