//! Checkpoints as they are printed.

use serde::Serialize;

use crate::cli::output::{self, Tone, or_dash, time, toned};
use crate::outcome::rfc3339;
use crate::postgres::{CheckpointRow, CheckpointState, ListedCheckpoint};

/// The state of another role's.
const FORBIDDEN: &str = "forbidden";

/// What `create` did, or would do.
#[derive(Serialize)]
pub(super) struct Made {
    pub(super) made: bool,
    pub(super) name: String,
    /// The tables that commands in SQL name; what their foreign keys lead to is kept too.
    pub(super) tables: Vec<String>,
    pub(super) checkpoint: Option<Shown>,
}

/// What `drop` did, or would do.
#[derive(Serialize)]
pub(super) struct Dropped {
    pub(super) dropped: bool,
    pub(super) checkpoint: Shown,
}

/// What `list` prints.
#[derive(Serialize)]
pub(super) struct Checkpoints {
    pub(super) checkpoints: Vec<Shown>,
}

/// A checkpoint.
#[derive(Default, Serialize)]
pub(super) struct Shown {
    name: String,
    state: &'static str,
    /// The role whose it is. Where this one may not read it, the rest is not known.
    owner: String,
    begun_at: Option<String>,
    cut_at: Option<String>,
    actor: Option<String>,
    reason: Option<String>,
    schema_version: Option<i64>,
    entities: Option<i64>,
    letters: Option<i64>,
    size_bytes: i64,
    cursors: Vec<ShownCursor>,
}

#[derive(Serialize)]
struct ShownCursor {
    topic: String,
    partition: i32,
    next_offset: i64,
    batch_seq: i64,
}

impl From<CheckpointRow> for Shown {
    fn from(row: CheckpointRow) -> Self {
        let cursors = row.cursors.into_iter().map(|cursor| ShownCursor {
            topic: cursor.topic,
            partition: cursor.partition,
            next_offset: cursor.next_offset,
            batch_seq: cursor.batch_seq,
        });
        Self {
            name: row.name,
            state: match row.state {
                CheckpointState::Complete => "complete",
                CheckpointState::InTheMaking => "in-the-making",
                CheckpointState::Unfinished => "unfinished",
            },
            owner: row.owner,
            begun_at: Some(rfc3339(row.about.begun_at_ms)),
            cut_at: row.about.cut_at_ms.map(rfc3339),
            actor: Some(row.about.actor),
            reason: Some(row.about.reason),
            schema_version: row.about.schema_version,
            entities: row.about.entities,
            letters: row.about.letters,
            size_bytes: row.size_bytes,
            cursors: cursors.collect(),
        }
    }
}

impl From<ListedCheckpoint> for Shown {
    fn from(listed: ListedCheckpoint) -> Self {
        match listed {
            ListedCheckpoint::Readable(row) => row.into(),
            ListedCheckpoint::Forbidden { name, owner, size_bytes } => {
                Self { name, state: FORBIDDEN, owner, size_bytes, ..Self::default() }
            }
        }
    }
}

impl Made {
    pub(super) fn text(&self) -> String {
        let mut text = match &self.checkpoint {
            Some(made) => format!(
                "made checkpoint {}: {} entities, {} letters that can still run, {} MB\n",
                self.name,
                made.entities.unwrap_or(0),
                made.letters.unwrap_or(0),
                megabytes(made.size_bytes)
            ),
            None => format!("would make checkpoint {}; nothing is made: leave --dry-run out to do it\n", self.name),
        };
        if !self.tables.is_empty() {
            text += &format!("with the tables of commands in SQL: {}\n", self.tables.join(", "));
        }
        text
    }
}

impl Dropped {
    pub(super) fn text(&self) -> String {
        let Shown { name, state, size_bytes, .. } = &self.checkpoint;
        let size = megabytes(*size_bytes);
        match self.dropped {
            true => format!("dropped checkpoint {name} ({state}, {size} MB)\n"),
            false => format!(
                "would drop checkpoint {name} ({state}, {size} MB); nothing is changed: give --reason '…', and no --dry-run, to do it\n"
            ),
        }
    }
}

impl Checkpoints {
    pub(super) fn text(&self) -> String {
        if self.checkpoints.is_empty() {
            return "there is no checkpoint; to make one, type: solewriter checkpoint create\n".to_owned();
        }
        let mut table =
            output::table(&["NAME", "STATE", "CUT AT", "CURSORS", "ENTITIES", "LETTERS", "MB", "BY", "REASON"]);
        for shown in &self.checkpoints {
            let tone = if shown.cut_at.is_some() { Tone::Good } else { Tone::Warning };
            table.add_row([
                (&*shown.name).into(),
                toned(shown.state, tone),
                or_dash(shown.cut_at.as_deref().map(time)).into(),
                shown.cursors().into(),
                or_dash(shown.entities).into(),
                or_dash(shown.letters).into(),
                megabytes(shown.size_bytes).into(),
                or_dash(shown.actor.as_deref()).into(),
                or_dash(shown.reason.as_deref().map(str::to_owned).or_else(|| shown.foreign())).into(),
            ]);
        }
        output::drawn(&table)
    }
}

impl Shown {
    /// What is said in place of what this role may not read.
    fn foreign(&self) -> Option<String> {
        (self.state == FORBIDDEN).then(|| format!("of role {}, which alone may read it", self.owner))
    }

    /// A few in full; of many, their number and sum.
    fn cursors(&self) -> String {
        match self.cursors.as_slice() {
            [] => "-".to_owned(),
            few @ ([_] | [_, _]) => {
                let place =
                    |cursor: &ShownCursor| format!("{}:{}:{}", cursor.topic, cursor.partition, cursor.next_offset);
                few.iter().map(place).collect::<Vec<_>>().join(" ")
            }
            many => {
                let offsets: i64 = many.iter().map(|cursor| cursor.next_offset).sum();
                format!("{} partitions, {offsets} offsets", many.len())
            }
        }
    }
}

fn megabytes(bytes: i64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(cursors: usize) -> Shown {
        let cursor = |n: usize| ShownCursor {
            topic: "accounts.commands".into(),
            partition: i32::try_from(n).expect("a partition"),
            next_offset: 10,
            batch_seq: 3,
        };
        Shown {
            name: "x".into(),
            state: "complete",
            owner: "app".into(),
            begun_at: Some(rfc3339(0)),
            cut_at: Some(rfc3339(1)),
            actor: Some("ann@host".into()),
            reason: Some("INC-1".into()),
            schema_version: Some(1),
            entities: Some(5),
            letters: Some(1),
            size_bytes: 1_500_000,
            cursors: (0..cursors).map(cursor).collect(),
        }
    }

    #[test]
    fn few_cursors_are_told_in_full_and_many_are_summed() {
        assert_eq!(shown(0).cursors(), "-");
        assert_eq!(shown(2).cursors(), "accounts.commands:0:10 accounts.commands:1:10");
        assert_eq!(shown(3).cursors(), "3 partitions, 30 offsets");
    }

    #[test]
    fn a_list_has_a_line_for_each_and_says_if_there_is_none() {
        let text = Checkpoints { checkpoints: vec![shown(1)] }.text();
        assert!(text.contains("complete") && text.contains("1.5") && text.contains("INC-1"), "{text}");
        assert!(Checkpoints { checkpoints: Vec::new() }.text().contains("checkpoint create"));
    }
}
