//! A host that is told to stop finishes its running calls if there is time, and gives back the rest.

use crate::on_both_engines;
use crate::world::{Host, SOON, World, built};

const NAME: &str = "slow";

/// Starts a host and returns while it is in the middle of a two-second call.
fn busy_host(world: &World, arguments: &[&str]) -> Host {
    let toml = "[limits]\ntime = \"30s\"\n[config]\nact = \"slow\"\n";
    world.plug(NAME, &built("NOTIFY_TEST_GUESTS", "misbehaver.wasm"), toml);
    let host = world.host_with(arguments);
    host.wait_for("ready: ");
    order(world);
    host.wait_for("begun with");
    host
}

fn order(world: &World) {
    world.order(&["create", "--user", "u", "--product", "p"]);
}

fn successes(host: &Host) -> usize {
    host.said(NAME).iter().filter(|(_, line)| line.starts_with("success")).count()
}

/// Checks that the next host handles the waiting orders.
fn the_next_host_handles(world: &World, count: usize) {
    let next = world.host();
    testbed::eventually(SOON, "the next host handles what is left", || successes(&next) == count);
    next.stop();
    let broker = world.broker();
    for queue in [world.queue.clone(), world.names().plugin(NAME), world.names().dead()] {
        let state = world.queue_state(&broker, &queue);
        assert_eq!((state.ready, state.delayed), (0, 0), "{queue}");
    }
}

on_both_engines! {
    fn the_drain_waits_for_the_event_in_flight_and_takes_no_other(world: &World) {
        let host = busy_host(world, &[]);
        host.child_guard.terminate();
        host.wait_for("stopping; once more to end at once");
        order(world);
        let status = host.child_guard.wait_timeout(SOON).expect("the host stops");
        assert_eq!(status.code(), Some(0), "{}", host.child_guard.stderr());
        assert_eq!(successes(&host), 1);
        assert!(host.logged("stopped: everything that was begun is done"), "{}", host.child_guard.stderr());
        the_next_host_handles(world, 1);
    }

    fn what_does_not_finish_in_time_goes_back_to_the_queue(world: &World) {
        let host = busy_host(world, &["--drain-timeout", "100ms"]);
        host.stop();
        assert_eq!(successes(&host), 0);
        assert!(host.logged("stopped: not all calls finished in time"), "{}", host.child_guard.stderr());
        the_next_host_handles(world, 1);
    }

    fn a_second_signal_ends_the_host_at_once_and_loses_nothing(world: &World) {
        let host = busy_host(world, &[]);
        host.child_guard.terminate();
        host.wait_for("stopping; once more to end at once");
        host.child_guard.terminate();
        let status = host.child_guard.wait_timeout(SOON).expect("the host ends");
        assert_eq!(status.code(), Some(130), "{}", host.child_guard.stderr());
        assert_eq!(successes(&host), 0);
        the_next_host_handles(world, 1);
    }
}
