//! A dead delivery as `inspect` shows it: an outcome's fields, and what has been done with it since.

use serde::Serialize;
use uuid::Uuid;

use crate::cli::output;
use crate::cli::output::{Tone, or_dash};
use crate::outcome::rfc3339;
use crate::postgres::StoredLetter;

/// One dead delivery.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Letter {
    pub(super) command_id: Option<Uuid>,
    pub(super) command_type: Option<String>,
    entity_type: String,
    entity_id: Option<String>,
    outcome: &'static str,
    pub(super) code: String,
    pub(super) detail: Option<String>,
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
    attempts: i32,
    pub(super) state: String,
    pub(super) record_time: String,
    at: String,
}

impl From<StoredLetter> for Letter {
    fn from(stored: StoredLetter) -> Self {
        Self {
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

/// A table of dead deliveries below what stands above; nothing if there are none.
pub(super) fn table(letters: &[Letter]) -> String {
    if letters.is_empty() {
        return String::new();
    }
    let mut table = output::table(&["DEAD AT", "RECORD", "CODE", "STATE", "DETAIL"]);
    for letter in letters {
        let place = format!("{}:{}:{}", letter.topic, letter.partition, letter.offset);
        let code = output::toned(&letter.code, Tone::Bad);
        let (at, state, detail) =
            (output::time(&letter.at).into(), (&letter.state).into(), or_dash(letter.detail.as_ref()).into());
        table.add_row([at, place.into(), code, state, detail]);
    }
    output::keep_whole(&mut table, &[1, 2, 3]);
    format!("\n{}", output::drawn(&table))
}
