//! Outcomes as whoever waits for them sees them: read from their topic at once, with the moment.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use serde::Deserialize;
use uuid::Uuid;

use super::Error;
use super::trial::{LOOK, PATIENCE, Trial};
use crate::local::itself::Itself;

/// How long the end may have to wait for the thread.
const POLL: Duration = Duration::from_millis(100);
/// Room is made beforehand for so many outcomes at most.
const ROOM_MAX: usize = 1_000_000;

/// The first outcome of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Of the command.
    pub(super) partition: i32,
    /// Of the command.
    pub(super) offset: i64,
    /// When this process had it.
    pub(super) arrived: Instant,
    /// When the worker gave it to its producer, right after the commit: milliseconds since 1970, by
    /// the record's timestamp.
    pub(super) record_ms: i64,
}

/// What an outcome's value says, as far as it is needed.
#[derive(Deserialize)]
struct Value {
    command_id: Uuid,
    partition: i32,
    offset: i64,
    outcome: Ending,
}

/// How a command ended, as its outcome says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Ending {
    Applied,
    Rejected,
    Dead,
}

/// What stands on a topic of outcomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Published {
    /// Copies included.
    pub(super) records: u64,
    /// Commands whose outcome says so, each counted once.
    pub(super) applied: u64,
    pub(super) rejected: u64,
    pub(super) dead: u64,
    /// Records that are no outcome, and those that say of a command what its first one did not.
    pub(super) wrong: u64,
}

/// Reads a topic of outcomes from its beginning, in a thread of its own. Dropping this ends it.
pub(super) struct Outcomes {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// First outcomes, in the order in which they came.
struct Seen {
    endings: HashMap<Uuid, Ending>,
    outcomes: Vec<Outcome>,
    published: Published,
}

impl Seen {
    fn note(&mut self, value: Option<Value>, arrived: Instant, record_ms: i64) {
        self.published.records += 1;
        let Some(Value { command_id, partition, offset, outcome }) = value else {
            self.published.wrong += 1;
            return;
        };
        match self.endings.entry(command_id) {
            Entry::Occupied(first) => self.published.wrong += u64::from(*first.get() != outcome),
            Entry::Vacant(first) => {
                first.insert(outcome);
                self.outcomes.push(Outcome { partition, offset, arrived, record_ms });
                match outcome {
                    Ending::Applied => self.published.applied += 1,
                    Ending::Rejected => self.published.rejected += 1,
                    Ending::Dead => self.published.dead += 1,
                }
            }
        }
    }
}

impl Outcomes {
    /// Begins to read the outcomes of a trial.
    pub(super) fn follow(trial: &Trial<'_>) -> Result<Self, Error> {
        let consumer: BaseConsumer = trial.services().client("outcomes")?.tail().create()?;
        let mut list = TopicPartitionList::new();
        for partition in 0..trial.backlog().partitions {
            list.add_partition_offset(trial.outcomes_topic(), partition, Offset::Beginning)?;
        }
        consumer.assign(&list)?;
        // what grows while it is measured, makes the next outcome wait
        let room = usize::try_from(trial.workload().commands).unwrap_or(ROOM_MAX).min(ROOM_MAX);
        let seen = Seen {
            endings: HashMap::with_capacity(room),
            outcomes: Vec::with_capacity(room),
            published: Published::default(),
        };
        let (seen, stop) = (Arc::new(Mutex::new(seen)), Arc::<AtomicBool>::default());
        let (into, stopped) = (seen.clone(), stop.clone());
        let thread = thread::Builder::new().name("outcomes".to_owned());
        let thread = thread.spawn(move || read(&consumer, &into, &stopped)).map_err(Error::io("start a thread"))?;
        Ok(Self { seen, stop, thread: Some(thread) })
    }

    /// How many commands have an outcome: copies do not count.
    pub(super) fn count(&self) -> u64 {
        self.seen().outcomes.len() as u64
    }

    /// What has been read so far.
    pub(super) fn published(&self) -> Published {
        self.seen().published
    }

    /// Waits until so many commands have one.
    pub(super) async fn wait_for(&self, count: u64, trial: &Trial<'_>, workers: &mut [Itself]) -> Result<(), Error> {
        let mut last = (self.count(), Instant::now());
        while last.0 < count {
            tokio::time::sleep(LOOK).await;
            let seen = self.count();
            if seen > last.0 {
                last = (seen, Instant::now());
            }
            trial.look_after(workers, last.1.elapsed() > PATIENCE)?;
        }
        Ok(())
    }

    /// Those that came after the first `count`.
    pub(super) fn since(&self, count: u64) -> Vec<Outcome> {
        let seen = self.seen();
        seen.outcomes.get(usize::try_from(count).unwrap_or(usize::MAX)..).unwrap_or_default().to_vec()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Outcomes {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // a panic of its own was reported there
            let _ = thread.join();
        }
    }
}

fn read(consumer: &BaseConsumer, seen: &Mutex<Seen>, stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        match consumer.poll(POLL) {
            None => {}
            Some(Ok(record)) => {
                let arrived = Instant::now();
                let record_ms = record.timestamp().to_millis().unwrap_or_default();
                let value = record.payload().and_then(|value| serde_json::from_slice::<Value>(value).ok());
                seen.lock().unwrap_or_else(PoisonError::into_inner).note(value, arrived, record_ms);
            }
            Some(Err(error)) => tracing::warn!(%error, "outcomes cannot be read now; trying again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(values: &[&str]) -> Published {
        let mut seen = Seen { endings: HashMap::new(), outcomes: Vec::new(), published: Published::default() };
        for value in values {
            seen.note(serde_json::from_str(value).ok(), Instant::now(), 0);
        }
        seen.published
    }

    const APPLIED: &str =
        r#"{"command_id":"00000000-0000-7000-8000-000000000001","partition":0,"offset":1,"outcome":"applied"}"#;
    const REJECTED: &str =
        r#"{"command_id":"00000000-0000-7000-8000-000000000001","partition":0,"offset":1,"outcome":"rejected"}"#;

    #[test]
    fn a_command_counts_once_however_often_its_outcome_is_published() {
        assert_eq!(seen(&[APPLIED, APPLIED]), Published { records: 2, applied: 1, ..Published::default() });
    }

    #[test]
    fn an_outcome_that_contradicts_the_first_one_is_wrong_and_so_is_what_is_none() {
        let published = seen(&[REJECTED, APPLIED, "{}"]);
        assert_eq!(published, Published { records: 3, rejected: 1, wrong: 2, ..Published::default() });
    }
}
