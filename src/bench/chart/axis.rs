//! Where a value stands on its axis, and where the axis has its ticks.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// How values become places.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Scale {
    /// Amounts from zero on.
    Linear,
    /// Each ten times is as far as the next. Zero stands one step before the least value that is more.
    Log,
    /// From 0 to below 100: each nine more is as far as the one before.
    Percentile,
    /// The value is the number of the word, from 0.
    Words(Vec<String>),
}

/// The ticks of percentiles.
const PERCENTILES: [f64; 7] = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999];

/// More values than this are too many to name each.
const TICKS_MAX: usize = 10;
/// Room beside the first and the last place, as a part of all.
const ROOM: f64 = 0.05;

/// One axis in the coordinates of its plot.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    scale: Scale,
    /// What stands for zero on a logarithmic axis.
    zero: f64,
    from: f64,
    to: f64,
    ticks: Vec<f64>,
}

impl Axis {
    /// The axis of what was varied: each value has its tick, if they are not too many.
    pub(super) fn of_places(scale: &Scale, values: impl Iterator<Item = f64>) -> Self {
        let values = distinct(values);
        let mut axis = Self::of_amounts(scale, values.iter().copied());
        let places: Vec<f64> = match scale {
            Scale::Words(words) => (0..words.len()).map(|word| word as f64).collect(),
            Scale::Percentile => {
                let most = values.last().copied().unwrap_or(0.0);
                PERCENTILES.into_iter().filter(|percentile| *percentile <= most).map(|tick| axis.at(tick)).collect()
            }
            _ => values.iter().map(|value| axis.at(*value)).collect(),
        };
        let (Some(first), Some(last)) = (places.first().copied(), places.last().copied()) else { return axis };
        let is_of_words = matches!(scale, Scale::Words(_));
        let room = if first < last && !is_of_words { (last - first) * ROOM } else { 0.5 };
        (axis.from, axis.to) = (first - room, last + room);
        if places.len() <= TICKS_MAX {
            axis.ticks = places;
        } else {
            axis.ticks.retain(|tick| (axis.from..=axis.to).contains(tick));
        }
        axis
    }

    /// The axis of what was measured: round ticks.
    pub(super) fn of_amounts(scale: &Scale, values: impl Iterator<Item = f64>) -> Self {
        let values = distinct(values);
        let most = values.last().copied().filter(|most| *most > 0.0).unwrap_or(1.0);
        let least = values.iter().copied().find(|value| *value > 0.0).unwrap_or(most);
        let axis = Self { scale: scale.clone(), zero: least.log10() - 1.0, from: 0.0, to: most, ticks: Vec::new() };
        if *scale == Scale::Log { axis.logarithmic(least, most) } else { axis.linear(most) }
    }

    fn linear(self, most: f64) -> Self {
        let step = round_step(most / 6.0);
        let steps = (most / step).ceil();
        Self { to: steps * step, ticks: (0..=steps as u32).map(|tick| f64::from(tick) * step).collect(), ..self }
    }

    fn logarithmic(self, least: f64, most: f64) -> Self {
        let decades = least.log10().floor() as i32..=most.log10().ceil() as i32;
        // where there are few powers of ten, there is room between them
        let between: &[f64] = if decades.clone().count() > 4 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let all: Vec<f64> =
            decades.flat_map(|decade| between.iter().map(move |n| (n * 10_f64.powi(decade)).log10())).collect();
        let from = all.iter().copied().filter(|tick| *tick <= least.log10()).fold(f64::MIN, f64::max);
        let to = all.iter().copied().filter(|tick| *tick >= most.log10() && *tick > from).fold(f64::MAX, f64::min);
        let ticks = all.into_iter().filter(|tick| (from..=to).contains(tick)).collect();
        Self { from, to, ticks, ..self }
    }

    /// The place of a value.
    pub(super) fn at(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Log if value > 0.0 => value.log10(),
            Scale::Log => self.zero,
            Scale::Percentile => -(1.0 - value / 100.0).log10(),
            _ => value,
        }
    }

    /// What stands at a place.
    fn label(&self, at: f64) -> String {
        match &self.scale {
            Scale::Linear => short(at),
            // powers and logarithms miss by a little
            Scale::Log if at > self.zero => short(format!("{:.6e}", 10_f64.powf(at)).parse().unwrap_or(at)),
            Scale::Log => "0".to_owned(),
            Scale::Percentile => percentile(100.0 * (1.0 - 10_f64.powf(-at))),
            Scale::Words(words) => words.get(at as usize).cloned().unwrap_or_default(),
        }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, place: &f64, (first, last): (i32, i32)) -> i32 {
        let part = (place - self.from) / (self.to - self.from);
        first + (f64::from(last - first) * part).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.from..self.to
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, place: &f64) -> String {
        self.label(*place)
    }
}

/// With as many nines as it has.
fn percentile(value: f64) -> String {
    let digits = format!("{value:.4}");
    digits.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn distinct(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    values
}

/// The next of 1, 2, 5, 10, 20, …
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let step = [1.0, 2.0, 5.0].into_iter().map(|n| n * power).find(|step| *step >= least);
    step.unwrap_or(10.0 * power)
}

/// A number as people say it: 100k, 2.5M.
pub(crate) fn short(value: f64) -> String {
    let (amount, unit) = match value.abs() {
        1e9.. => (value / 1e9, "G"),
        1e6.. => (value / 1e6, "M"),
        1e3.. => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = format!("{amount:.3}");
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    format!("{digits}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<String> {
        axis.ticks.iter().map(|tick| axis.label(*tick)).collect()
    }

    #[test]
    fn amounts_have_round_ticks_from_zero() {
        let axis = Axis::of_amounts(&Scale::Linear, [83_000.0, 41_000.0].into_iter());
        assert_eq!(labels(&axis), ["0", "20k", "40k", "60k", "80k", "100k"]);
        assert_eq!((axis.from, axis.to), (0.0, 100_000.0));
    }

    #[test]
    fn each_ten_times_is_as_far_as_the_next() {
        let axis = Axis::of_amounts(&Scale::Log, [1.5, 90_000.0].into_iter());
        assert_eq!(labels(&axis), ["1", "10", "100", "1k", "10k", "100k"]);
        assert!((axis.at(1e3) - axis.at(1e2) - (axis.at(1e5) - axis.at(1e4))).abs() < 1e-9);
        let few = Axis::of_amounts(&Scale::Log, [1_200.0, 9_000.0].into_iter());
        assert_eq!(labels(&few), ["1k", "2k", "5k", "10k"]);
    }

    #[test]
    fn what_was_varied_has_a_tick_each() {
        let values = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];
        let axis = Axis::of_places(&Scale::Log, values.into_iter());
        assert_eq!(labels(&axis), ["1", "2", "4", "8", "16", "32", "64"]);
        let many = Axis::of_places(&Scale::Linear, (0..100).map(f64::from));
        assert_eq!(labels(&many), ["0", "20", "40", "60", "80", "100"]);
    }

    #[test]
    fn zero_has_a_place_on_a_logarithmic_axis() {
        let axis = Axis::of_places(&Scale::Log, [0.0, 1e5, 1e6, 1e7].into_iter());
        assert_eq!(labels(&axis), ["0", "100k", "1M", "10M"]);
        assert!(axis.from < axis.at(0.0) && axis.at(0.0) < axis.at(1e5));
    }

    #[test]
    fn each_nine_of_a_percentile_is_as_far_as_the_one_before() {
        let axis = Axis::of_places(&Scale::Percentile, [0.0, 25.0, 50.0, 90.0, 99.0, 99.9].into_iter());
        assert_eq!(labels(&axis), ["0", "50", "90", "99", "99.9"]);
        assert!((axis.at(99.9) - axis.at(99.0) - (axis.at(99.0) - axis.at(90.0))).abs() < 1e-9);
    }

    #[test]
    fn words_stand_in_their_order() {
        let words = Scale::Words(vec!["v7".to_owned(), "v4".to_owned()]);
        let axis = Axis::of_places(&words, [0.0, 1.0].into_iter());
        assert_eq!(labels(&axis), ["v7", "v4"]);
    }

    #[test]
    fn numbers_are_short() {
        let said = [0.5, 26.0, 1e3, 2_500.0, 1e5, 5e7, 1e9].map(short);
        assert_eq!(said, ["0.5", "26", "1k", "2.5k", "100k", "50M", "1G"]);
    }
}
