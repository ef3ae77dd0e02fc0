//! How long commands have waited: percentiles, and their curve.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Of a wait that is longer the length is not kept.
const LONGEST: Duration = Duration::from_secs(600);
/// Three digits are told apart: 12.3 ms from 12.4 ms.
const DIGITS: u8 = 3;
/// The percentiles of the curve, as far as there are enough commands for them.
const CURVE: [f64; 14] = [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.75, 99.9, 99.95, 99.99, 99.999];

/// Milliseconds within which so many of a hundred commands had what they waited for; a value stands for
/// those that differ from it by a thousandth, and is the longest of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    pub(crate) p75: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p99_9: f64,
    /// Not known of fewer than 10,000 commands.
    pub(crate) p99_99: Option<f64>,
    pub(crate) max: f64,
    /// Percentile and milliseconds.
    #[serde(skip)]
    pub(super) curve: Vec<(f64, f64)>,
}

impl Percentiles {
    /// Of nothing, all are 0.
    pub(super) fn of(waits: impl Iterator<Item = Duration>) -> Self {
        let micros = |wait: Duration| u64::try_from(wait.as_micros()).unwrap_or(u64::MAX).max(1);
        let mut histogram: Histogram<u64> =
            Histogram::new_with_bounds(1, micros(LONGEST), DIGITS).expect("these bounds are in order");
        waits.for_each(|wait| histogram.saturating_record(micros(wait)));
        let within = |percent: f64| ms(histogram.value_at_quantile(percent / 100.0));
        // one command beyond a percentile is the least that it takes to know it
        let is_known = |percent: &f64| histogram.len() as f64 * (100.0 - percent) / 100.0 > 0.999;
        Self {
            p50: within(50.0),
            p75: within(75.0),
            p90: within(90.0),
            p99: within(99.0),
            p99_9: within(99.9),
            p99_99: is_known(&99.99).then(|| within(99.99)),
            max: ms(histogram.max()),
            curve: CURVE.into_iter().filter(is_known).map(|percent| (percent, within(percent))).collect(),
        }
    }

    /// Those that are known, with their names, in order.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&'static str, f64)> {
        [
            ("p50", Some(self.p50)),
            ("p75", Some(self.p75)),
            ("p90", Some(self.p90)),
            ("p99", Some(self.p99)),
            ("p99.9", Some(self.p99_9)),
            ("p99.99", self.p99_99),
            ("max", Some(self.max)),
        ]
        .into_iter()
        .filter_map(|(name, ms)| Some((name, ms?)))
    }
}

fn ms(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_ms(waits: impl IntoIterator<Item = u64>) -> Percentiles {
        Percentiles::of(waits.into_iter().map(Duration::from_millis))
    }

    #[test]
    fn a_percentile_is_never_below_what_was_measured() {
        let all = of_ms(1..=1_000);
        for (percentile, at_least) in [(all.p50, 500.0), (all.p90, 900.0), (all.p99, 990.0), (all.max, 1_000.0)] {
            assert!((at_least..at_least * 1.001).contains(&percentile), "{percentile} for {at_least}");
        }
    }

    #[test]
    fn one_slow_command_is_the_maximum_and_not_the_median() {
        let all = of_ms((0..999).map(|_| 2).chain([70_000]));
        assert!(all.p50 < 2.01 && all.p99 < 2.01 && all.max >= 70_000.0, "{all:?}");
    }

    #[test]
    fn the_curve_ends_where_there_are_no_more_commands() {
        let percents: Vec<f64> = of_ms(1..=1_000).curve.into_iter().map(|(percent, _)| percent).collect();
        assert_eq!(percents.last(), Some(&99.9));
        assert!(of_ms([]).curve.is_empty());
        assert_eq!([of_ms(1..=1_000), of_ms(1..=10_000)].map(|all| all.p99_99.is_some()), [false, true]);
    }
}
