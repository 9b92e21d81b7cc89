//! A plugin that hangs and one that always fails do not affect a third.

use testbed::eventually;

use crate::on_both_engines;
use crate::world::{SOON, built};

const COUNT: usize = 600;

on_both_engines! {
    fn the_queue_of_a_well_plugin_empties_while_those_of_others_do_not(world: &World) {
        world.plug_logger();
        // Disable the breaker: spilling alone must protect the third plugin.
        let toml = "[breaker]\ncalls = 10000\n[limits]\ntime = \"1s\"\nconcurrency = 4\n[config]\nact = \"loop\"\n";
        world.plug("misbehaver-loop", &built("NOTIFY_TEST_GUESTS", "misbehaver.wasm"), toml);
        world.plug_misbehaver_with("retry", "");
        let host = world.host();
        let count = COUNT.to_string();
        world.order(&["--quiet", "load", "--count", &count, "--mix", "created=100"]);
        eventually(SOON, "the logger gets everything", || host.orders().len() == COUNT);
        let broker = world.broker();
        let source = || world.queue_state(&broker, &world.queue);
        let log = host.child_guard.stderr();
        let waited_for = log.lines().filter(|line| line.contains("misbehaver-loop") && line.contains("attempt 1 of"));
        assert!(waited_for.count() < COUNT / 2, "the logger had to wait for the one that hangs");
        // The health event about the failing plugin also goes through the source's queue, some time after the orders.
        let news = || host.said("logger").iter().filter(|(_, line)| line.contains("notify.plugin.failing")).count();
        eventually(SOON, "the logger is told", || news() == 1);
        eventually(SOON, "the source's queue is empty", || source().ready == 0);
        host.stop();
        assert_eq!(host.orders().len(), COUNT, "once each");
        let held = |plugin: &str| {
            let state = world.queue_state(&broker, &world.names().plugin(plugin));
            state.ready + state.delayed
        };
        assert_eq!(source().ready, 0, "nothing was given back to it");
        assert_eq!(held("logger"), 0);
        for plugin in ["misbehaver-loop", "misbehaver-retry"] {
            assert!(held(plugin) > COUNT as u64 / 2, "{plugin} has only {} of {COUNT} left", held(plugin));
        }
        assert_eq!(world.queue_state(&broker, &world.names().dead()).ready, 0, "none is given up");
    }
}
