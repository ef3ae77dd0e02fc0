//! The flood breaker: many dead letters in a row are rather one mistake than many, and the topic is
//! not drained into them.

use std::collections::VecDeque;

use crate::halt::{Halt, HaltCode};
use crate::record::TopicPartition;
use crate::steps::decide::Decision;

/// When dead letters are a flood.
#[derive(Clone, Copy, Debug)]
pub struct FloodMax {
    /// Over so many records.
    pub records: u64,
    /// More than this percentage of them.
    pub percent: u64,
}

/// The latest records of a partition, a batch each: how many there were, how many are dead.
#[derive(Debug)]
pub(crate) struct Flood {
    source: TopicPartition,
    max: FloodMax,
    batches: VecDeque<(u64, u64)>,
    records: u64,
    dead: u64,
}

impl Flood {
    pub fn new(source: TopicPartition, max: FloodMax) -> Self {
        Self { source, max, batches: VecDeque::new(), records: 0, dead: 0 }
    }

    /// Counts what was settled.
    ///
    /// # Errors
    /// The halt, if too much of it is dead.
    pub fn settled(&mut self, decision: &Decision) -> Result<(), Halt> {
        // what waits behind a parked key is no failure of its own
        let waiting = decision.dead.iter().filter(|letter| letter.state.holds_its_key() && !letter.code.parks());
        let waiting = waiting.count() as u64;
        self.add(decision.owed.len() as u64 - waiting, decision.dead.len() as u64 - waiting)
    }

    fn add(&mut self, records: u64, dead: u64) -> Result<(), Halt> {
        self.batches.push_back((records, dead));
        self.records += records;
        self.dead += dead;
        while let Some((oldest, oldest_dead)) = self.batches.front().copied()
            && self.records - oldest >= self.max.records
        {
            self.batches.pop_front();
            self.records -= oldest;
            self.dead -= oldest_dead;
        }
        if self.records < self.max.records || self.dead * 100 <= self.records * self.max.percent {
            return Ok(());
        }
        let detail = format!(
            "{} of the last {} records are dead letters, rather by one mistake than by many: look at their codes \
             (solewriter dead-letters list --topic {} --partition {}), mend the cause, then resume: what is behind is \
             settled, and those with an id and a key can be redriven; resumed too early, it halts again after as many",
            self.dead, self.records, self.source.topic, self.source.partition
        );
        Err(Halt::new(HaltCode::DeadLetterFlood, detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flood(max: FloodMax) -> Flood {
        Flood::new(TopicPartition::new("t", 0), max)
    }

    #[test]
    fn a_flood_is_a_share_of_the_latest_records_and_not_of_the_first_few() {
        let mut flood = flood(FloodMax { records: 100, percent: 50 });
        assert!(flood.add(10, 10).is_ok(), "too few to tell");
        assert!(flood.add(1_000, 0).is_ok());
        assert!(flood.add(60, 60).is_ok(), "few among the latest thousand");
        assert!(flood.add(30, 30).is_ok());
        assert!(flood.add(20, 20).is_err(), "the thousand are long ago");
    }

    #[test]
    fn with_one_hundred_percent_nothing_is_a_flood() {
        let mut flood = flood(FloodMax { records: 1, percent: 100 });
        assert!(flood.add(1_000, 1_000).is_ok());
    }
}
