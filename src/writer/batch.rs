//! A batch: whatever has queued up for the partition, received and routed.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use uuid::Uuid;

use crate::command::Command;
use crate::dead_letter::{DeadCode, DeadLetter};
use crate::record::Record;
use crate::steps::Rules;
use crate::steps::decide::{Caution, Decision, RequestedLetter, Routed, record_of};
use crate::steps::receive::receive;
use crate::steps::route::route;

/// Records on their way to being settled. Kept until they are durable, so that
/// they can be decided again.
pub(crate) struct Batch {
    pub items: Vec<Routed>,
    /// What is requested of each, if they are dead letters: they stay requested
    /// until that is durable, so the end of such a batch may be dropped.
    pub letters: Vec<RequestedLetter>,
}

impl Batch {
    /// Steps 1 and 2.
    pub fn receive(records: &mut Vec<Record>, rules: &Rules) -> Self {
        let routed = |record| receive(record, rules).and_then(|command| route(command, rules));
        Self { items: records.drain(..).map(routed).collect(), letters: Vec::new() }
    }

    /// The same for dead letters of which something is requested.
    pub fn of_letters(letters: Vec<(Record, RequestedLetter)>, rules: &Rules) -> Self {
        let routed = |record| receive(record, rules).and_then(|command| route(command, rules));
        let item = |(record, letter): (Record, RequestedLetter)| {
            let item = match letter.edited_value.as_deref().map(|value| record.with_value(value)) {
                Some(edited) => routed(edited).and_then(|edited| corrected(edited, routed(record), letter.command_id)),
                None => routed(record),
            };
            (item, letter)
        };
        let (items, letters) = letters.into_iter().map(item).unzip();
        Self { items, letters }
    }

    /// Whether it changes dead letters, instead of settling records of the log.
    pub fn is_of_letters(&self) -> bool {
        !self.letters.is_empty()
    }

    /// All from the n-th item on.
    pub fn split_off(&mut self, n: usize) -> Self {
        let letters = self.letters.split_off(n.min(self.letters.len()));
        Self { items: self.items.split_off(n), letters }
    }

    /// The bytes that its records hold of the budget.
    pub fn size_bytes(&self) -> usize {
        if self.is_of_letters() {
            return 0;
        }
        self.items.iter().map(|item| record_of(item).size_bytes()).sum()
    }

    /// The time of its first record, milliseconds since 1970.
    pub fn first_time_ms(&self) -> Option<i64> {
        self.items.first().filter(|_| !self.is_of_letters()).map(|item| record_of(item).timestamp_ms)
    }

    pub fn ids(&self) -> impl Iterator<Item = &Uuid> {
        self.items.iter().flatten().map(|command| &command.id)
    }

    /// Whether some of its commands cannot be settled with the others.
    pub fn is_mixed(&self) -> bool {
        alike(self.items.iter()) < self.items.len()
    }

    /// Whether it repeats a command that the database is deciding.
    pub fn repeats(&self, before: &Decision) -> bool {
        if before.called.is_empty() {
            return false;
        }
        let called: HashSet<&Uuid> = before.called.iter().map(|called| &called.delivery.command_id).collect();
        self.ids().any(|id| called.contains(id))
    }

    /// The first record that is on another partition than its key, as far as the partition count is
    /// known: it should be asked again before that is believed.
    pub fn first_misrouted(&self) -> Option<usize> {
        self.first_misrouted_that(|_| true)
    }

    /// The first misrouted record of which this is true.
    pub fn first_misrouted_that(&self, is: impl Fn(&DeadLetter) -> bool) -> Option<usize> {
        let is = |item: &Routed| matches!(item, Err(letter) if letter.code == DeadCode::Misrouted && is(letter));
        self.items.iter().position(is)
    }
}

/// A command with its payload corrected: it stays the same command, with the fingerprint of the
/// original, so it can still have one effect only.
fn corrected(edited: Command, original: Routed, id: Option<Uuid>) -> Routed {
    let other = |what: &str| {
        let detail = format!("the corrected value has another {what} than the letter: correct the data only");
        Err(Box::new(edited.dead((DeadCode::MalformedEnvelope, detail))))
    };
    match original {
        Ok(original) if original.id != edited.id => other("id"),
        Ok(original) if original.command_type.name != edited.command_type.name => other("type"),
        Ok(original) => Ok(Command { fingerprint: original.fingerprint, ..edited }),
        Err(_) if id.is_some_and(|id| id != edited.id) => other("id"),
        Err(_) => Ok(edited),
    }
}

/// How many of these may be settled together: a command that runs at isolation level serializable
/// only with its like.
pub(crate) fn alike<'i>(items: impl Iterator<Item = &'i Routed>) -> usize {
    let mut level = None;
    let like_the_first = |item: &&Routed| match item {
        Ok(command) => {
            *level.get_or_insert(command.command_type.is_serializable()) == command.command_type.is_serializable()
        }
        Err(_) => true,
    };
    items.take_while(like_the_first).count()
}

/// Batches whose decision did not commit, to be decided again before anything
/// new; and how carefully.
#[derive(Default)]
pub(crate) struct Again {
    items: VecDeque<Routed>,
    /// A batch of dead letters.
    letters: Option<Batch>,
    /// Look every id up: the commit has found one that was settled before.
    pub look_up_all: bool,
    pub caution: Caution,
    /// The command that times out alone, by offset and id, and since when.
    pub timed_out: Option<((i64, Uuid), Instant)>,
}

impl Again {
    /// Puts a batch in front of what waits.
    pub fn push_front(&mut self, batch: Batch) {
        if batch.is_of_letters() {
            self.letters = Some(batch);
            return;
        }
        for item in batch.items.into_iter().rev() {
            self.items.push_front(item);
        }
    }

    /// Puts a batch behind what waits.
    pub fn push_back(&mut self, batch: Batch) {
        if batch.is_of_letters() {
            self.letters = Some(batch);
            return;
        }
        self.items.extend(batch.items);
    }

    /// Drops what an earlier attempt has settled after all. Returns its bytes.
    pub fn drop_below(&mut self, next_offset: i64) -> usize {
        let items = std::mem::take(&mut self.items);
        let (settled, open): (Vec<Routed>, Vec<Routed>) =
            items.into_iter().partition(|item| record_of(item).offset < next_offset);
        self.items = open.into();
        Batch { items: settled, letters: Vec::new() }.size_bytes()
    }

    /// Whether nothing is to be decided again.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && self.letters.is_none()
    }

    /// The next batch to decide again, if there is one.
    pub fn take(&mut self, commands_max: usize) -> Option<Batch> {
        if let Some(mut batch) = self.letters.take() {
            batch.split_off(alike(batch.items.iter()).min(commands_max));
            return Some(batch);
        }
        let count = alike(self.items.iter()).min(commands_max);
        (count > 0).then(|| Batch { items: self.items.drain(..count).collect(), letters: Vec::new() })
    }

    /// A batch of these is durable: once all are, caution ends.
    pub fn settled(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }
}
