//! `status`: what every partition is doing.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use comfy_table::{CellAlignment, ColumnConstraint};
use serde::Serialize;

use super::exit::Exit;
use super::output::{Output, Tone, or_dash};
use super::{backend, output};
use crate::config::Config;
use crate::postgres;
use crate::record::TopicPartition;
use crate::telemetry::PartitionState;

/// Show every partition: owner, token, cursor, lag, state
///
/// What a partition refuses to go on for stands below the table, with the command that resolves it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  solewriter status
  solewriter status -o json | jq '.partitions[] | select(.halt)'")]
pub(super) struct Args {}

/// One partition.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct PartitionStatus {
    /// The command topic.
    pub(super) topic: String,
    /// The partition.
    pub(super) partition: i32,
    /// What it is doing.
    pub(super) state: PartitionState,
    /// The process that claimed it last.
    pub(super) owner: Option<String>,
    /// Grows by one at each claim.
    pub(super) fencing_token: i64,
    /// The first offset that is not settled.
    pub(super) next_offset: i64,
    /// The first offset whose outcome is not on its topic.
    pub(super) published_offset: i64,
    /// The end of the log; nothing when the broker was not asked.
    pub(super) end_offset: Option<i64>,
    /// Records between cursor and end.
    pub(super) lag_records: Option<i64>,
    /// Age of the oldest unsettled record in seconds.
    pub(super) lag_seconds: Option<f64>,
    /// Keys that wait behind a dead letter.
    pub(super) parked_keys: i64,
    /// Why it refuses to go on.
    pub(super) halt: Option<Halt>,
}

/// Why a partition refuses to go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Halt {
    /// One of the interface's halt codes.
    pub(super) code: String,
    /// What was found.
    pub(super) detail: String,
    /// The command that resolves it.
    pub(super) resolve: String,
}

/// Every partition, in order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Status {
    partitions: Vec<PartitionStatus>,
}

pub(super) async fn run(output: Output, config: &Config) -> anyhow::Result<Exit> {
    let partitions = backend::status(config).await?;
    output.print(&Status { partitions }, Status::table)?;
    Ok(Exit::Done)
}

const HEADER: [&str; 11] =
    ["TOPIC", "PARTITION", "STATE", "OWNER", "TOKEN", "NEXT", "PUBLISHED", "END", "LAG", "LAG S", "PARKED"];

const OWNER: usize = 3;

/// Everything behind the owner is a number.
const FIRST_NUMBER: usize = OWNER + 1;

impl Status {
    fn table(&self) -> String {
        if self.partitions.is_empty() {
            return "no partitions yet: a worker claims them when it runs\n".to_owned();
        }
        let mut table = output::table(&HEADER);
        for partition in &self.partitions {
            table.add_row(partition.row());
        }
        for (index, column) in table.column_iter_mut().enumerate() {
            if index >= FIRST_NUMBER {
                column.set_cell_alignment(CellAlignment::Right);
            }
            // On a narrow terminal the owner wraps: topics are copied into commands.
            if index != OWNER {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        output::drawn(&table) + &self.halts() + &self.parked() + &self.unowned()
    }

    /// Nobody works on these: their last owner is not in the consumer group.
    fn unowned(&self) -> String {
        let mut left: BTreeMap<(&str, &str), Vec<i32>> = BTreeMap::new();
        for row in self.partitions.iter().filter(|row| row.state == PartitionState::Claiming) {
            let of = (&*row.topic, row.owner.as_deref().unwrap_or("nobody"));
            left.entry(of).or_default().push(row.partition);
        }
        if left.is_empty() {
            return String::new();
        }
        let sentence = |((topic, owner), partitions): (&(&str, &str), &Vec<i32>)| {
            let (have, their) = if partitions.len() == 1 { ("has", "its") } else { ("have", "their") };
            let partitions = ranges(partitions);
            format!(
                "{topic}:{partitions} {have} no live owner: {their} last one, {owner}, is not in the consumer group\n"
            )
        };
        let sentences: String = left.iter().map(sentence).collect();
        format!(
            "\n{sentences}  another worker takes over after the session timeout; if there is none, type: solewriter run\n"
        )
    }

    /// Keys that wait for an operator.
    fn parked(&self) -> String {
        let mut text = String::new();
        for PartitionStatus { topic, partition, parked_keys, .. } in &self.partitions {
            if *parked_keys == 0 {
                continue;
            }
            let keys = if *parked_keys == 1 { "1 parked key".to_owned() } else { format!("{parked_keys} parked keys") };
            let _ = write!(
                text,
                "\n{topic}:{partition} has {keys}, whose commands wait behind one that failed\n  look: solewriter \
                 dead-letters list --topic {topic} --partition {partition} --state parked --state waiting\n"
            );
        }
        text
    }

    fn halts(&self) -> String {
        let mut text = String::new();
        for partition in &self.partitions {
            let Some(halt) = &partition.halt else {
                continue;
            };
            text += &halt.text(&partition.topic, partition.partition);
        }
        text
    }
}

impl Halt {
    /// The halt of a partition's row; `None`: it is not halted.
    pub(super) fn of(row: &postgres::PartitionStatus) -> Option<Self> {
        let code = row.halted_code.clone()?;
        let source = TopicPartition::new(&*row.topic, row.partition);
        // a newer worker knows what an older verb does not
        let resolve = row.halted_resolve.clone().unwrap_or_else(|| crate::halt::resolve(&code, &source));
        Some(Self { code, detail: row.halted_detail.clone().unwrap_or_default(), resolve })
    }

    /// Below a table of partitions.
    pub(super) fn text(&self, topic: &str, partition: i32) -> String {
        let Self { code, detail, resolve } = self;
        format!("\n{topic}:{partition} halted, {code}: {detail}\n  resolve: {resolve}\n")
    }
}

impl PartitionStatus {
    fn row(&self) -> [comfy_table::Cell; 11] {
        [
            self.topic.clone().into(),
            self.partition.into(),
            output::toned(self.state.as_str(), tone(self.state)),
            or_dash(self.owner.as_deref()).into(),
            self.fencing_token.into(),
            self.next_offset.into(),
            self.published_offset.into(),
            or_dash(self.end_offset).into(),
            or_dash(self.lag_records).into(),
            or_dash(self.lag_seconds.map(|seconds| format!("{seconds:.1}"))).into(),
            self.parked_keys.into(),
        ]
    }
}

/// `0-3,7`: numbers in their order.
fn ranges(numbers: &[i32]) -> String {
    let mut ranges: Vec<(i32, i32)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let range = |&(first, last): &(i32, i32)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    ranges.iter().map(range).collect::<Vec<_>>().join(",")
}

fn tone(state: PartitionState) -> Tone {
    match state {
        PartitionState::Running => Tone::Good,
        PartitionState::Halted => Tone::Bad,
        PartitionState::Claiming | PartitionState::Paused | PartitionState::BackingOff | PartitionState::Draining => {
            Tone::Warning
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn halted() -> PartitionStatus {
        PartitionStatus {
            topic: "accounts.commands".into(),
            partition: 3,
            state: PartitionState::Halted,
            owner: Some("worker-1".into()),
            fencing_token: 17,
            next_offset: 8_412,
            published_offset: 8_412,
            end_offset: None,
            lag_records: None,
            lag_seconds: Some(1.25),
            parked_keys: 0,
            halt: Some(Halt {
                code: "log-truncated".into(),
                detail: "record 8411 is gone".into(),
                resolve: "solewriter resume accounts.commands:3 --accept-new-log --reason …".into(),
            }),
        }
    }

    #[test]
    fn the_status_has_the_shape_of_the_interface() {
        let status = Status { partitions: vec![halted()] };
        assert_eq!(
            serde_json::to_value(&status).expect("a document"),
            serde_json::json!({"partitions": [{
                "topic": "accounts.commands", "partition": 3, "state": "halted",
                "owner": "worker-1", "fencing_token": 17, "next_offset": 8412,
                "published_offset": 8412, "end_offset": null, "lag_records": null,
                "lag_seconds": 1.25, "parked_keys": 0,
                "halt": {
                    "code": "log-truncated", "detail": "record 8411 is gone",
                    "resolve": "solewriter resume accounts.commands:3 --accept-new-log --reason …",
                },
            }]})
        );
    }

    #[test]
    fn a_halt_stands_below_the_table_with_its_cure() {
        let status = Status { partitions: vec![halted()] };
        let table = status.table();
        let expected = "accounts.commands:3 halted, log-truncated: record 8411 is gone\n  resolve: solewriter resume";
        assert!(table.contains(expected), "{table}");
    }

    #[test]
    fn partitions_that_one_owner_has_left_are_told_in_one_line() {
        let left = |partition, owner: &str| PartitionStatus {
            state: PartitionState::Claiming,
            partition,
            owner: Some(owner.into()),
            halt: None,
            ..halted()
        };
        let partitions = [0, 1, 2, 3, 5].map(|partition| left(partition, "worker-1")).into_iter();
        let table = Status { partitions: partitions.chain([left(4, "worker-2")]).collect() }.unowned();
        let lines: Vec<_> = table.lines().collect();
        let first =
            "accounts.commands:0-3,5 have no live owner: their last one, worker-1, is not in the consumer group";
        assert_eq!((lines.len(), lines[0], lines[1]), (4, "", first), "{table}");
        assert!(lines[2].starts_with("accounts.commands:4 has no live owner: its last one, worker-2, "), "{table}");
    }
}
