//! A host that is killed with SIGKILL again and again loses nothing and repeats little.

use std::collections::BTreeSet;
use std::process::Output;
use std::time::Duration;

use testbed::{ChildGuard, eventually};

use crate::on_both_engines;
use crate::world::{Host, SOON, World};

const COUNT: usize = 5000;
const KILLS: usize = 20;
/// Maximum unacknowledged messages of a host.
const PREFETCH: usize = 256;
/// Rate in events per second. The load lasts about as long as the kills.
const RATE: &str = "300";
const MOODY: &str = "misbehaver-sometimes";

on_both_engines! {
    fn a_host_that_is_killed_twenty_times_under_load_loses_nothing(world: &World) {
        world.plug_logger();
        // With the default, four failures in a row would wait for more than a minute.
        world.plug_misbehaver_with("sometimes", "[retry]\npause-max = \"2s\"\n");
        let random = fastrand::Rng::with_seed(fastrand::u64(..));
        println!("seed: {}", random.get_seed());
        let mut random = random;
        let count = COUNT.to_string();
        let mut hosts = vec![world.host()];
        let load = ChildGuard::spawn(
            world.order_cli_command(&["--quiet", "load", "--count", &count, "--rate", RATE, "--mix", "created=100"]),
        );
        // Declared here so that it prints while the last host still runs.
        let _said = SaidOnFailure(world);
        for _ in 0..KILLS {
            let host = hosts.last().unwrap();
            eventually(SOON, "it is at work", || !host.orders().is_empty());
            // Kill at a random moment, within an attempt, a settlement, or neither.
            std::thread::sleep(Duration::from_micros(random.u64(0..300_000)));
            host.child_guard.kill();
            hosts.push(world.host());
        }
        let status = load.wait_timeout(SOON).expect("the load ends");
        assert!(status.success(), "{}", load.stderr());

        let earlier: Vec<_> = hosts.iter().take(KILLS).map(|host| (host.distinct_orders(), successes(host))).collect();
        let last = hosts.last().unwrap();
        let orders = || union(earlier.iter().map(|(orders, _)| orders), last.distinct_orders());
        let done = || union(earlier.iter().map(|(_, done)| done), successes(last));
        eventually(SOON, "every event reaches the logger", || orders().len() == COUNT);
        eventually(SOON, "every event gets through in the end", || done().len() == COUNT);
        last.stop();
        let calls: usize = hosts.iter().map(|host| host.orders().len()).sum();
        println!("{} of {COUNT} were repeated", calls - COUNT);
        assert!(calls <= COUNT + KILLS * PREFETCH, "{calls} calls: more than what was in flight was repeated");
        let broker = world.broker();
        // Leave out the moody plugin's queue: a repetition may still wait for its next attempt.
        for queue in [world.queue.clone(), world.names().plugin("logger"), world.names().dead()] {
            let state = world.queue_state(&broker, &queue);
            assert_eq!((state.ready, state.delayed), (0, 0), "{queue}");
        }
    }
}

/// Prints the plugins' states and the moody plugin's last events if the test fails.
struct SaidOnFailure<'w>(&'w World);

impl Drop for SaidOnFailure<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let last = ["events", "--plugin", MOODY, "--lines", "40"];
            let retried = [&last[..], &["--outcome", "retry"]].concat();
            let said =
                [self.0.plugin_command(&["list"]), self.0.journal_command(&last), self.0.journal_command(&retried)];
            for Output { stdout, stderr, .. } in said {
                println!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
            }
        }
    }
}

fn union<'a>(sets: impl Iterator<Item = &'a BTreeSet<String>>, last: BTreeSet<String>) -> BTreeSet<String> {
    sets.fold(last, |all, set| &all | set)
}

/// Returns the ids of the events that the moody plugin completed.
fn successes(host: &Host) -> BTreeSet<String> {
    let said = host.said(MOODY).into_iter();
    said.filter_map(|(_, line)| Some(line.strip_prefix("success with ")?.to_owned())).collect()
}
