//! How long it takes from sending a command to reading its outcome.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Of a wait that is longer the length is not kept: the demonstration gives up before.
const LONGEST: Duration = Duration::from_secs(600);
/// Three digits are told apart: 12.3 ms from 12.4 ms.
const DIGITS: u8 = 3;

/// Half of the commands, and all but one in a hundred, had their outcome within so many
/// microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// The median.
    pub p50_us: u64,
    /// The slow ones.
    pub p99_us: u64,
}

/// Every latency, and those since somebody last asked.
#[derive(Debug)]
pub(super) struct Latencies {
    all: Histogram<u64>,
    recent: Histogram<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { all: histogram(), recent: histogram() }
    }
}

impl Latencies {
    pub(super) fn record(&mut self, latency: Duration) {
        let micros = micros(latency).max(1);
        self.all.saturating_record(micros);
        self.recent.saturating_record(micros);
    }

    /// Of all.
    pub(super) fn all(&self) -> Option<Percentiles> {
        percentiles(&self.all)
    }

    /// Of those since this was last called; `None` if there were none.
    pub(super) fn take_recent(&mut self) -> Option<Percentiles> {
        let recent = percentiles(&self.recent);
        self.recent.reset();
        recent
    }
}

fn percentiles(histogram: &Histogram<u64>) -> Option<Percentiles> {
    let within = |quantile| histogram.value_at_quantile(quantile);
    (!histogram.is_empty()).then(|| Percentiles { p50_us: within(0.5), p99_us: within(0.99) })
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, micros(LONGEST), DIGITS).expect("these bounds are in order")
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_is_kept_only_in_the_whole() {
        let mut latencies = Latencies::default();
        assert_eq!((latencies.take_recent(), latencies.all()), (None, None));
        (1..=100).for_each(|ms| latencies.record(Duration::from_millis(ms)));
        let recent = latencies.take_recent().expect("a hundred");
        assert!(recent.p50_us.abs_diff(50_000) < 100 && recent.p99_us.abs_diff(99_000) < 100, "{recent:?}");
        assert_eq!((latencies.take_recent(), latencies.all()), (None, Some(recent)));
    }

    #[test]
    fn a_wait_beyond_all_measure_is_counted_as_a_long_one() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::MAX);
        assert!(latencies.all().is_some_and(|all| all.p50_us >= 600_000_000));
    }
}
