//! What a repartition would do, or has done.

use std::fmt::Write as _;

use serde::Serialize;

use super::homes::{Counts, Moves};
use super::look::{Look, Seen};
use crate::cli::output;
use crate::halt::HaltCode;
use crate::postgres::Layout;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    topic: String,
    /// Partitions that the topic has, and is to have.
    partitions_found: i32,
    partitions_wanted: i32,
    partitions: Vec<Partition>,
    /// Rows that move.
    moving: Counts,
    moves: Vec<Move>,
    #[serde(skip)]
    rows: Counts,
    pub(super) executed: bool,
}

#[derive(Debug, Serialize)]
struct Partition {
    partition: i32,
    /// The count that its records were placed for; 0: whatever its next claim finds.
    placed_for: i32,
    next_offset: i64,
    end_offset: i64,
    halted: Option<String>,
    /// What of its own layout is not done.
    undone: Option<String>,
    #[serde(skip)]
    is_moving: bool,
}

#[derive(Debug, Serialize)]
struct Move {
    from: i32,
    to: i32,
    #[serde(flatten)]
    counts: Counts,
}

impl Report {
    pub(super) fn of(look: &Look, layout: &Layout<'_>, moves: Moves) -> Self {
        let partition = |seen: &Seen| Partition {
            partition: seen.row.partition,
            placed_for: seen.row.partition_count,
            next_offset: seen.row.next_offset,
            end_offset: seen.end_offset,
            halted: seen.row.halted_code.clone(),
            undone: seen.undone.clone(),
            is_moving: seen.row.is_moving(),
        };
        Self {
            topic: layout.topic.to_owned(),
            partitions_found: look.partition_count,
            partitions_wanted: layout.partition_count,
            partitions: look.partitions.iter().map(partition).collect(),
            moving: moves.moving,
            moves: moves.between.into_iter().map(|((from, to), counts)| Move { from, to, counts }).collect(),
            rows: moves.rows,
            executed: false,
        }
    }

    /// Rows that have a home.
    pub(super) fn rows(&self) -> u64 {
        self.rows.sum()
    }

    pub(super) fn has_something_to_do(&self) -> bool {
        let is_placed = |partition: &Partition| {
            [0, self.partitions_wanted].contains(&partition.placed_for)
                && partition.halted.as_deref() != Some(HaltCode::PartitionsChanged.as_str())
        };
        self.partitions_found != self.partitions_wanted
            || self.moving.sum() > 0
            || !self.partitions.iter().all(is_placed)
    }

    /// What the audit keeps.
    pub(super) fn audited(&self) -> serde_json::Value {
        serde_json::json!({ "step": "done", "partitions": self.partitions_wanted, "moved": self.moving })
    }

    pub(super) fn preview(&self) -> String {
        match self.has_something_to_do() {
            true => {
                self.text() + "nothing is changed: stop the producers, then add --execute and --reason '…' to do it\n"
            }
            false => self.text() + "nothing to do\n",
        }
    }

    pub(super) fn text(&self) -> String {
        let mut placed: Vec<i32> = self.partitions.iter().map(|partition| partition.placed_for).collect();
        placed.sort_unstable();
        placed.dedup();
        let placed: Vec<String> =
            placed.into_iter().filter(|count| *count > 0).map(|count| count.to_string()).collect();
        let mut text = format!(
            "{} has {} partitions, its keys were placed for {}; wanted: {}\n",
            self.topic,
            self.partitions_found,
            placed.join(" and "),
            self.partitions_wanted
        );
        for Partition { partition, undone, .. } in &self.partitions {
            if let Some(undone) = undone {
                // writing to a String cannot fail
                let _ = writeln!(text, "{}:{partition} {undone}", self.topic);
            }
        }
        if self.partitions.iter().any(|partition| partition.is_moving) {
            text += "an earlier run has begun to move\n";
        }
        let Counts { entities, letters, parked_keys } = self.moving;
        let all = self.rows;
        let _ = writeln!(
            text,
            "{entities} of {} entities, {letters} of {} dead letters and {parked_keys} of {} parked keys move",
            all.entities, all.letters, all.parked_keys
        );
        if self.moves.is_empty() { text } else { text + &self.table() }
    }

    fn table(&self) -> String {
        let mut table = output::table(&["FROM", "TO", "ENTITIES", "LETTERS", "PARKED KEYS"]);
        for Move { from, to, counts: Counts { entities, letters, parked_keys } } in &self.moves {
            table.add_row([
                from.to_string(),
                to.to_string(),
                entities.to_string(),
                letters.to_string(),
                parked_keys.to_string(),
            ]);
        }
        output::drawn(&table)
    }

    pub(super) fn done(&self) -> String {
        format!(
            "done: {} has {} partitions, each row is on the partition of its key, and all partitions go on\nstart the \
             producers\n",
            self.topic, self.partitions_wanted
        )
    }
}
