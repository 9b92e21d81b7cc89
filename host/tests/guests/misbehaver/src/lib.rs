//! A guest that fails in the way that its configuration says.

use std::time::{Duration, Instant};

use notify_plugin::{Delivery, Event, Handled, Info, Plugin, done, misconfigured, reject, retry, skipped};
use serde::Deserialize;

/// How long a slow call takes.
const SLOW: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
struct Settings {
    act: String,
}

struct Misbehaver;

impl Plugin for Misbehaver {
    fn describe() -> Info {
        Info::new("misbehaver", env!("CARGO_PKG_VERSION"), "Fails in the way that its configuration says")
    }

    fn handle(event: Event, delivery: Delivery) -> Handled {
        let settings: Settings = notify_plugin::config()?;
        match settings.act.as_str() {
            "skip" => skipped("told to"),
            // Every attempt shows, so that a test can count them.
            "twice" if delivery.attempt <= 2 => {
                notify_plugin::info!("call {} for {}", delivery.attempt, event.id);
                Err(retry("told to fail twice"))
            }
            // One call in eight, by chance that is the same each time.
            "sometimes" if chance(&event.id, delivery.attempt).is_multiple_of(8) => {
                Err(retry("told to fail now and then"))
            }
            "twice" | "sometimes" => {
                notify_plugin::info!("success with {}", event.id);
                done()
            }
            "retry" => Err(retry("told to try again")),
            "reject" => Err(reject("told-to", "told to reject")),
            "misconfigured" => Err(misconfigured("told to complain")),
            "panic" => panic!("told to panic"),
            "loop" => loop {
                std::hint::spin_loop();
            },
            "slow" => {
                notify_plugin::info!("begun with {}", event.id);
                let begun = Instant::now();
                while begun.elapsed() < SLOW {
                    std::hint::spin_loop();
                }
                notify_plugin::info!("success with {}", event.id);
                done()
            }
            "memory" => {
                let mut hoard = Vec::new();
                loop {
                    hoard.push(vec![1_u8; 1 << 20]);
                    std::hint::black_box(&hoard);
                }
            }
            "call-out" => {
                let secret = notify_plugin::secrets::open("anything");
                assert!(secret.is_err(), "a secret without a grant");
                done()
            }
            other => Err(misconfigured(format!("{other:?} is nothing that this guest can do"))),
        }
    }
}

fn chance(id: &str, attempt: u32) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    (id, attempt).hash(&mut hasher);
    hasher.finish()
}

notify_plugin::export!(Misbehaver);
