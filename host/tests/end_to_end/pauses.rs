//! The host stops calling a failing or misconfigured plugin, tells the other plugins, and loses nothing.

use std::fs;

use testbed::eventually;

use crate::on_both_engines;
use crate::world::{SOON, built};

const QUICK_BREAKER: &str = "[breaker]\ncalls = 3\npause-min = \"1s\"\n[retry]\nattempts = 100\n";

on_both_engines! {
    fn a_misconfigured_plugin_is_paused_until_its_toml_changes(world: &World) {
        world.plug_logger();
        world.plug_misbehaver("misconfigured");
        let name = "misbehaver-misconfigured";
        let host = world.host();
        let ids = world.order(&["demo"]);
        host.wait_for("paused: it says that it is misconfigured");
        for id in &ids {
            host.wait_for_order(id);
        }
        host.wait_for("notify.plugin.paused");
        let broker = world.broker();
        let waiting = || world.queue_state(&broker, &world.names().plugin(name)).ready;
        eventually(SOON, "both events wait for it", || waiting() == 2);
        assert_eq!(world.queue_state(&broker, &world.names().dead()).ready, 0);

        fs::write(world.plugins().join(format!("{name}.toml")), "[config]\nact = \"twice\"\n").unwrap();
        host.wait_for("resumed: it gets its events again");
        host.wait_for("notify.plugin.recovered");
        let successes = || host.said(name).iter().filter(|(_, line)| line.starts_with("success")).count();
        eventually(SOON, "both get through", || successes() == 2);
        // Attempts begin at 1, because the pause was not an attempt.
        assert_eq!(host.said(name).iter().filter(|(_, line)| line.starts_with("call 1")).count(), 2);
        host.stop();
        assert_eq!(waiting(), 0);
    }

    fn a_failing_plugin_is_left_alone_and_others_are_told(world: &World) {
        world.plug_logger();
        world.plug("moody", &built("NOTIFY_TEST_GUESTS", "misbehaver.wasm"), &format!("{QUICK_BREAKER}[config]\nact = \"retry\"\n"));
        let host = world.host();
        let count = 60;
        world.order(&["--quiet", "load", "--count", &count.to_string(), "--mix", "created=100"]);
        host.wait_for("failing: it is left alone");
        eventually(SOON, "the logger gets everything", || host.orders().len() == count);
        host.wait_for("notify.plugin.failing");
        let told = host.child_guard.stderr();
        // The logger writes it; the failing plugin itself is not told.
        assert!(told.lines().any(|line| line.contains("notify.plugin.failing") && line.contains("moody")), "{told}");
        host.stop();
        let broker = world.broker();
        assert_eq!(world.queue_state(&broker, &world.queue).ready, 0);
        assert_eq!(world.queue_state(&broker, &world.names().dead()).ready, 0, "none is given up");
    }

    fn a_plugin_that_recovers_gets_all_that_waited(world: &World) {
        world.plug_logger();
        world.plug_misbehaver_with("twice", "[breaker]\ncalls = 3\npause-min = \"1s\"\npause-max = \"1s\"\n");
        let host = world.host();
        let count = 6;
        world.order(&["--quiet", "load", "--count", &count.to_string(), "--mix", "created=100"]);
        // Every event fails twice, so that it takes several probes.
        host.wait_for("failing: it is left alone");
        host.wait_for("recovered: it gets its events again");
        host.wait_for("notify.plugin.recovered");
        let successes = || {
            let said = host.said("misbehaver-twice").into_iter();
            said.filter(|(_, line)| line.starts_with("success")).count()
        };
        eventually(SOON, "all get through", || successes() >= count);
        host.stop();
        assert_eq!(world.queue_state(&world.broker(), &world.names().dead()).ready, 0, "none is given up");
    }
}
