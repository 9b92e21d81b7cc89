//! Samples a process's resource usage, and checks that it stays level.

use std::fmt;
use std::fs;
use std::time::Duration;

use anyhow::Context as _;

use crate::process;

/// Share of the time to ignore at the start, while caches fill and pools grow.
const WARM_UP_SHARE: f64 = 0.3;
/// Maximum growth after the warm-up, along the best-fitting line. A leak is something that would show within a day.
const MEMORY_GROWTH_SHARE_MAX: f64 = 0.08;
const MEMORY_GROWTH_MIB_MIN: f64 = 8.0;
const HANDLES_GROWTH_MAX: f64 = 12.0;
const THREADS_GROWTH_MAX: f64 = 4.0;

/// Resource usage at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ResourceSample {
    at: Duration,
    resident_mib: f64,
    handles: f64,
    threads: f64,
}

impl ResourceSample {
    pub(super) const HEADINGS: &str = "   seconds  resident, MiB  handles  threads";

    pub(super) fn of(process: u32, at: Duration) -> anyhow::Result<Self> {
        let mut handles = 0.0;
        for _ in fs::read_dir(format!("/proc/{process}/fd")).context("cannot look at the host's handles")? {
            handles += 1.0;
        }
        let resident_mib = process::resident(process)?;
        Ok(Self { at, resident_mib, handles, threads: process::status(process, "Threads:")? })
    }
}

impl fmt::Display for ResourceSample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, resident_mib, handles, threads } = self;
        write!(f, "{:>10}{resident_mib:>15.1}{handles:>9}{threads:>9}", at.as_secs())
    }
}

/// Trend of one resource.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ResourceTrend {
    what: &'static str,
    mean: f64,
    /// Growth from the end of the warm-up to the end.
    growth: f64,
    growth_max: f64,
}

impl ResourceTrend {
    pub(super) fn is_flat(&self) -> bool {
        self.growth <= self.growth_max
    }
}

impl fmt::Display for ResourceTrend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, mean, growth, growth_max } = self;
        let word = if self.is_flat() { "flat" } else { "GROWS" };
        write!(f, "{what:<15}{word:<6} mean {mean:.1}, growth after the warm-up {growth:+.1} (at most {growth_max:.1})")
    }
}

/// Returns the trend of each resource, or nothing if there are too few samples.
pub(super) fn judge(samples: &[ResourceSample]) -> Vec<ResourceTrend> {
    const SAMPLES_MIN: usize = 10;
    let Some(last) = samples.last() else { return Vec::new() };
    let from = last.at.mul_f64(WARM_UP_SHARE);
    let warm: Vec<_> = samples.iter().filter(|sample| sample.at >= from).collect();
    if warm.len() < SAMPLES_MIN {
        return Vec::new();
    }
    let verdict = |what, of: fn(&ResourceSample) -> f64, growth_max: &dyn Fn(f64) -> f64| {
        let points: Vec<_> = warm.iter().map(|sample| (sample.at.as_secs_f64(), of(sample))).collect();
        let (mean, slope) = line(&points);
        let time = last.at.saturating_sub(warm[0].at).as_secs_f64();
        ResourceTrend { what, mean, growth: slope * time, growth_max: growth_max(mean) }
    };
    let memory_max = |mean: f64| (mean * MEMORY_GROWTH_SHARE_MAX).max(MEMORY_GROWTH_MIB_MIN);
    vec![
        verdict("resident, MiB", |sample| sample.resident_mib, &memory_max),
        verdict("handles", |sample| sample.handles, &|_| HANDLES_GROWTH_MAX),
        verdict("threads", |sample| sample.threads, &|_| THREADS_GROWTH_MAX),
    ]
}

/// Returns mean and slope of the best-fitting line.
fn line(points: &[(f64, f64)]) -> (f64, f64) {
    #[expect(clippy::cast_precision_loss, reason = "they are some thousands")]
    let count = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let together = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>();
    let alone = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum::<f64>();
    (mean_y, if alone == 0.0 { 0.0 } else { together / alone })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(resident_mib: impl Fn(f64) -> f64, handles: impl Fn(f64) -> f64) -> Vec<ResourceSample> {
        let at = |second: u32| ResourceSample {
            at: Duration::from_secs(second.into()),
            resident_mib: resident_mib(second.into()),
            handles: handles(second.into()),
            threads: 12.0,
        };
        (0..600).step_by(3).map(at).collect()
    }

    fn are_flat(samples: &[ResourceSample]) -> Vec<bool> {
        judge(samples).iter().map(ResourceTrend::is_flat).collect()
    }

    #[test]
    fn what_fills_in_the_warm_up_and_then_goes_up_and_down_is_flat() {
        let samples = samples(|second| 60.0 + (second / 2.0).min(80.0) + 5.0 * (second / 7.0).sin(), |_| 40.0);
        assert_eq!(are_flat(&samples), [true, true, true]);
    }

    #[test]
    fn a_leak_is_found() {
        assert_eq!(are_flat(&samples(|second| 100.0 + second * 0.05, |_| 40.0)), [false, true, true]);
        assert_eq!(are_flat(&samples(|_| 100.0, |second| 40.0 + second / 30.0)), [true, false, true]);
        assert_eq!(are_flat(&samples(|second| 100.0 - second * 0.05, |_| 40.0)), [true, true, true], "less is no leak");
    }

    #[test]
    fn a_few_samples_say_nothing() {
        assert_eq!(judge(&samples(|_| 1.0, |_| 1.0)[..5]), []);
        assert_eq!(judge(&[]), []);
    }

    #[test]
    fn this_process_can_be_sampled() {
        let sample = ResourceSample::of(std::process::id(), Duration::ZERO).unwrap();
        assert!(sample.resident_mib > 1.0 && sample.handles >= 3.0 && sample.threads >= 1.0, "{sample:?}");
    }
}
