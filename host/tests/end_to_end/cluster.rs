//! A cluster of three nodes loses one node, then another. The host continues on a different node within seconds, and
//! no confirmed event is lost.

use std::time::Instant;

use testbed::eventually;
use testbed::rabbitmq::{self, Node};

use crate::broker_crash::{LONG, Publisher};
use crate::world::{Host, World};

/// Confirmed events between two losses.
const ROUND: usize = 200;

#[test]
fn a_cluster_that_loses_a_node_loses_no_event() {
    let nodes = rabbitmq::cluster(3);
    let urls: Vec<_> = nodes.iter().map(Node::url).collect();
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(folder, urls.join(","), "orders".to_owned(), "notifications".to_owned());
    world.plug_logger();
    let host = world.host();
    let publisher = Publisher::start(&world);
    eventually(LONG, "it is in the middle of it", || publisher.confirmed().len() >= ROUND);

    lose("leads the queue", leader(&nodes, &world.queue), &publisher, &host);
    all_know_the_queue(&nodes, &world.queue);
    let sessions = || host.child_guard.stderr().matches("ready: ").count();
    let before = sessions();
    lose("the host is connected to", connected(&nodes, &host), &publisher, &host);
    eventually(LONG, "it has gone to another node", || sessions() > before);

    let confirmed = publisher.stop();
    let lost = || confirmed.difference(&host.distinct_orders()).count();
    eventually(LONG, "every confirmed event reaches the logger", || lost() == 0);
    host.stop();
}

/// Kills the node, waits until events are confirmed and handled again, and restarts the node.
fn lose(what: &str, node: &Node, publisher: &Publisher, host: &Host) {
    let (confirmed, handled) = (publisher.confirmed().len(), host.distinct_orders().len());
    node.kill();
    let killed = Instant::now();
    eventually(LONG, "events are confirmed again", || publisher.confirmed().len() >= confirmed + ROUND);
    eventually(LONG, "events are handled again", || host.distinct_orders().len() >= handled + ROUND);
    println!("{ROUND} more events {:.1} s after the node that {what} was killed", killed.elapsed().as_secs_f64());
    node.start_again();
}

/// Returns the node that leads the queue.
fn leader<'a>(nodes: &'a [Node], queue: &str) -> &'a Node {
    let text = nodes[0].ctl(&["list_queues", "name", "leader", "--no-table-headers"]);
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(queue));
    let line = line.unwrap_or_else(|| panic!("no queue {queue} in\n{text}"));
    nodes.iter().find(|node| line.contains(&node.name())).unwrap_or_else(|| panic!("no leader in {line}"))
}

/// Returns the node that the host most recently reported consuming from.
fn connected<'a>(nodes: &'a [Node], host: &Host) -> &'a Node {
    let log = host.child_guard.stderr();
    let line = log.lines().rfind(|line| line.contains("ready: ")).unwrap();
    nodes.iter().find(|node| line.contains(&format!("127.0.0.1:{}/", node.port()))).unwrap()
}

/// Waits until the queue has all its members. Two of three must agree when the next node is lost.
fn all_know_the_queue(nodes: &[Node], queue: &str) {
    eventually(LONG, "the queue has three members that are up", || {
        let text = nodes[0].ctl(&["list_queues", "name", "online", "--no-table-headers"]);
        let line =
            text.lines().find(|line| line.split_whitespace().next() == Some(queue)).unwrap_or_default().to_owned();
        nodes.iter().all(|node| line.contains(&node.name()))
    });
}
