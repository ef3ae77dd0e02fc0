//! What became of one record of the log: concluded from what the tables say of its id and its offset.

use serde::Serialize;

use crate::dead_letter::{DeadCode, LetterState};
use crate::postgres::{LetterAt, SettledDelivery};
use crate::record::TopicPartition;

/// What became of a record. The names are part of the public interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// This delivery was applied.
    Applied,
    /// This delivery was rejected by a business rule.
    Rejected,
    /// Another delivery of its command was settled: this one got the same outcome.
    Duplicate,
    /// It had no effect, and parks nothing.
    Dead,
    /// It failed on its own account; its key waits behind it.
    Parked,
    /// It waits behind a parked one.
    Waiting,
    /// An operator has given it up.
    Discarded,
    /// The cursor has not come to it.
    Unsettled,
    /// It was settled, and what became of it is no longer remembered: its id is older than the horizon.
    Forgotten,
    /// The cursor passed it, and no table speaks of it: an operator skipped it, or the partition was begun
    /// behind it.
    Unrecorded,
}

impl Fate {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 10] = [
        Self::Applied,
        Self::Rejected,
        Self::Duplicate,
        Self::Dead,
        Self::Parked,
        Self::Waiting,
        Self::Discarded,
        Self::Unsettled,
        Self::Forgotten,
        Self::Unrecorded,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Rejected => "rejected",
            Self::Duplicate => "duplicate",
            Self::Dead => "dead",
            Self::Parked => "parked",
            Self::Waiting => "waiting",
            Self::Discarded => "discarded",
            Self::Unsettled => "unsettled",
            Self::Forgotten => "forgotten",
            Self::Unrecorded => "unrecorded",
        }
    }
}

/// A fate with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Concluded {
    /// The fate.
    pub fate: Fate,
    /// The business rule's code, or why it is dead.
    pub code: Option<String>,
    /// What is wrong with a dead one, for a person.
    pub detail: Option<String>,
    /// The entity's version, of a command that has its final outcome.
    pub version: Option<i64>,
    /// Of a duplicate, the delivery that was settled: its partition and offset.
    pub settled_at: Option<(TopicPartition, i64)>,
    /// It was dead, and an operator has had it run again.
    pub redriven: bool,
}

/// What is known of a record.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Its partition.
    pub source: &'a TopicPartition,
    /// Its offset.
    pub offset: i64,
    /// Its time, milliseconds since 1970, as the tables would hold it.
    pub record_time_ms: i64,
    /// The cursor, read before the tables were; `None`: nobody has claimed the partition.
    pub next_offset: Option<i64>,
    /// The settled delivery of its command.
    pub settled: Option<&'a SettledDelivery>,
    /// The dead letters of its offset, oldest first.
    pub letters: &'a [LetterAt],
    /// Its id is below the horizon, which was read after the tables were.
    pub below_horizon: bool,
}

impl Facts<'_> {
    /// What became of it.
    pub fn conclude(&self) -> Concluded {
        // a letter of the same offset in a log that was recreated since is of another record
        let letter = self.letters.iter().rev().find(|letter| letter.record_time_ms == self.record_time_ms);
        let state = letter.and_then(|letter| LetterState::parse(&letter.state));
        let of_letter = |fate, letter: &LetterAt| Concluded {
            code: Some(letter.code.clone()),
            detail: letter.detail.clone(),
            ..Concluded::of(fate)
        };
        match (letter, state) {
            (Some(letter), Some(LetterState::Parked)) => of_letter(Fate::Parked, letter),
            (Some(letter), Some(LetterState::Waiting)) => of_letter(Fate::Waiting, letter),
            (Some(letter), Some(LetterState::Discarded)) => of_letter(Fate::Discarded, letter),
            (Some(letter), Some(LetterState::Redriven)) => match self.settled() {
                // it was produced again, to the partition of its key: its copy is what ran
                ended if letter.code == DeadCode::Misrouted.as_str() && ended.settled_at.is_some() => {
                    Concluded { redriven: true, settled_at: ended.settled_at, ..of_letter(Fate::Dead, letter) }
                }
                ended => Concluded { redriven: true, ..ended },
            },
            (Some(letter), _) => of_letter(Fate::Dead, letter),
            (None, _) => self.settled(),
        }
    }

    fn settled(&self) -> Concluded {
        let is_below_cursor = self.next_offset.is_some_and(|next_offset| self.offset < next_offset);
        let Some(settled) = self.settled else {
            return Concluded::of(match is_below_cursor {
                false => Fate::Unsettled,
                true if self.below_horizon => Fate::Forgotten,
                true => Fate::Unrecorded,
            });
        };
        let SettledDelivery { applied, code, version, .. } = settled;
        let ended = Concluded { code: code.clone(), version: Some(*version), ..Concluded::of(Fate::Applied) };
        if self.is_here(settled) {
            return Concluded { fate: if *applied { Fate::Applied } else { Fate::Rejected }, ..ended };
        }
        if !is_below_cursor {
            return Concluded::of(Fate::Unsettled);
        }
        let place = (TopicPartition::new(&*settled.topic, settled.partition), settled.log_offset);
        Concluded { fate: Fate::Duplicate, settled_at: Some(place), ..ended }
    }

    fn is_here(&self, settled: &SettledDelivery) -> bool {
        *settled.topic == *self.source.topic
            && (settled.partition, settled.log_offset) == (self.source.partition, self.offset)
            && settled.record_time_ms == self.record_time_ms
    }
}

impl Concluded {
    fn of(fate: Fate) -> Self {
        Self { fate, code: None, detail: None, version: None, settled_at: None, redriven: false }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn settled(log_offset: i64) -> SettledDelivery {
        SettledDelivery {
            command_id: Uuid::from_u128(7),
            topic: "t".into(),
            partition: 0,
            log_offset,
            record_time_ms: 1_000,
            version: 4,
            applied: true,
            code: None,
        }
    }

    fn letter(state: &str) -> LetterAt {
        LetterAt {
            dead_letter_id: 1,
            log_offset: 20,
            record_time_ms: 1_000,
            code: "handler-failed".into(),
            detail: None,
            state: state.into(),
        }
    }

    /// Of a record whose partition's cursor stands at 50.
    fn fate(offset: i64, settled: Option<&SettledDelivery>, letters: &[LetterAt], below_horizon: bool) -> Concluded {
        let source = TopicPartition::new("t", 0);
        let (record_time_ms, next_offset) = (1_000, Some(50));
        Facts { source: &source, offset, record_time_ms, next_offset, settled, letters, below_horizon }.conclude()
    }

    #[test]
    fn the_offset_tells_the_settled_delivery_from_its_repeats() {
        let here = settled(20);
        assert_eq!(fate(20, Some(&here), &[], false).fate, Fate::Applied);
        let repeat = fate(30, Some(&here), &[], false);
        assert_eq!((repeat.fate, repeat.version), (Fate::Duplicate, Some(4)));
        assert_eq!(repeat.settled_at, Some((TopicPartition::new("t", 0), 20)));
        assert_eq!(fate(60, Some(&here), &[], false).fate, Fate::Unsettled, "a repeat that is still to come");
        let rejected = SettledDelivery { applied: false, code: Some("no".into()), ..settled(20) };
        assert_eq!(fate(20, Some(&rejected), &[], false).code.as_deref(), Some("no"));
    }

    #[test]
    fn a_letter_speaks_for_its_own_offset() {
        for (state, expected) in
            [("dead", Fate::Dead), ("parked", Fate::Parked), ("waiting", Fate::Waiting), ("discarded", Fate::Discarded)]
        {
            assert_eq!(fate(20, None, &[letter(state)], true).fate, expected, "{state}");
        }
        let redriven = fate(20, Some(&settled(20)), &[letter("redriven")], false);
        assert_eq!((redriven.fate, redriven.redriven), (Fate::Applied, true));
        let misrouted = LetterAt { code: "misrouted".into(), ..letter("redriven") };
        let again = fate(20, Some(&settled(30)), &[misrouted], false);
        assert_eq!((again.fate, again.redriven), (Fate::Dead, true), "produced again elsewhere");
        let other = LetterAt { record_time_ms: 999, ..letter("dead") };
        assert_eq!(fate(20, Some(&settled(20)), &[other], false).fate, Fate::Applied, "a letter of an earlier log");
    }

    #[test]
    fn what_no_table_speaks_of_is_to_come_forgotten_or_skipped() {
        assert_eq!(fate(60, None, &[], true).fate, Fate::Unsettled);
        assert_eq!(fate(20, None, &[], true).fate, Fate::Forgotten);
        assert_eq!(fate(20, None, &[], false).fate, Fate::Unrecorded);
    }

    #[test]
    fn a_fate_has_one_name() {
        for fate in Fate::ALL {
            assert_eq!(serde_json::to_value(fate).expect("a name"), fate.as_str());
        }
    }
}
