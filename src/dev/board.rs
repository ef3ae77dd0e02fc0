//! The scoreboard: what is shown, gathered from the tables, the books and the workers. Values only.

use std::collections::HashMap;
use std::time::Duration;

use super::latency::Percentiles;
use super::ledger::Sums;
use super::sample::SampleTraffic;
use super::traffic::Ends;
use super::zombie::process_of;
use crate::postgres::PartitionStatus;

/// What is shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Board {
    /// Since the start.
    pub(super) at: Duration,
    /// Deliveries settled.
    pub(super) settled: u64,
    /// And in the last second.
    pub(super) settled_per_second: u64,
    /// Of the last second's outcomes.
    pub(super) latency: Option<Percentiles>,
    /// Deliveries sent and not settled.
    pub(super) lag: u64,
    pub(super) repeats_answered: u64,
    /// Writes refused by the fence.
    pub(super) refused: u64,
    pub(super) partitions: Vec<Partition>,
    /// The invariant, per entity type.
    pub(super) sums: Vec<Shown>,
    /// When the tables were asked.
    pub(super) tables_at: Duration,
    /// The short names of all owners so far.
    pub(super) names: Names,
}

/// A partition, and who may write to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Partition {
    pub(super) topic: String,
    pub(super) partition: i32,
    /// A short name, equal for equal owners.
    pub(super) owner: String,
    /// The random part of the owner, which tells it from all others.
    pub(super) owner_id: String,
    pub(super) token: i64,
    pub(super) lag: u64,
}

/// One line of the invariant: `held` 42 = 42 `added`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) held_words: String,
    pub(super) held: i64,
    pub(super) added: i64,
    pub(super) added_words: String,
}

impl Board {
    /// A second later.
    pub(super) fn tables(&mut self, at: Duration, rows: &[PartitionStatus], ends: &Ends) {
        let elapsed = at.saturating_sub(self.tables_at).as_secs_f64().max(0.001);
        let settled = settled(rows);
        // a rate of deliveries is far below 2^52
        self.settled_per_second = (settled.saturating_sub(self.settled) as f64 / elapsed).round() as u64;
        (self.settled, self.tables_at, self.at) = (settled, at, at);
        let names = &mut self.names;
        self.partitions = rows.iter().map(|row| partition(row, ends, names)).collect();
        self.lag = lag(rows, ends);
    }

    /// The sums of the newest snapshot.
    pub(super) fn sums(&mut self, sums: &Sums, samples: &[SampleTraffic]) {
        let shown = samples.iter().map(|sample| {
            let sum = sums.get(&*sample.entity_type).copied().unwrap_or_default();
            let (held_words, added_words) = (sample.words.held.clone(), sample.words.added.clone());
            Shown { held_words, held: sum.held, added: sum.added, added_words }
        });
        self.sums = shown.collect();
    }

    /// How many partitions each owner claimed last, by name.
    pub(super) fn owners(&self) -> Vec<(&str, usize)> {
        let mut owners: Vec<(&str, usize)> = Vec::new();
        for Partition { owner, .. } in &self.partitions {
            match owners.iter_mut().find(|(name, _)| name == owner) {
                Some((_, count)) => *count += 1,
                None => owners.push((owner, 1)),
            }
        }
        owners.sort_unstable();
        owners
    }
}

/// Short names in the order in which owners turn up: a worker that starts again is another owner.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    known: HashMap<String, String>,
    workers: u32,
}

impl Names {
    fn of(&mut self, owner: &str) -> String {
        if let Some(name) = self.known.get(owner) {
            return name.clone();
        }
        let elsewhere = process_of(owner).is_some_and(|process| process != std::process::id());
        let name = if elsewhere {
            "zombie".to_owned()
        } else {
            self.workers += 1;
            format!("w{}", self.workers)
        };
        self.known.insert(owner.to_owned(), name.clone());
        name
    }
}

fn partition(row: &PartitionStatus, ends: &Ends, names: &mut Names) -> Partition {
    let end = ends.get(&(row.topic.clone(), row.partition)).copied().unwrap_or(0);
    Partition {
        topic: row.topic.clone(),
        partition: row.partition,
        owner: names.of(&row.owner),
        owner_id: row.owner.rsplit(':').next().unwrap_or(&row.owner).to_owned(),
        token: row.fencing_token,
        lag: u64::try_from(end - row.next_offset).unwrap_or(0),
    }
}

/// Also of the partitions that nobody has claimed yet.
fn lag(rows: &[PartitionStatus], ends: &Ends) -> u64 {
    let next = |topic: &str, partition| {
        let row = rows.iter().find(|row| row.topic == topic && row.partition == partition);
        row.map_or(0, |row| row.next_offset)
    };
    let behind = ends.iter().map(|((topic, partition), end)| end - next(topic, *partition));
    behind.map(|records| u64::try_from(records).unwrap_or(0)).sum()
}

/// Records settled: every log begins at offset 0.
pub(super) fn settled(rows: &[PartitionStatus]) -> u64 {
    let offsets = rows.iter().map(|row| u64::try_from(row.next_offset).unwrap_or(0));
    offsets.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(partition: i32, owner: &str, next_offset: i64) -> PartitionStatus {
        PartitionStatus {
            topic: "t".into(),
            partition,
            owner: owner.to_owned(),
            fencing_token: 1,
            next_offset,
            published_offset: 0,
            halted_code: None,
            halted_detail: None,
            halted_resolve: None,
            parked_keys: 0,
        }
    }

    #[test]
    fn rate_and_lag_are_of_the_tables() {
        let mut board = Board::default();
        let ends = Ends::from([(("t".into(), 0), 120), (("t".into(), 1), 5), (("t".into(), 2), 7)]);
        board.tables(Duration::from_secs(1), &[row(0, "h:1:a", 100), row(1, "h:1:b", 0)], &ends);
        assert_eq!((board.settled_per_second, board.lag), (100, 32), "one is not claimed yet");
        board.tables(Duration::from_secs(3), &[row(0, "h:1:a", 120), row(1, "h:1:b", 9)], &ends);
        assert_eq!((board.settled_per_second, board.lag), (15, 7), "somebody else's commands are no lag");
    }

    #[test]
    fn owners_have_short_names_and_the_one_of_another_process_is_the_zombie() {
        let (mut board, here) = (Board::default(), std::process::id());
        let owner = |id: &str| format!("h:{here}:{id}");
        let zombie = format!("h:{}:c", here + 1);
        let rows = [row(0, &owner("a"), 0), row(1, &owner("b"), 0), row(2, &zombie, 0), row(3, &owner("a"), 0)];
        board.tables(Duration::from_secs(1), &rows, &Ends::new());
        assert_eq!(board.owners(), [("w1", 2), ("w2", 1), ("zombie", 1)]);
        board.tables(Duration::from_secs(2), &[row(0, &owner("d"), 0), row(1, &owner("b"), 0)], &Ends::new());
        assert_eq!(board.owners(), [("w2", 1), ("w3", 1)]);
    }
}
