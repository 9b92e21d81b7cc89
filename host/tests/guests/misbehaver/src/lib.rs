//! A guest that fails in the way its configuration selects.

mod greed;

use std::time::{Duration, Instant};

use notify_plugin::{Delivery, Event, Handled, Info, Plugin, done, misconfigured, reject, retry, retry_after, skipped};
use serde::Deserialize;
use wasip2::cli::stdout::get_stdout;
use wasip2::clocks::monotonic_clock::subscribe_duration;

/// Duration of a slow call.
const SLOW: Duration = Duration::from_secs(2);
const HOUR_IN_NANOSECONDS: u64 = 3_600_000_000_000;
/// Terminal control sequences: clear the screen, set the title, change the colour, reverse the writing direction.
const ESCAPES: &str = "\u{1b}[2J\u{1b}]0;mine\u{7}\u{9b}31m\r\u{202e}";

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
            // Log every attempt, so that a test can count them.
            "twice" if delivery.attempt <= 2 => {
                notify_plugin::info!("call {} for {}", delivery.attempt, event.id);
                Err(retry("told to fail twice"))
            }
            // About one call in eight fails, chosen by a hash, so that it is always the same ones.
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
            "call-out" => {
                let secret = notify_plugin::secrets::open("anything");
                assert!(secret.is_err(), "a secret without a grant");
                done()
            }
            "recursion" => {
                notify_plugin::info!("{}", recursion(1));
                done()
            }
            "sleep" => {
                subscribe_duration(HOUR_IN_NANOSECONDS).block();
                done()
            }
            "exit" => {
                wasip2::cli::exit::exit(Err(()));
                done()
            }
            "retry-never" => Err(retry_after("told to wait for ever", u64::MAX)),
            "escapes" => {
                let fields = [(format!("name{ESCAPES}"), format!("value{ESCAPES}"))];
                notify_plugin::bindings::notify::plugin::log::write(
                    notify_plugin::Level::Info,
                    &format!("message{ESCAPES}"),
                    &fields,
                );
                // The text counts as printed even if the flush fails.
                drop(get_stdout().blocking_write_and_flush(format!("printed{ESCAPES}\n").as_bytes()));
                Err(reject(format!("code{ESCAPES}"), format!("reason{ESCAPES}")))
            }
            other => greed::act(other)
                .unwrap_or_else(|| Err(misconfigured(format!("{other:?} is nothing that this guest can do")))),
        }
    }
}

/// Recurses deeper than any stack.
#[inline(never)]
#[expect(unconditional_recursion, reason = "this is what it is for")]
fn recursion(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 64]);
    frame[0] + recursion(depth + 1) + std::hint::black_box(frame)[1]
}

fn chance(id: &str, attempt: u32) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    (id, attempt).hash(&mut hasher);
    hasher.finish()
}

notify_plugin::export!(Misbehaver);
