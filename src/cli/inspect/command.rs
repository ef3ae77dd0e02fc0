//! `inspect command`: what is known of a command id.

use anyhow::Context as _;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use uuid::Uuid;

use super::SCAN_TIMEOUT;
use super::letter::{self, Letter};
use crate::cli::backend;
use crate::cli::output::{self, Tone};
use crate::config::Config;
use crate::horizon::Horizon;
use crate::outcome::{Ending, FinalOutcome};

/// The newest dead deliveries are shown.
const LETTERS_MAX: i64 = 100;

/// What is known of a command id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Known {
    /// It has its final outcome.
    Settled,
    /// Deliveries of it were dead, and none had an effect.
    Dead,
    /// Nothing, and it would be remembered.
    Unknown,
    /// Nothing final, and it is older than what is remembered: it may have run.
    Expired,
}

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct CommandReport {
    command_id: Uuid,
    known: Known,
    /// The final one, as it was published.
    outcome: Option<Box<RawValue>>,
    dead_letters: Vec<Letter>,
    /// The outcome in its parts.
    #[serde(skip)]
    parts: Option<FinalOutcome>,
}

pub(super) async fn inspect(config: &Config, id: Uuid) -> anyhow::Result<CommandReport> {
    let store = backend::fitting_store(config).await?;
    // before the outcome: an id that is pruned in between must not be taken for unknown
    let horizon = Horizon(store.horizon().await?.at_ms);
    let outcome = store.outcomes_of(&[id]).await?.remove(&id);
    let letters = store.dead_letters_of(id, LETTERS_MAX, SCAN_TIMEOUT).await;
    let letters = letters.context("the dead letters cannot be looked through for this id")?;
    let parts = outcome.map(|outcome| (*outcome).clone());
    Ok(CommandReport {
        command_id: id,
        known: known(parts.is_some(), !letters.is_empty(), horizon.is_below(&id)),
        outcome: parts.as_ref().map(|outcome| to_raw_value(&outcome.body())).transpose()?,
        dead_letters: letters.into_iter().map(Letter::from).collect(),
        parts,
    })
}

/// A dead delivery says nothing of an earlier one that is forgotten, so *expired* comes first.
fn known(settled: bool, dead: bool, below_horizon: bool) -> Known {
    match (settled, below_horizon, dead) {
        (true, ..) => Known::Settled,
        (false, true, _) => Known::Expired,
        (false, false, true) => Known::Dead,
        (false, false, false) => Known::Unknown,
    }
}

impl CommandReport {
    pub(super) fn text(&self) -> String {
        let (word, tone, meaning) = match self.known {
            Known::Settled => ("settled", Tone::Good, "it has its final outcome"),
            Known::Dead => ("dead", Tone::Bad, "no delivery has had an effect"),
            Known::Unknown => ("unknown", Tone::Warning, "no record with this id has been settled"),
            Known::Expired => (
                "expired",
                Tone::Warning,
                "older than what is remembered: it may have run and been forgotten, and would be refused now",
            ),
        };
        let head = output::facts([
            ("command", Some(self.command_id.to_string().into())),
            ("known", Some(output::toned(word, tone))),
            ("meaning", Some(meaning.into())),
        ]);
        head + &self.parts.as_ref().map(settled).unwrap_or_default() + &letter::table(&self.dead_letters)
    }
}

/// The outcome for people.
pub(super) fn settled(outcome: &FinalOutcome) -> String {
    let (ending, reply, code, detail) = match &outcome.ending {
        Ending::Applied { reply, .. } => (output::toned("applied", Tone::Good), Some(reply.get()), None, None),
        Ending::Rejected { code, detail } => {
            (output::toned("rejected", Tone::Warning), None, Some(&**code), detail.as_deref())
        }
    };
    let delivery = &outcome.delivery;
    output::facts([
        ("outcome", Some(ending)),
        ("code", code.map(Into::into)),
        ("detail", detail.map(Into::into)),
        ("reply", reply.map(Into::into)),
        ("type", Some((&*delivery.command_type).into())),
        ("entity", Some(format!("{} {}", delivery.entity_type, delivery.entity_id).into())),
        ("version", Some(outcome.version.into())),
        ("record", Some(format!("{}:{}", delivery.source, delivery.offset).into())),
        ("time", Some(crate::outcome::rfc3339(delivery.record_time_ms).into())),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_may_be_forgotten_is_never_called_dead_or_unknown() {
        assert_eq!(known(true, true, true), Known::Settled);
        assert_eq!(known(false, true, true), Known::Expired);
        assert_eq!(known(false, false, true), Known::Expired);
        assert_eq!(known(false, true, false), Known::Dead);
        assert_eq!(known(false, false, false), Known::Unknown);
    }

    #[test]
    fn the_answer_has_the_shape_of_the_interface() {
        let command_id = Uuid::from_u128(7);
        let report =
            CommandReport { command_id, known: Known::Unknown, outcome: None, dead_letters: Vec::new(), parts: None };
        assert_eq!(
            serde_json::to_value(&report).expect("a document"),
            serde_json::json!({"command_id": command_id, "known": "unknown", "outcome": null, "dead_letters": []})
        );
        assert!(report.text().contains("no record with this id"), "{}", report.text());
    }
}
