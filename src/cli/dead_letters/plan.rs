//! What a redrive or a discard would do: counted before anything is requested.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use super::requested::{ParkedKey, Requested, key_of};
use crate::cli::inspect::SCAN_TIMEOUT;
use crate::dead_letter::{DeadCode, LetterState};
use crate::postgres::{Error, LetterRequest, Refusal, Store, StoredLetter};
use crate::record::TopicPartition;
use crate::steps::decide::Action;

/// What is requested, by partition, and what is left out.
#[derive(Debug, Default, Serialize)]
pub(super) struct Plan {
    /// Letters that run again or are given up.
    pub(super) letters: u64,
    /// Of them, letters of parked keys; those that a redrive takes along are counted too.
    pub(super) parked: u64,
    pub(super) waiting: u64,
    /// Parked keys that they belong to.
    pub(super) keys: u64,
    /// Later commands of the same entities, which letters that park nothing run after; null where
    /// counting takes too long.
    pub(super) passed_by: Option<i64>,
    /// How many letters are left out, by reason.
    pub(super) left_out: BTreeMap<&'static str, u64>,
    /// Misrouted letters, which are produced again to the partitions of their keys.
    pub(super) produced_again: u64,
    /// There are more letters than so many, which are left for another call.
    pub(super) cut_at: Option<i64>,
    #[serde(skip)]
    pub(super) requests: Requests,
    #[serde(skip)]
    pub(super) misrouted: Vec<StoredLetter>,
}

/// By the topic and partition whose owner does it.
pub(super) type Requests = BTreeMap<(String, i32), Vec<LetterRequest>>;

const REQUESTED: &str = "requested already; solewriter dead-letters withdraw takes that back";
const WORN: &str = "failed too often already (--attempts-max)";

/// Such a letter stays what it is, however often it runs.
fn hopeless(letter: &StoredLetter, attempts_max: i32) -> Option<&'static str> {
    let is = |code: DeadCode| letter.code == code.as_str();
    if [DeadCode::MissingId, DeadCode::MalformedId, DeadCode::MalformedKey].into_iter().any(is) {
        return Some("without a readable id or key: they are no commands; produce corrected ones");
    }
    if is(DeadCode::IdReuse) {
        return Some("their id belongs to another command: produce them with an id of their own");
    }
    (letter.attempts >= attempts_max).then_some(WORN)
}

impl Plan {
    /// Of the letters that a filter means.
    pub(super) async fn of(
        store: &Store,
        action: Action,
        letters: Vec<StoredLetter>,
        attempts_max: i32,
    ) -> anyhow::Result<Self> {
        let mut plan = Self::default();
        let requested = Requested::now(store).await?;
        let (mut passing, mut taken) = (Vec::new(), HashSet::new());
        let worn: HashSet<_> = letters.iter().filter(|l| l.attempts >= attempts_max).filter_map(key_of).collect();
        for letter in letters {
            let of_key = key_of(&letter);
            let key_is_requested = requested.has_key(of_key.as_ref());
            match (action, of_key) {
                _ if requested.has_letter(&letter) => plan.leave_out(REQUESTED),
                // a redrive of its key goes on without it
                (Action::Discard | Action::Reproduced, _) => plan.take(&letter),
                _ if key_is_requested => plan.leave_out(REQUESTED),
                (Action::Redrive, Some(key)) if worn.contains(&key) => plan.leave_out(WORN),
                (Action::Redrive, Some(key)) => {
                    if taken.insert(key.clone()) {
                        plan.take_key(store, &key).await?;
                    }
                }
                _ if letter.code == DeadCode::Misrouted.as_str() => {
                    plan.produced_again += 1;
                    plan.misrouted.push(letter);
                }
                _ => match hopeless(&letter, attempts_max) {
                    Some(why) => plan.leave_out(why),
                    None => {
                        passing.push(letter.dead_letter_id);
                        plan.take(&letter);
                    }
                },
            }
        }
        plan.passed_by = match store.passed_by(&passing, SCAN_TIMEOUT).await {
            Ok(count) => Some(count),
            Err(Error::Refused(Refusal::TimedOut(_))) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(plan)
    }

    fn leave_out(&mut self, why: &'static str) {
        *self.left_out.entry(why).or_default() += 1;
    }

    fn take(&mut self, letter: &StoredLetter) {
        self.letters += 1;
        match LetterState::parse(&letter.state) {
            Some(LetterState::Parked) => self.parked += 1,
            Some(LetterState::Waiting) => self.waiting += 1,
            _ => {}
        }
        self.requests.entry((letter.topic.clone(), letter.home)).or_default().push(of_letter(letter));
    }

    async fn take_key(&mut self, store: &Store, (topic, partition, key): &ParkedKey) -> anyhow::Result<()> {
        let (parked, waiting) = store.letters_of_key(&TopicPartition::new(topic.as_str(), *partition), key).await?;
        self.keys += 1;
        self.parked += u64::try_from(parked)?;
        self.waiting += u64::try_from(waiting)?;
        self.letters += u64::try_from(parked + waiting)?;
        let request = LetterRequest { entity_id: Some(key.clone()), ..LetterRequest::default() };
        self.requests.entry((topic.clone(), *partition)).or_default().push(request);
        Ok(())
    }

    /// In a few lines.
    pub(super) fn text(&self, action: Action) -> String {
        let mut lines = Vec::new();
        match action {
            Action::Redrive | Action::Reproduced => {
                if self.keys > 0 {
                    lines.push(format!(
                        "{} of {} run again in the order of the log ({} parked, {} waiting)",
                        counted(self.parked + self.waiting, "letter"),
                        counted(self.keys, "parked key"),
                        self.parked,
                        self.waiting
                    ));
                }
                if self.produced_again > 0 {
                    lines.push(format!(
                        "{} produced again to the partition of its key, behind what is there",
                        counted(self.produced_again, "misrouted letter")
                    ));
                }
                let others = self.letters - self.parked - self.waiting;
                if others > 0 {
                    let passed_by = self.passed_by.map_or_else(|| "?".to_owned(), |count| count.to_string());
                    lines.push(format!(
                        "{} that parked nothing run now; later commands of the same keys that they pass: {passed_by}",
                        counted(others, "letter")
                    ));
                }
            }
            Action::Discard => {
                lines.push(format!(
                    "given up: {} ({} parked, {} waiting)",
                    counted(self.letters, "letter"),
                    self.parked,
                    self.waiting
                ));
                if self.parked > 0 {
                    lines.push(
                        "what waits behind them goes on waiting, until it is redriven or given up too".to_owned(),
                    );
                }
            }
        }
        lines
            .extend(self.left_out.iter().map(|(why, count)| format!("left out: {}, {why}", counted(*count, "letter"))));
        if let Some(cut_at) = self.cut_at {
            lines.push(format!("there are more: these are the oldest {cut_at}, call it again for the rest"));
        }
        if self.letters + self.produced_again == 0 {
            lines.push("nothing to do".to_owned());
        }
        lines.join("\n") + "\n"
    }
}

pub(super) fn of_letter(letter: &StoredLetter) -> LetterRequest {
    LetterRequest { dead_letter_id: Some(letter.dead_letter_id), ..LetterRequest::default() }
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
