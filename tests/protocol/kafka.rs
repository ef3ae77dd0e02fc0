//! The broker: it alone knows who owns the partition. It checks that for an offset commit, never for a publication.

use crate::log::{Offset, Outcome, Record};
use crate::state::Member;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kafka {
    pub owner: Member,
    pub committed: Offset,
    /// Each different copy once, in order of its first occurrence.
    pub outcomes: Vec<(Offset, Outcome)>,
}

impl Kafka {
    pub fn publish(&mut self, records: &[Record]) {
        for copy in records.iter().map(|r| (r.offset, r.outcome)) {
            if !self.outcomes.contains(&copy) {
                self.outcomes.push(copy);
            }
        }
    }

    /// The broker refuses the commit of a member that does not own the partition.
    pub fn commit(&mut self, member: Member, offset: Offset) {
        if member == self.owner {
            self.committed = self.committed.max(offset);
        }
    }
}
