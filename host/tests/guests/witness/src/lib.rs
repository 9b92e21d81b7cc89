//! A guest that reports which events it saw, with the label from its settings.

use std::time::{Duration, Instant};

use notify_plugin::{Delivery, Event, Handled, Info, Plugin, done};
use serde::Deserialize;

#[derive(Deserialize)]
struct Settings {
    label: String,
    /// Duration of a call in milliseconds.
    #[serde(default)]
    milliseconds: u64,
}

struct Witness;

impl Plugin for Witness {
    fn describe() -> Info {
        Info::new("witness", env!("CARGO_PKG_VERSION"), "Tells which events it saw")
    }

    fn handle(_event: Event, _delivery: Delivery) -> Handled {
        let settings: Settings = notify_plugin::config()?;
        let begun = Instant::now();
        if settings.milliseconds > 0 {
            notify_plugin::info!("begun by {}", settings.label);
        }
        while begun.elapsed() < Duration::from_millis(settings.milliseconds) {
            std::hint::spin_loop();
        }
        notify_plugin::info!("seen by {}", settings.label);
        done()
    }
}

notify_plugin::export!(Witness);
