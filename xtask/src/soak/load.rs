//! Publishes orders at a steady rate throughout the soak, except while the broker is away.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::bail;
use testbed::ChildGuard;

use crate::demo::program;
use crate::soak::{LOOK_INTERVAL, SoakEnvironment, pause};

/// Default exchange that a host consumes from.
const EXCHANGE: &str = "orders";
const MIX: &str = "created=70,paid=28,canceled=2";
/// Length of one run of order-cli, which ends when the broker is lost.
const RUN_SECONDS: u64 = 10;
/// Time limit of a run; a longer one is stuck.
const RUN_LIMIT: Duration = Duration::from_mins(2);
const PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Load<'l> {
    pub(super) place: &'l SoakEnvironment,
    pub(super) rate: u64,
}

/// An event that the broker has confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) id: String,
    pub(super) routing_key: String,
}

impl Load<'_> {
    pub(super) fn run(&self, stop: &AtomicBool) -> anyhow::Result<Vec<Published>> {
        let mut published = HashMap::new();
        while !pause(PAUSE, stop) {
            let mut load = program(&self.place.programs, "order-cli");
            load.args(["--broker", &self.place.broker, "--exchange", EXCHANGE]);
            load.args(["load", "--ids", "--json", "--mix", MIX]);
            load.args(["--count", &(self.rate * RUN_SECONDS).to_string(), "--rate", &self.rate.to_string()]);
            let load = ChildGuard::spawn(load);
            let mut waited = Duration::ZERO;
            while load.wait_timeout(LOOK_INTERVAL).is_none() {
                waited += LOOK_INTERVAL;
                if waited > RUN_LIMIT {
                    bail!("order-cli hangs:\n{}", load.stderr());
                }
            }
            published.extend(load.stdout().lines().filter_map(confirmed));
        }
        Ok(published.into_iter().map(|(id, routing_key)| Published { id, routing_key }).collect())
    }
}

/// Parses a line. Returns `None` for the report at the end.
fn confirmed(line: &str) -> Option<(String, String)> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    Some((line["message_id"].as_str()?.to_owned(), line["routing_key"].as_str()?.to_owned()))
}
