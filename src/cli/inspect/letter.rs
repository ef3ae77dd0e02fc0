//! A dead delivery as `inspect` shows it: an outcome's fields, and what has been done with it since.

use serde::Serialize;
use uuid::Uuid;

use crate::cli::output;
use crate::cli::output::{Tone, or_dash};
use crate::outcome::rfc3339;
use crate::postgres::StoredLetter;

/// One dead delivery.
#[derive(Clone, Debug, Serialize)]
pub(in crate::cli) struct Letter {
    pub(in crate::cli) dead_letter_id: i64,
    pub(in crate::cli) command_id: Option<Uuid>,
    pub(in crate::cli) command_type: Option<String>,
    entity_type: String,
    pub(in crate::cli) entity_id: Option<String>,
    outcome: &'static str,
    pub(in crate::cli) code: String,
    pub(in crate::cli) detail: Option<String>,
    pub(in crate::cli) topic: String,
    pub(in crate::cli) partition: i32,
    pub(in crate::cli) offset: i64,
    pub(in crate::cli) attempts: i32,
    pub(in crate::cli) state: String,
    pub(in crate::cli) record_time: String,
    pub(in crate::cli) at: String,
}

impl From<StoredLetter> for Letter {
    fn from(stored: StoredLetter) -> Self {
        Self {
            dead_letter_id: stored.dead_letter_id,
            command_id: stored.command_id,
            command_type: stored.command_type,
            entity_type: stored.entity_type,
            entity_id: stored.entity_id,
            outcome: "dead",
            code: stored.code,
            detail: stored.detail,
            topic: stored.topic,
            partition: stored.partition,
            offset: stored.log_offset,
            attempts: stored.attempts,
            state: stored.state,
            record_time: rfc3339(stored.record_time_ms),
            at: rfc3339(stored.at_ms),
        }
    }
}

impl Letter {
    /// Where its record stands.
    pub(in crate::cli) fn place(&self) -> String {
        format!("{}:{}:{}", self.topic, self.partition, self.offset)
    }
}

/// A table of dead letters with their numbers.
pub(in crate::cli) fn numbered(letters: &[Letter]) -> String {
    let mut table = output::table(&["LETTER", "DEAD AT", "RECORD", "KEY", "TYPE", "CODE", "STATE", "TRIES", "DETAIL"]);
    for letter in letters {
        table.add_row([
            letter.dead_letter_id.into(),
            output::time(&letter.at).into(),
            letter.place().into(),
            or_dash(letter.entity_id.as_ref()).into(),
            or_dash(letter.command_type.as_ref()).into(),
            output::toned(&letter.code, Tone::Bad),
            (&letter.state).into(),
            letter.attempts.into(),
            or_dash(letter.detail.as_ref()).into(),
        ]);
    }
    output::keep_whole(&mut table, &[0, 2, 5, 6]);
    output::drawn(&table)
}

/// A table of dead deliveries below what stands above; nothing if there are none.
pub(in crate::cli) fn table(letters: &[Letter]) -> String {
    if letters.is_empty() {
        return String::new();
    }
    let mut table = output::table(&["DEAD AT", "RECORD", "CODE", "STATE", "DETAIL"]);
    for letter in letters {
        let code = output::toned(&letter.code, Tone::Bad);
        let (at, state, detail) =
            (output::time(&letter.at).into(), (&letter.state).into(), or_dash(letter.detail.as_ref()).into());
        table.add_row([at, letter.place().into(), code, state, detail]);
    }
    output::keep_whole(&mut table, &[1, 2, 3]);
    format!("\n{}", output::drawn(&table))
}
