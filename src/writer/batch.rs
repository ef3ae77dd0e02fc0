//! A batch: whatever has queued up for the partition, received and routed.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use uuid::Uuid;

use crate::dead_letter::DeadCode;
use crate::record::Record;
use crate::steps::Rules;
use crate::steps::decide::{Caution, Decision, Routed, record_of};
use crate::steps::receive::receive;
use crate::steps::route::route;

/// Records on their way to being settled. Kept until they are durable, so that
/// they can be decided again.
pub(super) struct Batch {
    pub items: Vec<Routed>,
}

impl Batch {
    /// Steps 1 and 2.
    pub fn receive(records: &mut Vec<Record>, rules: &Rules) -> Self {
        let routed = |record| receive(record, rules).and_then(|command| route(command, rules));
        Self { items: records.drain(..).map(routed).collect() }
    }

    pub fn size_bytes(&self) -> usize {
        self.items.iter().map(|item| record_of(item).size_bytes()).sum()
    }

    /// The time of its first record, milliseconds since 1970.
    pub fn first_time_ms(&self) -> Option<i64> {
        self.items.first().map(|item| record_of(item).timestamp_ms)
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

    /// Whether the partition count should be asked again before these records
    /// are called misrouted.
    pub fn has_misrouted(&self) -> bool {
        self.items.iter().any(|item| matches!(item, Err(letter) if letter.code == DeadCode::Misrouted))
    }
}

/// How many of these may be settled together: a command that runs at isolation level serializable
/// only with its like.
fn alike<'i>(items: impl Iterator<Item = &'i Routed>) -> usize {
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
pub(super) struct Again {
    items: VecDeque<Routed>,
    /// Look every id up: the commit has found one that was settled before.
    pub look_up_all: bool,
    pub caution: Caution,
    /// The command that times out alone: its offset, and since when.
    pub timed_out: Option<(i64, Instant)>,
}

impl Again {
    /// Puts a batch in front of what waits.
    pub fn push_front(&mut self, batch: Batch) {
        for item in batch.items.into_iter().rev() {
            self.items.push_front(item);
        }
    }

    /// Puts a batch behind what waits.
    pub fn push_back(&mut self, batch: Batch) {
        self.items.extend(batch.items);
    }

    /// Drops what an earlier attempt has settled after all. Returns its bytes.
    pub fn drop_below(&mut self, next_offset: i64) -> usize {
        let before = Batch { items: std::mem::take(&mut self.items).into() };
        let (settled, open): (Vec<Routed>, Vec<Routed>) =
            before.items.into_iter().partition(|item| record_of(item).offset < next_offset);
        self.items = open.into();
        Batch { items: settled }.size_bytes()
    }

    /// Whether nothing is to be decided again.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The next batch to decide again, if there is one.
    pub fn take(&mut self, commands_max: usize) -> Option<Batch> {
        let count = alike(self.items.iter()).min(commands_max);
        (count > 0).then(|| Batch { items: self.items.drain(..count).collect() })
    }

    /// A batch of these is durable: once all are, caution ends.
    pub fn settled(&mut self) {
        if self.items.is_empty() {
            *self = Self::default();
        }
    }
}
