//! Killing RabbitMQ with SIGKILL again and again under load loses nothing that it had confirmed.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker::{Broker, BrokerUrl, ConnectOptions, Message, Target};
use testbed::eventually;
use testbed::rabbitmq::{Node, Release, let_new_queues_settle};

use crate::world::World;

const KILLS: usize = 5;
/// Confirmed events between two kills.
const ROUND: usize = 300;
const MOODY: &str = "misbehaver-sometimes";
/// How long to wait for recovery; a restart takes several seconds.
pub(crate) const LONG: Duration = Duration::from_mins(3);

#[test]
fn a_broker_that_is_killed_five_times_loses_nothing_that_it_confirmed() {
    kill_five_times(&Node::start());
}

#[test]
fn a_rabbitmq_4_that_is_killed_five_times_loses_nothing_that_it_confirmed() {
    kill_five_times(&Node::start_release(Release::Four));
}

fn kill_five_times(node: &Node) {
    let world = World::new(tempfile::tempdir().unwrap(), node.url(), "orders".to_owned(), "notifications".to_owned());
    world.plug_logger();
    world.plug_misbehaver_with("sometimes", "[retry]\npause-max = \"2s\"\n");
    let host = world.host();
    let_new_queues_settle();

    let publisher = Publisher::start(&world);
    for round in 1..=KILLS {
        eventually(LONG, "more is confirmed", || publisher.confirmed().len() >= round * ROUND);
        node.kill();
        node.start_again();
    }
    eventually(LONG, "it goes on", || publisher.confirmed().len() >= (KILLS + 1) * ROUND);
    let confirmed = publisher.stop();
    println!("{} confirmed", confirmed.len());

    let lost = |got: BTreeSet<String>| confirmed.difference(&got).count();
    eventually(LONG, "every confirmed event reaches the logger", || lost(host.distinct_orders()) == 0);
    let successes = || {
        let said = host.said(MOODY).into_iter();
        said.filter_map(|(_, line)| Some(line.strip_prefix("success with ")?.to_owned())).collect()
    };
    eventually(LONG, "and gets through the one that fails now and then", || lost(successes()) == 0);
    host.stop();
    assert_eq!(world.queue_state(&world.broker(), &world.names().dead()).ready, 0);
}

/// Publishes without end over any connection it gets, and records the confirmed events.
pub(crate) struct Publisher {
    confirmed: Arc<Mutex<BTreeSet<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Publisher {
    pub(crate) fn start(world: &World) -> Self {
        let (confirmed, stop) = (Arc::<Mutex<BTreeSet<String>>>::default(), Arc::<AtomicBool>::default());
        let url: BrokerUrl = world.url.parse().unwrap();
        let exchange = world.exchange.clone();
        let (book, ended) = (Arc::clone(&confirmed), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut number = 0;
                let options = ConnectOptions { name: "test".to_owned(), timeout: Duration::from_secs(5) };
                while !ended.load(Ordering::Relaxed) {
                    let Ok(broker) = Broker::connect(&url, &options).await else {
                        tokio::time::sleep(Duration::from_millis(200)).await;
                        continue;
                    };
                    while !ended.load(Ordering::Relaxed) {
                        let ids: Vec<String> = (0..10).map(|at| format!("order-{}", number + at)).collect();
                        number += 10;
                        let publish = |id: String| {
                            let (broker, exchange) = (&broker, exchange.as_str());
                            async move {
                                let target = Target::Exchange { exchange, routing_key: "order.created" };
                                broker.publish(target, &order(&id)).await.is_ok().then_some(id)
                            }
                        };
                        let done = futures_util::future::join_all(ids.into_iter().map(publish)).await;
                        let count = done.iter().flatten().count();
                        book.lock().unwrap().extend(done.into_iter().flatten());
                        if count < 10 {
                            break;
                        }
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            });
        });
        Self { confirmed, stop, thread: Some(thread) }
    }

    pub(crate) fn confirmed(&self) -> BTreeSet<String> {
        self.confirmed.lock().unwrap().clone()
    }

    pub(crate) fn stop(mut self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        self.confirmed()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn order(id: &str) -> Message {
    let mut message = Message::json(format!(r#"{{"event":"OrderCreated","order_id":"{id}"}}"#));
    message.properties.message_id = Some(id.to_owned());
    message
}
