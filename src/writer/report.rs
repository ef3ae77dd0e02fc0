//! Counts and logs what was settled.

use std::collections::HashMap;
use std::time::Duration;

use crate::dead_letter::{DeadLetter, LetterState};
use crate::outcome::{Ending, FinalOutcome};
use crate::steps::Rules;
use crate::steps::commit::{Due, Durable};
use crate::steps::decide::Settles;
use crate::telemetry::metrics::{self, Settled, UNKNOWN_COMMAND_TYPE};

/// A batch is durable.
pub(super) fn settled(rules: &Rules, durable: &Durable, now_ms: i64) {
    let topic = &rules.source.topic;
    if let Settles::Log { first_offset, last } = &durable.decision().settles {
        let (partition, next_offset) = (rules.source.partition, last.offset + 1);
        tracing::debug!(%topic, partition, first_offset, next_offset, "settled");
    }
    // of letters that run again the age tells when an operator came
    let from_log = matches!(durable.decision().settles, Settles::Log { .. });
    let mut counts: HashMap<(&str, Settled), u64> = HashMap::new();
    for due in durable.due() {
        let key = match due {
            Due::Outcome(outcome) => {
                if from_log {
                    let age_ms = u64::try_from(now_ms - outcome.delivery.record_time_ms).unwrap_or(0);
                    metrics::command_age(Duration::from_millis(age_ms));
                }
                (&*outcome.delivery.command_type, ending(outcome))
            }
            Due::Repeat(outcome) => (&*outcome.delivery.command_type, Settled::Duplicate),
            Due::Dead(letter, _) => (known_type(rules, letter), Settled::Dead),
        };
        *counts.entry(key).or_default() += 1;
    }
    for ((command_type, settled), n) in counts {
        metrics::commands(topic, command_type, settled, n);
    }
    let failed = |letter: &&DeadLetter| letter.state != LetterState::Waiting;
    for letter in durable.decision().dead.iter().filter(failed) {
        let at = format_args!("{}:{}", letter.source(&rules.source), letter.record.offset);
        let command_id = letter.command_id.map(tracing::field::display);
        let command_type = letter.command_type.as_deref();
        tracing::warn!(%at, code = %letter.code, command_id, command_type, detail = %letter.detail, "dead letter");
    }
}

fn ending(outcome: &FinalOutcome) -> Settled {
    match outcome.ending {
        Ending::Applied { .. } => Settled::Applied,
        Ending::Rejected { .. } => Settled::Rejected,
    }
}

/// A label must not be chosen by whoever sends a record.
fn known_type<'d>(rules: &Rules, letter: &'d DeadLetter) -> &'d str {
    let name = letter.command_type.as_deref();
    name.filter(|name| rules.handlers.command(name).is_some()).unwrap_or(UNKNOWN_COMMAND_TYPE)
}
