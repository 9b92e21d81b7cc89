//! A host that is killed with SIGKILL loses nothing.

use std::collections::BTreeSet;

use testbed::{Leash, eventually};

use crate::on_both_engines;
use crate::world::SOON;

const COUNT: usize = 1500;

on_both_engines! {
    fn a_host_that_is_killed_in_mid_load_loses_nothing(world: &World) {
        world.plug_logger();
        let host = world.host();
        let count = COUNT.to_string();
        let load = Leash::spawn(world.order_cli_command(&["--quiet", "load", "--count", &count, "--mix", "created=100"]));
        eventually(SOON, "the host is in the middle of it", || host.orders().len() > COUNT / 10);
        host.leash.kill();
        let first = host.distinct_orders();
        assert!(first.len() < COUNT, "the host was done before it was killed");

        let second = world.host();
        let status = load.wait_timeout(SOON).expect("the load ends");
        assert!(status.success(), "{}", load.stderr());
        let all = || -> BTreeSet<String> { &first | &second.distinct_orders() };
        eventually(SOON, "every order reaches the logger", || all().len() == COUNT);
        second.stop();
        let state = world.queue_state(&world.broker(), &world.queue);
        assert_eq!(state.ready, 0);
    }
}
