//! Plugins come, change, break and go many times under steady load, without visible effect.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use testbed::eventually;

use crate::on_both_engines;
use crate::world::{Host, SOON, World, built};

/// Number of changes to the folder.
const CHANGES: usize = 50;
/// Changes before memory is first measured. By then the host has allocated everything it needs.
const WARM: usize = 10;
/// Events per second, published in batches.
const RATE: &str = "100";
const BATCH: usize = 100;

/// The plugin whose files change.
struct Changing<'a> {
    host: &'a Host,
    content: Vec<u8>,
    wasm: PathBuf,
    toml: PathBuf,
    renamed_wasm: PathBuf,
    renamed_toml: PathBuf,
}

impl Changing<'_> {
    /// Makes one change, and waits until the host has acted on it.
    fn change(&self, number: usize) {
        let lines = |text: &str| self.host.child_guard.stderr().matches(text).count();
        let (loaded, unloaded, refused) = (lines("\"loaded"), lines("unloaded: "), lines("goes on running"));
        let once_more = |text: &str, before: usize| {
            eventually(SOON, &format!("change {number}: {text}"), || lines(text) > before);
        };
        match number % 10 {
            // Drop it in.
            0 | 8 => {
                self.label(number);
                fs::write(&self.wasm, &self.content).unwrap();
                once_more("\"loaded", loaded);
            }
            // Edit it; this also repairs a broken file.
            1 | 4 => {
                self.label(number);
                once_more("\"loaded", loaded);
            }
            // Replace it atomically. A custom section makes it another file.
            2 | 5 => {
                let part = self.wasm.with_extension("part");
                let section = [0, 3, 1, b'v', u8::try_from(number).unwrap()];
                fs::write(&part, [&self.content[..], &section].concat()).unwrap();
                fs::rename(&part, &self.wasm).unwrap();
                once_more("\"loaded", loaded);
            }
            // Break either file.
            3 => {
                fs::write(&self.toml, "[confg]\n").unwrap();
                once_more("goes on running", refused);
            }
            6 => {
                fs::write(&self.wasm, &self.content[..self.content.len() / 2]).unwrap();
                once_more("goes on running", refused);
            }
            // Repair it under another name.
            7 => {
                fs::write(&self.wasm, &self.content).unwrap();
                fs::rename(&self.toml, &self.renamed_toml).unwrap();
                fs::rename(&self.wasm, &self.renamed_wasm).unwrap();
                once_more("\"loaded", loaded);
                once_more("unloaded: ", unloaded);
            }
            // Remove it under both names.
            _ => {
                for path in [&self.wasm, &self.toml, &self.renamed_wasm, &self.renamed_toml] {
                    fs::remove_file(path).unwrap();
                }
                once_more("unloaded: ", unloaded + 1);
            }
        }
    }

    fn label(&self, number: usize) {
        fs::write(&self.toml, format!("[config]\nlabel = \"v{number}\"\n")).unwrap();
    }

    /// Returns the host's resident memory in KiB.
    fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.host.child_guard.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

/// Publishes until `done`, and returns the number of events.
fn publish(world: &World, done: &AtomicBool) -> usize {
    let mut published = 0;
    while !done.load(Ordering::Relaxed) {
        world.order(&["--quiet", "load", "--count", &BATCH.to_string(), "--rate", RATE, "--mix", "created=100"]);
        published += BATCH;
    }
    published
}

/// Ends the publishing, even when a change fails.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

on_both_engines! {
    fn fifty_changes_under_steady_load_lose_no_event_and_leave_no_memory_behind(world: &World) {
        world.plug_logger();
        let host = world.host();
        let path = |name: &str| world.plugins().join(name);
        let changing = Changing {
            host: &host,
            content: fs::read(built("NOTIFY_TEST_GUESTS", "witness.wasm")).unwrap(),
            wasm: path("witness.wasm"),
            toml: path("witness.toml"),
            renamed_wasm: path("renamed.wasm"),
            renamed_toml: path("renamed.toml"),
        };
        let (done, published) = (AtomicBool::new(false), AtomicUsize::new(0));
        let (start, end) = thread::scope(|scope| {
            scope.spawn(|| published.store(publish(world, &done), Ordering::Relaxed));
            let _done = Done(&done);
            (0..WARM).for_each(|number| changing.change(number));
            let start = changing.resident();
            (WARM..CHANGES).for_each(|number| changing.change(number));
            (start, changing.resident())
        });
        let published = published.into_inner();
        eventually(SOON, "the logger gets every event", || host.orders().len() >= published);
        host.stop();
        println!("resident: {start} KiB after {WARM} changes, {end} KiB after {CHANGES}, and {published} events");
        assert_eq!(host.orders().len(), published, "the logger was called once for each");
        assert_eq!(host.distinct_orders().len(), published);
        // The changing plugin was never called half-loaded: no call failed.
        assert!(!host.logged("attempt 1 of") && !host.logged("dead-lettered"), "{}", host.child_guard.stderr());
        for plugin in ["witness", "renamed"] {
            assert!(host.said(plugin).len() > 10, "{plugin} saw {} events", host.said(plugin).len());
        }
        let broker = world.broker();
        let names = world.names();
        for queue in [&world.queue, &names.plugin("witness"), &names.plugin("renamed"), &names.dead()] {
            assert_eq!(world.queue_state(&broker, queue).ready, 0, "{queue}");
        }
        assert!(end * 10 <= start * 11, "the host grew from {start} KiB to {end} KiB");
    }
}
