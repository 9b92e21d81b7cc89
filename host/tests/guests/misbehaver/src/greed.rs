//! Acts that consume more than a plugin may have.

use notify_plugin::bindings::notify::plugin::log;
use notify_plugin::{Handled, Level, done, done_with, reject, retry};
use wasip2::cli::stdout::get_stdout;
use wasip2::clocks::monotonic_clock::subscribe_duration;

/// Performs an act. Returns `None` if it is none of these.
pub(crate) fn act(act: &str) -> Option<Handled> {
    Some(match act {
        "memory" => {
            let mut hoard = Vec::new();
            loop {
                hoard.push(vec![1_u8; 1 << 20]);
                std::hint::black_box(&hoard);
            }
        }
        "random" => {
            let bytes = wasip2::random::random::get_random_bytes(1 << 30);
            done_with(format!("{} bytes", bytes.len()))
        }
        "handles" => {
            let mut hoard = Vec::new();
            loop {
                hoard.push(subscribe_duration(1));
                std::hint::black_box(&hoard);
            }
        }
        "log-flood" => {
            for number in 0..20_000 {
                notify_plugin::info!("line {number}");
            }
            done()
        }
        "log-line" => {
            notify_plugin::info!("{}", "x".repeat(8 << 20));
            done()
        }
        "log-fields" => {
            let fields: Vec<_> = (0..10_000).map(|number| (format!("field-{number}"), "x".to_owned())).collect();
            log::write(Level::Info, "fields", &fields);
            done()
        }
        "print-flood" => {
            let (stdout, piece) = (get_stdout(), vec![b'x'; 64 << 10]);
            for _ in 0..(100 << 20) / piece.len() {
                if stdout.check_write().is_err() || stdout.write(&piece).is_err() {
                    return Some(Err(retry("standard output is closed")));
                }
            }
            done()
        }
        "long-result" => Err(reject("long", "é".repeat(1 << 20))),
        "huge-result" => Err(reject("huge", "x".repeat(20 << 20))),
        _ => return None,
    })
}
