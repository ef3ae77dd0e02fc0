//! What rounds of trials come to: medians with the least and the most.

use serde::Serialize;

use super::cost::Cpu;
use super::services::Setting;
use super::trial::{Measured, Row};
use super::workload::Workload;

/// What the shown numbers are of.
pub(crate) fn of_rounds(rounds: usize) -> String {
    if rounds == 1 { "one round".to_owned() } else { format!("{rounds} rounds: medians") }
}

/// The whole table.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    pub(crate) machine: Setting,
    pub(crate) workload: Workload,
    pub(crate) partitions: i32,
    pub(crate) rounds: usize,
    pub(crate) rows: Vec<TableRow>,
}

/// One row of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TableRow {
    pub(crate) name: &'static str,
    /// How many commands each trial has settled; of the row of commits, what the time was enough for.
    pub(crate) commands: Option<u64>,
    /// How many times the rate of the consumer with a transaction per command, of the medians.
    pub(crate) ratio_to_per_command: Option<f64>,
    /// What part of the rate of COPY, of the medians.
    pub(crate) share_of_copy: Option<f64>,
    #[serde(flatten)]
    pub(crate) figures: Figures,
}

/// What was measured in all rounds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) commands_per_second: Spread,
    /// How long the clock ran.
    pub(crate) seconds: Spread,
    pub(crate) cpu_seconds_per_100k: CpuSpread,
    pub(crate) wal_bytes_per_command: Spread,
    pub(crate) transaction_ids_per_command: Spread,
    pub(crate) disk_bytes_per_command: Option<Spread>,
    pub(crate) memory_bytes_max: Option<Spread>,
    /// What is wrong with the books, in the first round in which something was: the numbers count for
    /// nothing.
    pub(crate) void: Option<String>,
}

/// Of each part.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct CpuSpread {
    pub(crate) worker: Option<Spread>,
    pub(crate) postgres: Option<Spread>,
    pub(crate) broker: Option<Spread>,
}

/// A number that was measured more than once.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
        Some(Self { median, min, max })
    }
}

impl TableRow {
    /// `None` if there was no round.
    pub(super) fn of(row: Row, commands: Option<u64>, rounds: &[Measured]) -> Option<Self> {
        let figures = Figures::of(rounds)?;
        Some(Self { name: row.name(), commands, ratio_to_per_command: None, share_of_copy: None, figures })
    }
}

impl Figures {
    /// `None` if there was no round.
    pub(super) fn of(rounds: &[Measured]) -> Option<Self> {
        let of = |value: fn(&Measured) -> f64| Spread::of(rounds.iter().map(value));
        let known = |value: fn(&Measured) -> Option<f64>| Spread::of(rounds.iter().filter_map(value));
        let cpu = |part: fn(&Cpu) -> Option<f64>| {
            Spread::of(rounds.iter().filter_map(|measured| part(&measured.cost.cpu_seconds)))
        };
        Some(Self {
            commands_per_second: of(|measured| measured.commands_per_second)?,
            seconds: of(|measured| measured.seconds)?,
            cpu_seconds_per_100k: CpuSpread {
                worker: cpu(|cpu| cpu.worker),
                postgres: cpu(|cpu| cpu.postgres),
                broker: cpu(|cpu| cpu.broker),
            },
            wal_bytes_per_command: of(|measured| measured.cost.wal_bytes)?,
            transaction_ids_per_command: of(|measured| measured.cost.transaction_ids)?,
            disk_bytes_per_command: known(|measured| measured.disk_bytes),
            memory_bytes_max: known(|measured| measured.memory_bytes_max.map(|bytes| bytes as f64)),
            void: rounds.iter().find_map(|measured| measured.void.clone()),
        })
    }

    /// The median, unless the books are wrong.
    pub(crate) fn rate(&self) -> Option<f64> {
        self.void.is_none().then_some(self.commands_per_second.median)
    }
}

/// Sets each row in relation to the two that are the measure.
pub(super) fn relate(rows: &mut [TableRow]) {
    let rate = |rows: &[TableRow], row: Row| rows.iter().find(|found| found.name == row.name())?.figures.rate();
    let (naive, copy) = (rate(rows, Row::PerCommand), rate(rows, Row::Copy));
    for row in rows {
        let ratio = |measure: Option<f64>| Some(row.figures.rate()? / measure?);
        (row.ratio_to_per_command, row.share_of_copy) = (ratio(naive), ratio(copy));
    }
}

#[cfg(test)]
mod tests {
    use super::super::cost::Cost;
    use super::*;

    fn measured(commands_per_second: f64) -> Measured {
        Measured {
            commands_per_second,
            seconds: 1.0,
            cost: Cost::default(),
            disk_bytes: None,
            memory_bytes_max: None,
            void: None,
        }
    }

    #[test]
    fn a_median_stands_between_the_least_and_the_most() {
        let spread = Spread::of([3.0, 1.0, 2.0]).expect("three");
        assert_eq!(spread, Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of([1.0, 2.0]).expect("two").median, 1.5);
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn rows_are_set_in_relation_to_the_naive_consumer_and_to_copy() {
        let row = |row, rate| TableRow::of(row, None, &[measured(rate)]).expect("a round");
        let mut rows = vec![row(Row::Copy, 200.0), row(Row::PerCommand, 2.0), row(Row::Rust, 100.0)];
        relate(&mut rows);
        assert_eq!((rows[2].ratio_to_per_command, rows[2].share_of_copy), (Some(50.0), Some(0.5)));
    }

    #[test]
    fn a_void_row_is_no_measure() {
        let void = Measured { void: Some("wrong".into()), ..measured(1.0) };
        let mut rows = vec![TableRow::of(Row::PerCommand, None, &[measured(2.0), void]).expect("rounds")];
        rows.push(TableRow::of(Row::Rust, None, &[measured(100.0)]).expect("a round"));
        relate(&mut rows);
        assert_eq!(rows[0].figures.void.as_deref(), Some("wrong"));
        assert_eq!((rows[0].ratio_to_per_command, rows[1].ratio_to_per_command), (None, None));
    }
}
