//! What a verification has found.

use std::collections::HashSet;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::change::{Change, Changes, Example};
use crate::record::TopicPartition;

/// Differences that are kept, each the first of its key; more are counted.
pub(super) const DIFFERENCES_MAX: usize = 100;
/// Keys whose first difference is told from later ones.
const KEYS_MAX: usize = 100_000;

/// Where live tables and rebuilt ones part, for one key.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// What differs.
    pub what: What,
    /// The entity's type; empty: what differs is not one entity's.
    pub entity_type: String,
    /// The entity's id, as far as it can be read.
    pub entity_id: Option<String>,
    /// Of a row, its table with the schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// Of a row, the values of its primary key by column, if its table has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Value>,
    /// The first command after which they differ; of an entity all of whose outcomes are alike, its last; of a row that
    /// holds the id of a command, that one.
    #[serde(flatten)]
    pub after: Option<After>,
    /// What the live tables say; null: nothing.
    pub live: Value,
    /// What the log says; null: nothing.
    pub rebuilt: Value,
}

/// A command as a difference names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct After {
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
}

/// What can differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// How a command ended.
    Outcome,
    /// A command without an outcome in the live tables.
    OutcomeMissing,
    /// A record that is no command, without a dead letter in the live tables.
    LetterMissing,
    /// A record below the cursor that no batch has settled and no operator skipped.
    NeverSettled,
    /// Outcomes in the live tables that no record of the log leads to.
    OutcomeUnexplained,
    /// Version or state of an entity.
    Entity,
    /// A row of a table that commands write.
    Table,
}

impl What {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outcome => "outcome",
            Self::OutcomeMissing => "outcome missing",
            Self::LetterMissing => "dead letter missing",
            Self::NeverSettled => "never settled",
            Self::OutcomeUnexplained => "outcomes without a record",
            Self::Entity => "entity",
            Self::Table => "row",
        }
    }
}

/// One partition of a verification, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PartitionReport {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// From this offset on.
    pub from: i64,
    /// Up to the cut: the offset before this one.
    pub to: i64,
    /// Records read.
    pub records: u64,
    /// Commands run again.
    pub commands: u64,
    /// Of them, those whose outcome could be compared.
    pub compared: u64,
    /// Of them, those whose outcome is older than the horizon and no longer kept.
    pub forgotten: u64,
    /// Records that an operator had skipped, or that the partition began behind.
    pub skipped: u64,
}

/// One table that commands write, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TableReport {
    /// Its name with the schema.
    pub table: String,
    /// Rows of the live table at the cut.
    pub rows: u64,
    /// Rows that differ, are missing or too many.
    pub differing: u64,
}

/// What a verification has found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Whether the live tables are what the log makes of the handlers.
    pub equal: bool,
    /// As they were then, RFC 3339.
    pub cut_at: String,
    /// The checkpoint whose state is believed; null: everything is run from the beginning.
    pub from: Option<String>,
    /// The partitions, by topic and number.
    pub partitions: Vec<PartitionReport>,
    /// Entities compared.
    pub entities: u64,
    /// Entities whose version or state differs.
    pub entities_differing: u64,
    /// The tables that commands write, by name.
    pub tables: Vec<TableReport>,
    /// How many keys and rows differ, at least.
    pub difference_count: u64,
    /// The first of them.
    pub differences: Vec<Difference>,
    /// Commands that end otherwise than they did, by type and code: what other handlers would have changed.
    pub changes: Vec<Change>,
    /// What could not be proven, and why.
    pub unproven: Vec<String>,
    /// The shadow database, if it was kept.
    pub shadow: Option<String>,
}

impl Report {
    /// Whether every command ends as it did and leaves the same states: what `replay try` asks.
    pub fn is_unchanged(&self) -> bool {
        self.changes.is_empty() && self.entities_differing == 0 && self.tables.iter().all(|table| table.differing == 0)
    }

    /// Commands run again.
    pub fn commands(&self) -> u64 {
        self.partitions.iter().map(|partition| partition.commands).sum()
    }

    /// For a team's own tests.
    ///
    /// # Panics
    /// With the report, unless the live tables are what the log makes of the handlers.
    pub fn assert_equal(&self) {
        assert!(self.equal, "the database is not what its log says\n{}", self.text());
    }

    /// The commands that end otherwise than they did, for people.
    pub fn changes_text(&self) -> String {
        let mut text = format!("{} commands run again\n", self.commands());
        let forgotten: u64 = self.partitions.iter().map(|partition| partition.forgotten).sum();
        if forgotten > 0 {
            let _ = writeln!(text, "of {forgotten} nobody knows any more how they ended: older than the horizon");
        }
        // writing to a String cannot fail
        for Change { command_type, was, becomes, commands, examples } in &self.changes {
            let _ = writeln!(text, "\n{command_type}: {commands} that ended {was} end {becomes}");
            for example in examples {
                let Example { topic, partition, offset, entity_id, command_id, .. } = example;
                let _ = writeln!(text, "  {topic}:{partition}:{offset}  {entity_id:?}  {command_id}");
            }
        }
        for unproven in &self.unproven {
            let _ = writeln!(text, "not proven: {unproven}");
        }
        if self.entities_differing > 0 {
            let _ = writeln!(text, "\n{} entities have another version or state", self.entities_differing);
        }
        for TableReport { table, differing, .. } in self.tables.iter().filter(|table| table.differing > 0) {
            let _ = writeln!(text, "\n{differing} rows of {table} differ");
        }
        text + match (self.is_unchanged(), self.changes.is_empty()) {
            (true, _) => "\nall end as they did\n",
            (false, false) => "\nsome end otherwise\n",
            (false, true) => {
                "\nall end as they did, and yet leave something else than the database has; see: solewriter replay verify\n"
            }
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // writing to a String cannot fail
        for partition in &self.partitions {
            let PartitionReport { topic, partition, from, to, records, commands, compared, forgotten, skipped } =
                partition;
            let _ = write!(
                text,
                "{topic}:{partition}  offsets {from} to {}: {records} records, {commands} commands run again, {compared} \
                 outcomes compared",
                (to - 1).max(*from)
            );
            if *forgotten > 0 {
                let _ = write!(text, ", {forgotten} older than the horizon");
            }
            if *skipped > 0 {
                let _ = write!(text, ", {skipped} skipped");
            }
            text.push('\n');
        }
        let _ = writeln!(text, "{} entities compared", self.entities);
        for TableReport { table, rows, .. } in &self.tables {
            let _ = writeln!(text, "{rows} rows of {table} compared");
        }
        for difference in &self.differences {
            text += &difference.text();
        }
        let kept = self.differences.len() as u64;
        if self.difference_count > kept {
            let _ = writeln!(text, "and {} more", self.difference_count - kept);
        }
        for unproven in &self.unproven {
            let _ = writeln!(text, "not proven: {unproven}");
        }
        if let Some(shadow) = &self.shadow {
            let _ = writeln!(text, "kept: database {shadow}");
        }
        let since = self.from.as_ref().map(|name| format!(" since checkpoint {name}")).unwrap_or_default();
        let verdict = match self.equal {
            true => {
                let but = if self.unproven.is_empty() { "" } else { ", but for what is not proven" };
                format!("equal{since}{but}: the database is what its log says, as of {}", self.cut_at)
            }
            false if self.difference_count == 1 => "different: 1 key".to_owned(),
            false => format!("different: {} keys", self.difference_count),
        };
        text + &verdict + "\n"
    }
}

impl Difference {
    /// One of which no more is known.
    pub(super) fn of(what: What, entity_type: String, live: Value, rebuilt: Value) -> Self {
        Self { what, entity_type, entity_id: None, table: None, key: None, after: None, live, rebuilt }
    }

    fn text(&self) -> String {
        let mut text = format!("\n{}", self.what.as_str());
        if let Some(table) = &self.table {
            let _ = write!(text, "  {table}");
        }
        if let Some(key) = &self.key {
            let _ = write!(text, " {key}");
        }
        if let Some(entity_id) = &self.entity_id {
            let _ = write!(text, "  {} {entity_id:?}", self.entity_type);
        }
        if let Some(After { topic, partition, offset, command_id, command_type }) = &self.after {
            let _ = write!(text, "  after {topic}:{partition}:{offset}");
            for part in [command_type.clone(), command_id.map(|id| id.to_string())].into_iter().flatten() {
                let _ = write!(text, " {part}");
            }
        }
        let _ = write!(text, "\n  live     {}\n  rebuilt  {}\n", self.live, self.rebuilt);
        text
    }
}

/// Collects differences, of each key the first.
#[derive(Debug, Default)]
pub(super) struct Differences {
    keys: HashSet<(String, Option<String>)>,
    kept: Vec<Difference>,
    count: u64,
    pub changes: Changes,
}

impl Differences {
    pub fn add(&mut self, difference: Difference) {
        let key = (difference.entity_type.clone(), difference.entity_id.clone());
        if key.1.is_some() && (self.keys.contains(&key) || self.keys.len() >= KEYS_MAX) {
            return;
        }
        self.count += 1;
        self.keys.insert(key);
        if self.kept.len() < DIFFERENCES_MAX {
            self.kept.push(difference);
        }
    }

    /// Those of another partition, whose keys are its own, behind these.
    pub fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.keys.extend(other.keys);
        self.kept.extend(other.kept);
        self.kept.truncate(DIFFERENCES_MAX);
        self.changes.merge(other.changes);
    }

    /// There are so many more, which are not looked at one by one.
    pub fn count(&mut self, more: u64) {
        self.count += more;
    }

    /// Whether a difference of this entity is known already.
    pub fn has(&self, entity_type: &str, entity_id: &str) -> bool {
        self.keys.contains(&(entity_type.to_owned(), Some(entity_id.to_owned())))
    }

    pub fn into_parts(self) -> (u64, Vec<Difference>, Vec<Change>) {
        (self.count, self.kept, self.changes.into_list())
    }
}

impl After {
    pub(super) fn at(source: &TopicPartition, offset: i64) -> Self {
        let (topic, partition) = (source.topic.to_string(), source.partition);
        Self { topic, partition, offset, command_id: None, command_type: None }
    }
}
