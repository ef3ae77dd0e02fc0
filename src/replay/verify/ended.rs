//! Compares how a command ended: as the tables have it, and as it ends when it is run again.

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::outcome::{Ending, FinalOutcome};

/// What of an outcome is compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ended {
    /// `applied` or `rejected`; `dead` if its handler failed.
    pub outcome: &'static str,
    /// Why it was rejected, or is dead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The entity's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// The reply of an applied command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply: Option<Value>,
    /// What it emitted, in order: type and data.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Value>,
}

impl Ended {
    /// Of a final outcome.
    pub fn of(outcome: &FinalOutcome) -> Self {
        let version = Some(outcome.version);
        match &outcome.ending {
            Ending::Applied { reply, events } => {
                let event =
                    |event: &crate::outcome::Event| json!({ "type": event.event_type, "data": value(&event.data) });
                let (reply, events) = (Some(value(reply)), events.iter().map(event).collect());
                Self { outcome: "applied", code: None, version, reply, events }
            }
            Ending::Rejected { code, .. } => {
                let code = Some(code.clone().into_owned());
                Self { outcome: "rejected", code, version, reply: None, events: Vec::new() }
            }
        }
    }

    /// `applied`, or why not.
    pub(super) fn in_short(&self) -> String {
        self.code.clone().unwrap_or_else(|| self.outcome.to_owned())
    }

    /// Of a delivery that is dead.
    pub fn dead(code: &str) -> Self {
        Self { outcome: "dead", code: Some(code.to_owned()), version: None, reply: None, events: Vec::new() }
    }
}

/// JSON that was valid when it was stored; one that is not any more stays a text.
fn value(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap_or_else(|_| Value::String(raw.get().to_owned()))
}

/// Whether the two ended alike: outcome, code, version, reply and events, byte for byte.
pub(super) fn alike(live: &FinalOutcome, rebuilt: &FinalOutcome) -> bool {
    let is_same_command = live.delivery.command_type == rebuilt.delivery.command_type
        && live.delivery.entity_type == rebuilt.delivery.entity_type
        && live.delivery.entity_id == rebuilt.delivery.entity_id
        && live.delivery.fingerprint == rebuilt.delivery.fingerprint;
    is_same_command
        && live.version == rebuilt.version
        && match (&live.ending, &rebuilt.ending) {
            (Ending::Applied { reply, events }, Ending::Applied { reply: again, events: emitted }) => {
                let mut pairs = events.iter().zip(emitted);
                reply.get() == again.get()
                    && events.len() == emitted.len()
                    && pairs.all(|(a, b)| a.event_type == b.event_type && a.data.get() == b.data.get())
            }
            (Ending::Rejected { code, .. }, Ending::Rejected { code: again, .. }) => code == again,
            _ => false,
        }
}
