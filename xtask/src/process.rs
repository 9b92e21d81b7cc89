//! Resource usage of a process, from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::Context as _;

/// Returns the CPU time of the process, including its start but not its children.
pub(crate) fn processor_time(process: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).context("cannot look at the host in /proc")?;
    Ok(time_in(&stat))
}

fn time_in(stat: &str) -> Duration {
    // Length of a clock tick, which is the same on every Linux.
    const TICK: Duration = Duration::from_millis(10);
    // The fields start after the name, which may contain anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks = fields.skip(11).take(2).map(|field| field.parse::<u32>().unwrap_or_default()).sum::<u32>();
    TICK * ticks
}

/// Returns the CPU time of the currently running threads, in microseconds where the kernel has it, else in ticks.
pub(crate) fn fine_processor_time(process: u32) -> anyhow::Result<Duration> {
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task")).context("cannot look at the host in /proc")? {
        // The thread may have ended by now.
        let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        nanos += text.split_whitespace().next().and_then(|field| field.parse::<u64>().ok()).unwrap_or_default();
    }
    if nanos == 0 { processor_time(process) } else { Ok(Duration::from_nanos(nanos)) }
}

/// Returns the resident memory in MiB.
pub(crate) fn resident(process: u32) -> anyhow::Result<f64> {
    Ok(status(process, "VmRSS:")? / 1024.0)
}

/// Returns a number from the kernel's status of a process; memory is in KiB.
pub(crate) fn status(process: u32, name: &str) -> anyhow::Result<f64> {
    let file = format!("/proc/{process}/status");
    let status = fs::read_to_string(&file).context("cannot look at the host in /proc")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse().ok());
    number.with_context(|| format!("{file} has no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_have_anything_in_it() {
        let stat = "77 (a) b (c)) S 1 77 77 0 -1 4194304 100 0 0 0 250 31 9 9 20 0 7 0 100 0 0";
        assert_eq!(time_in(stat), Duration::from_millis(2810));
    }

    #[test]
    fn this_process_can_be_looked_at() {
        let own = std::process::id();
        processor_time(own).unwrap();
        assert!(fine_processor_time(own).unwrap() > Duration::ZERO);
        assert!(resident(own).unwrap() > 1.0);
    }
}
