//! What became of a record: concluded from what the log and the tables say.

use serde::Serialize;

use super::super::Place;
use crate::cli::output::Tone;
use crate::kafka::LogEnd;
use crate::outcome::{Delivery, Ending, FinalOutcome};

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    /// This delivery was decided: its outcome is the command's.
    Settled,
    /// An earlier delivery of its command was: this one got the same outcome.
    Duplicate,
    /// It had no effect.
    Dead,
    /// It waits for its turn.
    Pending,
    /// It was settled, and what became of it is no longer remembered.
    Expired,
    /// The cursor passed it, and no table speaks of it.
    Unrecorded,
    /// There is no record at this offset.
    Missing,
}

impl State {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::Duplicate => "duplicate",
            Self::Dead => "dead",
            Self::Pending => "pending",
            Self::Expired => "expired",
            Self::Unrecorded => "unrecorded",
            Self::Missing => "missing",
        }
    }

    pub(super) fn tone(self) -> Tone {
        match self {
            Self::Settled | Self::Duplicate => Tone::Good,
            Self::Pending | Self::Expired | Self::Missing => Tone::Warning,
            Self::Dead | Self::Unrecorded => Tone::Bad,
        }
    }
}

/// The conclusion, with the reason for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Became {
    pub(super) state: State,
    pub(super) detail: String,
}

/// What is known of a place.
pub(super) struct Facts<'a> {
    pub(super) place: &'a Place,
    pub(super) log: LogEnd,
    /// The cursor.
    pub(super) next_offset: Option<i64>,
    /// The log still holds a record there.
    pub(super) recorded: bool,
    /// The id that it carries is older than the horizon.
    pub(super) forgettable: bool,
    /// The newest dead letter's code.
    pub(super) dead_code: Option<String>,
    /// The command's final outcome.
    pub(super) outcome: Option<&'a FinalOutcome>,
}

impl Facts<'_> {
    pub(super) fn became(&self) -> Became {
        let Place { source, offset } = self.place;
        let here = self
            .outcome
            .filter(|FinalOutcome { delivery, .. }| delivery.source == *source && delivery.offset == *offset);
        let (state, detail) = match (here, &self.dead_code) {
            (Some(outcome), _) => (State::Settled, ending(outcome)),
            (None, Some(code)) => (State::Dead, format!("{code}: this delivery had no effect")),
            (None, None) if self.next_offset.is_some_and(|next_offset| *offset < next_offset) => self.passed(),
            (None, None) => self.to_come(),
        };
        Became { state, detail }
    }

    /// Below the cursor, and no row is of this delivery.
    fn passed(&self) -> (State, String) {
        let Self { place, log, .. } = self;
        if let Some(outcome) = self.outcome {
            let Delivery { source, offset, .. } = &outcome.delivery;
            let place = format!("{source}:{offset}");
            return (State::Duplicate, format!("its command was settled at {place}: {}", ending(outcome)));
        }
        if !self.recorded && place.offset < log.low {
            let detail = format!(
                "the cursor has passed it, and the log begins at {} now: a repeat, or its outcome is forgotten",
                log.low
            );
            return (State::Expired, detail);
        }
        if !self.recorded {
            return (State::Missing, "no record stands here: a transaction marker, or one that was compacted".into());
        }
        if self.forgettable {
            let detail = "settled; its id is older than what is remembered, so its outcome is forgotten";
            return (State::Expired, detail.into());
        }
        let detail = "the cursor has passed it without a trace: an operator skipped it (operator_actions says who and \
                      why), or the partition was begun behind it";
        (State::Unrecorded, detail.into())
    }

    /// At the cursor or above.
    fn to_come(&self) -> (State, String) {
        let Self { place, log, next_offset, .. } = self;
        if place.offset >= log.high {
            return (State::Missing, format!("the log ends at {}", log.high));
        }
        if place.offset < log.low {
            let detail = format!("deleted before it was settled: the log begins at {} now", log.low);
            return (State::Missing, detail);
        }
        if !self.recorded {
            let detail = "no record stands here: a transaction marker, a transaction that is open or aborted, or one \
                          that was compacted";
            return (State::Missing, detail.into());
        }
        match next_offset {
            None => (State::Pending, "not settled yet: no worker has claimed the partition".into()),
            Some(next_offset) => {
                let before = place.offset - next_offset;
                (State::Pending, format!("not settled yet: the cursor stands at {next_offset}, {before} before it"))
            }
        }
    }
}

fn ending(outcome: &FinalOutcome) -> String {
    match &outcome.ending {
        Ending::Applied { .. } => format!("applied, version {}", outcome.version),
        Ending::Rejected { code, .. } => format!("rejected, {code}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;
    use uuid::Uuid;

    use super::*;
    use crate::command::Fingerprint;
    use crate::outcome::ENCODING;
    use crate::record::TopicPartition;

    fn outcome(offset: i64) -> FinalOutcome {
        let delivery = Delivery {
            command_id: Uuid::from_u128(7),
            command_type: "t".into(),
            entity_type: "e".into(),
            entity_id: "a".into(),
            fingerprint: Fingerprint([0; 16]),
            source: TopicPartition::new("t", 0),
            offset,
            record_time_ms: 0,
            traceparent: None,
        };
        let ending = Ending::Applied { reply: RawValue::NULL.to_owned(), events: Vec::new() };
        FinalOutcome { delivery, version: 4, ending, encoding: ENCODING }
    }

    /// Of a log from 10 to 100 whose cursor stands at 50.
    fn became(offset: i64, change: impl FnOnce(&mut Facts<'_>)) -> (State, String) {
        let place = Place { source: TopicPartition::new("t", 0), offset };
        let mut facts = Facts {
            place: &place,
            log: LogEnd { low: 10, high: 100 },
            next_offset: Some(50),
            recorded: true,
            forgettable: false,
            dead_code: None,
            outcome: None,
        };
        change(&mut facts);
        let Became { state, detail } = facts.became();
        (state, detail)
    }

    #[test]
    fn a_record_below_the_cursor_is_settled_dead_or_a_duplicate() {
        let of = outcome(20);
        let became_with = |offset| {
            let place = Place { source: TopicPartition::new("t", 0), offset };
            let log = LogEnd { low: 10, high: 100 };
            let facts = Facts {
                place: &place,
                log,
                next_offset: Some(50),
                recorded: true,
                forgettable: false,
                dead_code: None,
                outcome: Some(&of),
            };
            facts.became()
        };
        assert_eq!(became_with(20).state, State::Settled);
        assert_eq!(became_with(30).state, State::Duplicate);
        assert!(became_with(30).detail.contains("t:0:20: applied, version 4"), "{}", became_with(30).detail);
        assert_eq!(became(20, |facts| facts.dead_code = Some("misrouted".into())).0, State::Dead);
    }

    #[test]
    fn what_no_table_speaks_of_was_forgotten_or_skipped() {
        assert_eq!(became(5, |facts| facts.recorded = false).0, State::Expired);
        assert_eq!(became(20, |facts| facts.recorded = false).0, State::Missing);
        assert_eq!(became(20, |facts| facts.forgettable = true).0, State::Expired);
        assert_eq!(became(20, |_| {}).0, State::Unrecorded);
    }

    #[test]
    fn what_lies_above_the_cursor_is_to_come() {
        assert_eq!(
            became(60, |_| {}),
            (State::Pending, "not settled yet: the cursor stands at 50, 10 before it".into())
        );
        assert_eq!(became(60, |facts| facts.next_offset = None).0, State::Pending);
        assert_eq!(became(60, |facts| facts.recorded = false).0, State::Missing);
        assert_eq!(became(100, |facts| facts.recorded = false).0, State::Missing);
        assert_eq!(became(5, |facts| (facts.next_offset, facts.recorded) = (Some(0), false)).0, State::Missing);
    }
}
