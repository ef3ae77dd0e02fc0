//! What a dry run has found.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::replay::verify::Ended;

/// Differences, and outcomes that are not made again, that are kept of each partition; more are counted.
pub(super) const KEPT_MAX: usize = 100;

/// A command that ends otherwise than it was published.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Its log.
    pub topic: String,
    /// Its log.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its id, as far as it can be read.
    pub command_id: Option<Uuid>,
    /// Its type, as far as it can be read.
    pub command_type: Option<String>,
    /// Its key, as far as it can be read.
    pub entity_id: Option<String>,
    /// What was published.
    pub published: Ended,
    /// How it ends when it is run again; null: no such record is in the log.
    pub again: Option<Ended>,
}

/// An outcome that was published and that only an operator can bring about again: what he did after the time to which
/// the database was restored is forgotten.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forgotten {
    /// Its log.
    pub topic: String,
    /// Its log.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its id.
    pub command_id: Uuid,
    /// Its key, as far as it can be read.
    pub entity_id: Option<String>,
    /// What was published.
    pub published: Ended,
    /// How it ends without the operator; null: its dead letter is older than the restored cursor.
    pub again: Option<Ended>,
    /// The number of its dead letter, if the database has it by now.
    pub dead_letter_id: Option<i64>,
    /// What to type once the partition is resumed and has settled it.
    pub resolve: String,
}

/// A partition would not come to the end, but halt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WouldHalt {
    /// The halt's code.
    pub code: String,
    /// The first offset that would not be settled.
    pub offset: i64,
    /// What is the matter.
    pub detail: String,
}

/// One partition, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PartitionReport {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The database's cursor.
    pub from: i64,
    /// The offset behind the last that anybody has seen settled: of the next three the highest.
    pub to: i64,
    /// The offset behind the last that the outcomes topic speaks of.
    pub outcomes_end: Option<i64>,
    /// What the consumer group has committed.
    pub committed: Option<i64>,
    /// What the witness of the halt had seen.
    pub witnessed: Option<i64>,
    /// Records run again.
    pub records: u64,
    /// Of them: they end as they were published.
    pub alike: u64,
    /// Repeats of a command that was settled before.
    pub repeats: u64,
    /// Dead without a readable id of their own: they publish nothing.
    pub silent: u64,
    /// Their outcome was never published; it will be.
    pub new: u64,
    /// They end otherwise than they were published.
    pub differing: u64,
    /// Outcomes that only an operator can bring about again.
    pub forgotten: u64,
    /// Of the new ones: later ones were published, so theirs should be on the outcomes topic.
    pub missing: u64,
    /// Events of those that end as they were published, or were not: on the events topic, byte for byte.
    pub events_alike: u64,
    /// Events that were never published, like the outcomes before them; they will be.
    pub events_new: u64,
    /// Events that should be on the events topic, as the outcomes before them were published.
    pub events_missing: u64,
    /// Commands that have nothing but events to tell of them: they do not end here as what emits.
    pub events_left: u64,
    /// Where and why the partition would halt again.
    pub would_halt: Option<WouldHalt>,
}

/// What a dry run has found, and what was done about it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Whether every command ends as it was published, as far as it was.
    pub alike: bool,
    /// Whether the partitions were resumed.
    pub executed: bool,
    /// Whether a worker has settled and published everything again: as far as it was waited for.
    pub settled: bool,
    /// When the live tables were copied, RFC 3339: by an earlier process, if it was gone on.
    pub copied_at: String,
    /// The partitions, by topic and number.
    pub partitions: Vec<PartitionReport>,
    /// Of each key of a partition the first difference: what follows may come of it. At most 100 of each partition.
    pub differences: Vec<Difference>,
    /// The outcomes that only an operator can bring about again; at most 100 of each partition.
    pub forgotten: Vec<Forgotten>,
    /// What could not be proven, and why.
    pub unproven: Vec<String>,
    /// What may come out otherwise all the same, when workers run it.
    pub notes: Vec<String>,
}

impl Report {
    pub(super) fn conclude(mut self) -> Self {
        let agrees = |partition: &PartitionReport| {
            partition.differing == 0 && partition.forgotten == 0 && partition.would_halt.is_none()
        };
        self.alike = self.partitions.iter().all(agrees) && self.unproven.is_empty();
        self
    }

    /// What the audit keeps of one partition.
    pub(super) fn audited(&self, partition: &PartitionReport) -> serde_json::Map<String, Value> {
        let numbers = json!({
            "to": partition.to,
            "records": partition.records,
            "alike": partition.alike,
            "repeats": partition.repeats,
            "silent": partition.silent,
            "new": partition.new,
            "missing": partition.missing,
            "differing": partition.differing,
            "forgotten": partition.forgotten,
            "events_alike": partition.events_alike,
            "events_new": partition.events_new,
            "events_missing": partition.events_missing,
            "events_left": partition.events_left,
            "would_halt": partition.would_halt.as_ref().map(|halt| &halt.code),
            "unproven": self.unproven.len(),
        });
        [("replay_run".to_owned(), numbers)].into_iter().collect()
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // writing to a String cannot fail
        for partition in &self.partitions {
            partition.write(&mut text);
        }
        for difference in &self.differences {
            difference.write(&mut text);
        }
        let counted: u64 = self.partitions.iter().map(|partition| partition.differing).sum();
        let more_differing = counted.saturating_sub(self.differences.len() as u64);
        if more_differing > 0 {
            let _ =
                writeln!(text, "and {more_differing} more, behind another of their key or beyond the first {KEPT_MAX}");
        }
        for forgotten in &self.forgotten {
            forgotten.write(&mut text);
        }
        let counted: u64 = self.partitions.iter().map(|partition| partition.forgotten).sum();
        more(&mut text, counted, self.forgotten.len());
        for unproven in &self.unproven {
            let _ = writeln!(text, "not proven: {unproven}");
        }
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        let records: u64 = self.partitions.iter().map(|partition| partition.records).sum();
        let _ = match self.alike {
            true if records == 0 => writeln!(text, "alike: nothing is to be run again"),
            true => writeln!(text, "alike: every command ends as it was published, with its events"),
            false if self.executed => writeln!(text, "not alike"),
            false => writeln!(
                text,
                "not alike: nothing is changed; find out why, or accept it: --execute --accept-differences"
            ),
        };
        if self.executed {
            text += match self.settled {
                true => "resumed, and settled and published again\n",
                false => "resumed\n",
            };
        }
        text
    }
}

fn more(text: &mut String, counted: u64, kept: usize) {
    if counted > kept as u64 {
        let _ = writeln!(text, "and {} more", counted - kept as u64);
    }
}

impl PartitionReport {
    fn write(&self, text: &mut String) {
        let Self { topic, partition, from, to, records, .. } = self;
        let mut witnesses = Vec::new();
        for (witness, end) in [
            ("the outcomes topic", self.outcomes_end),
            ("the consumer group", self.committed),
            ("the halt", self.witnessed),
        ] {
            witnesses.extend(end.filter(|end| *end == self.to).map(|_| witness));
        }
        let _ = match from < to {
            true => write!(
                text,
                "{topic}:{partition}  offsets {from} to {} (by the word of {}): {records} records run again",
                to - 1,
                witnesses.join(", ")
            ),
            false => write!(text, "{topic}:{partition}  nothing at or behind offset {from} was settled"),
        };
        for (count, what) in [
            (self.alike, "as published"),
            (self.repeats, "repeats"),
            (self.silent, "that publish nothing"),
            (self.new, "not published yet"),
            (self.differing, "DIFFER"),
            (self.forgotten, "wait for an operator"),
            (self.events_new, "events not published yet"),
        ] {
            if count > 0 {
                let _ = write!(text, ", {count} {what}");
            }
        }
        text.push('\n');
        if let Some(WouldHalt { code, offset, detail }) = &self.would_halt {
            let _ = writeln!(text, "{topic}:{partition}  would halt at offset {offset} with {code}: {detail}");
        }
    }
}

fn of(ended: &Option<Ended>) -> String {
    ended.as_ref().map_or_else(|| "no such record".to_owned(), |ended| json!(ended).to_string())
}

impl Difference {
    fn write(&self, text: &mut String) {
        let Self { topic, partition, offset, .. } = self;
        let _ = write!(text, "\n{topic}:{partition}:{offset}");
        let entity_id = self.entity_id.as_ref().map(|id| format!("{id:?}"));
        let id = self.command_id.map(|id| id.to_string());
        for part in [self.command_type.clone(), entity_id, id].into_iter().flatten() {
            let _ = write!(text, "  {part}");
        }
        let _ = write!(text, "\n  published  {}\n  again      {}\n", json!(self.published), of(&self.again));
    }
}

impl Forgotten {
    fn write(&self, text: &mut String) {
        let Self { topic, partition, offset, command_id, resolve, .. } = self;
        let _ = write!(text, "\n{topic}:{partition}:{offset}");
        if let Some(entity_id) = &self.entity_id {
            let _ = write!(text, "  {entity_id:?}");
        }
        let again = self.again.as_ref().map(|again| json!(again).to_string());
        let again = match (again, self.dead_letter_id) {
            (Some(again), _) => again,
            (None, Some(number)) => format!("dead letter {number}"),
            (None, None) => "nothing".to_owned(),
        };
        let _ = writeln!(
            text,
            "  {command_id}\n  published  {}\n  again      {again}\n  once it is resumed and settled, type: {resolve}",
            json!(self.published)
        );
    }
}
