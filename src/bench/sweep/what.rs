//! What is varied, over which values, and what stays as it is.

use std::fmt;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;

use clap::ValueEnum as _;
use serde::Serialize;

use crate::bench::chart::{Scale, short};
use crate::bench::trial::{Options, Progress};
use crate::bench::workload::{Ids, PAYLOAD_BYTES_MIN, Spread, Workload};

/// What is varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum What {
    /// Partitions of the command topic.
    Partitions,
    /// Commands that one commit settles at most.
    Batch,
    /// Entities that are there, met evenly, by Zipf's law, hot (nine of ten commands go to one of a
    /// hundred) and cold (an entity comes again after all others only).
    Entities,
    /// Bytes of each command's data.
    Payload,
    /// Rows that the idempotency table holds before.
    Rows,
    /// UUIDv7 against UUIDv4 as command ids.
    Ids,
    /// Worker processes.
    Workers,
    /// Records of 100 that are repeats of earlier ones.
    Duplicates,
}

/// What one point is measured at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Value {
    Number(u64),
    Ids(Ids),
}

/// What all points begin from.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    pub(crate) workload: Workload,
    pub(crate) partitions: i32,
    /// Rows that the idempotency table holds before: with ids of each kind, a curve each.
    pub(crate) prefilled_rows: Vec<u64>,
}

/// One point, to be measured.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Of the curve; nothing if there is one only.
    pub(crate) series: String,
    pub(crate) value: Value,
    pub(crate) workload: Workload,
    pub(crate) partitions: i32,
    pub(crate) options: Options,
}

/// What a log may hold: bytes of data.
const BACKLOG_BYTES_MAX: u64 = 2_000_000_000;
/// With small batches, so many of them are enough; more would take minutes.
const BATCHES: u64 = 10_000;
/// How entities are met, with the name of the curve.
const SPREADS: [(Spread, &str); 4] =
    [(Spread::Even, "even"), (Spread::Zipf, "zipf"), (Spread::Hot, "hot"), (Spread::Cold, "cold")];

impl What {
    /// Where nothing else is asked for.
    pub(crate) fn default_values(self) -> Vec<Value> {
        let numbers: &[u64] = match self {
            Self::Partitions => &[1, 2, 4, 8, 16, 32, 64],
            Self::Batch => &[1, 10, 100, 500, 2_000, 5_000, 10_000],
            Self::Entities => &[100, 10_000, 1_000_000, 10_000_000],
            Self::Payload => &[100, 1_000, 10_000, 100_000],
            Self::Rows => &[0, 100_000, 1_000_000, 10_000_000],
            Self::Ids => return vec![Value::Ids(Ids::V7), Value::Ids(Ids::V4)],
            Self::Workers => &[1, 2, 3, 4],
            Self::Duplicates => &[0, 10, 20, 30, 40, 50],
        };
        numbers.iter().copied().map(Value::Number).collect()
    }

    /// Records of each trial, where nothing else is asked for.
    pub(crate) fn default_commands(self) -> u64 {
        match self {
            // a group takes some seconds to share its partitions out, before the clock starts
            Self::Workers => 2_000_000,
            _ => 400_000,
        }
    }

    /// Of what can be measured.
    fn range(self) -> RangeInclusive<u64> {
        match self {
            Self::Partitions => 1..=1_000,
            Self::Batch => 1..=1_000_000,
            // so many are told apart by the digits of their names
            Self::Entities => 1..=10_000_000,
            // what a worker takes by default
            Self::Payload => PAYLOAD_BYTES_MIN as u64..=1 << 20,
            Self::Rows | Self::Ids => 0..=1_000_000_000,
            Self::Workers => 1..=64,
            Self::Duplicates => 0..=90,
        }
    }

    /// Reads a value as it is typed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn value(self, text: &str) -> Result<Value, String> {
        if self == Self::Ids {
            return Ids::from_str(text, true).map(Value::Ids).map_err(|_| format!("{text:?} is neither v7 nor v4"));
        }
        let number = number(text)?;
        let range = self.range();
        match range.contains(&number) {
            true => Ok(Value::Number(number)),
            false => Err(format!("{text} is not within {} and {}", range.start(), range.end())),
        }
    }

    /// The points of one value.
    pub(crate) fn setups(self, base: &Base, value: Value) -> Vec<Setup> {
        let setup = Setup {
            series: String::new(),
            value,
            workload: base.workload,
            partitions: base.partitions,
            options: Options::default(),
        };
        match value {
            Value::Number(number) => self.numbered(setup, number),
            Value::Ids(ids) => {
                let workload = Workload { ids, ..setup.workload };
                let with = |rows: &u64| Setup {
                    series: format!("{} rows", short(*rows as f64)),
                    workload,
                    options: Options { prefilled_rows: *rows, ..setup.options },
                    ..setup.clone()
                };
                base.prefilled_rows.iter().map(with).collect()
            }
        }
    }

    fn numbered(self, mut setup: Setup, number: u64) -> Vec<Setup> {
        let Setup { workload, options, .. } = &mut setup;
        match self {
            Self::Partitions => setup.partitions = number as i32,
            Self::Batch => {
                options.batch_commands_max = NonZeroUsize::new(number as usize);
                *workload = workload.first(workload.commands.min(number * BATCHES));
            }
            Self::Entities => {
                let met = |(spread, name): (Spread, &str)| Setup {
                    series: name.to_owned(),
                    workload: Workload { accounts: number, spread, ..setup.workload },
                    options: Options { accounts_exist: true, ..setup.options },
                    ..setup.clone()
                };
                return SPREADS.into_iter().map(met).collect();
            }
            Self::Payload => {
                workload.payload_bytes = number as usize;
                *workload = workload.first(workload.commands.min(BACKLOG_BYTES_MAX / number));
            }
            Self::Rows | Self::Ids => options.prefilled_rows = number,
            Self::Workers => {
                options.workers = number as usize;
                // of one worker too, so that all points have the same clock
                options.progress = Progress::Cursors;
            }
            Self::Duplicates => workload.repeats_percent = number as u8,
        }
        vec![setup]
    }

    /// What the curve stands over.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Partitions => "partitions",
            Self::Batch => "commands per batch at most",
            Self::Entities => "entities",
            Self::Payload => "bytes of data per command",
            Self::Rows => "rows in the idempotency table before",
            Self::Ids => "command ids",
            Self::Workers => "worker processes",
            Self::Duplicates => "records of 100 that are repeats",
        }
    }

    /// How values and rates become places in the picture.
    pub(super) fn scales(self) -> (Scale, Scale) {
        match self {
            Self::Batch | Self::Payload => (Scale::Log, Scale::Log),
            Self::Partitions | Self::Entities | Self::Rows => (Scale::Log, Scale::Linear),
            Self::Workers | Self::Duplicates => (Scale::Linear, Scale::Linear),
            Self::Ids => {
                (Scale::Words([Ids::V7, Ids::V4].map(|ids| Value::Ids(ids).to_string()).into()), Scale::Linear)
            }
        }
    }
}

impl Value {
    /// Its place in the picture.
    pub(super) fn place(self) -> f64 {
        match self {
            Self::Number(number) => number as f64,
            Self::Ids(Ids::V7) => 0.0,
            Self::Ids(Ids::V4) => 1.0,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Ids(Ids::V7) => "v7".fmt(f),
            Self::Ids(Ids::V4) => "v4".fmt(f),
        }
    }
}

/// Reads a number, also as people say it: 100k, 50M.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn number(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.char_indices().last() {
        Some((at, 'k')) => (&text[..at], 1_000),
        Some((at, 'M')) => (&text[..at], 1_000_000),
        _ => (text, 1),
    };
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    number.ok_or_else(|| format!("{text:?} is no number such as 1000, 100k or 10M"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Base {
        let workload = Workload {
            commands: 1_000_000,
            accounts: 10_000,
            spread: Spread::Even,
            payload_bytes: 100,
            ids: Ids::V7,
            repeats_percent: 0,
            began_ms: 1_790_000_000_000,
        };
        Base { workload, partitions: 8, prefilled_rows: vec![0, 1_000_000] }
    }

    fn setups(what: What) -> Vec<Setup> {
        what.default_values().into_iter().flat_map(|value| what.setups(&base(), value)).collect()
    }

    #[test]
    fn numbers_are_read_as_people_say_them() {
        assert_eq!(["0", "1234", "100k", "50M"].map(number), [Ok(0), Ok(1_234), Ok(100_000), Ok(50_000_000)]);
        for text in ["", "k", "-1", "1.5k", "M1", "99999999999999999999", "99999999999999M"] {
            assert!(number(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_default_can_be_typed_and_shown_again() {
        for what in What::value_variants() {
            for value in what.default_values() {
                assert_eq!(what.value(&value.to_string()), Ok(value), "{what:?}");
            }
        }
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        let refused = [
            (What::Partitions, "0"),
            (What::Payload, "25"),
            (What::Payload, "2M"),
            (What::Duplicates, "100"),
            (What::Entities, "11M"),
            (What::Ids, "v1"),
            (What::Rows, "v7"),
        ];
        for (what, text) in refused {
            assert!(what.value(text).is_err(), "{what:?} {text}");
        }
    }

    #[test]
    fn one_thing_is_varied_and_the_rest_stays() {
        let partitions: Vec<i32> = setups(What::Partitions).iter().map(|setup| setup.partitions).collect();
        assert_eq!(partitions, [1, 2, 4, 8, 16, 32, 64]);
        assert!(setups(What::Partitions).iter().all(|setup| setup.workload == base().workload));
        let workers: Vec<usize> = setups(What::Workers).iter().map(|setup| setup.options.workers).collect();
        assert_eq!(workers, [1, 2, 3, 4]);
        assert!(setups(What::Workers).iter().all(|setup| setup.partitions == 8));
        let repeats: Vec<u8> = setups(What::Duplicates).iter().map(|setup| setup.workload.repeats_percent).collect();
        assert_eq!(repeats, [0, 10, 20, 30, 40, 50]);
    }

    #[test]
    fn large_data_and_small_batches_take_fewer_commands() {
        let commands = |what| setups(what).iter().map(|setup| setup.workload.commands).collect::<Vec<_>>();
        assert_eq!(commands(What::Payload), [1_000_000, 1_000_000, 200_000, 20_000]);
        assert_eq!(commands(What::Batch)[..3], [10_000, 100_000, 1_000_000]);
    }

    #[test]
    fn each_way_of_meeting_entities_and_each_number_of_rows_is_a_curve() {
        let entities = What::Entities.setups(&base(), Value::Number(100));
        let names: Vec<&str> = entities.iter().map(|setup| &*setup.series).collect();
        assert_eq!(names, ["even", "zipf", "hot", "cold"]);
        assert!(entities.iter().all(|setup| setup.options.accounts_exist && setup.workload.accounts == 100));
        let ids = What::Ids.setups(&base(), Value::Ids(Ids::V4));
        let rows: Vec<(&str, u64)> = ids.iter().map(|setup| (&*setup.series, setup.options.prefilled_rows)).collect();
        assert_eq!(rows, [("0 rows", 0), ("1M rows", 1_000_000)]);
        assert!(ids.iter().all(|setup| setup.workload.ids == Ids::V4));
    }
}
