//! Metrics of this process, named as in Prometheus' own client libraries. Linux only; elsewhere there are none.

use std::fs;

use crate::exposition::Exposition;

/// Ticks per second of CPU times in `/proc`. The kernel's internal tick rate does not matter.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) fn write(page: &mut Exposition) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    if let Some(kibibytes) = number("VmRSS:") {
        let mut memory = page.gauge("process_resident_memory_bytes", "Memory of the process that is in use");
        memory.count(&[], kibibytes << 10);
    }
    if let Some(threads) = number("Threads:") {
        page.gauge("process_threads", "Threads of the process").count(&[], threads);
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        // Subtract the descriptor of this `read_dir`.
        let count = files.count().saturating_sub(1) as u64;
        page.gauge("process_open_fds", "Files, sockets and the like that the process has open").count(&[], count);
    }
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    if let Some((cpu, started)) = cpu_and_start(&stat) {
        page.counter("process_cpu_seconds_total", "Processor time that the process has used").value(&[], cpu);
        let machine = fs::read_to_string("/proc/stat").unwrap_or_default();
        let booted = machine.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
        if let Some(booted) = booted {
            let mut began = page.gauge("process_start_time_seconds", "When the process began, in seconds since 1970");
            began.value(&[], booted + started);
        }
    }
}

/// Returns CPU time and start time in seconds; the start time counts from boot.
fn cpu_and_start(stat: &str) -> Option<(f64, f64)> {
    // The process name stands in brackets and may contain anything, so search from the end.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<_> = rest.split_whitespace().collect();
    let seconds = |at: usize| fields.get(at)?.parse::<f64>().ok().map(|ticks| ticks / TICKS_PER_SECOND);
    Some((seconds(11)? + seconds(12)?, seconds(19)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_whatever_name() {
        let stat = "1 (a ) b) S 1 1 1 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 12345 1 1";
        assert_eq!(cpu_and_start(stat), Some((3.0, 123.45)));
        assert_eq!(cpu_and_start(""), None);
    }
}
