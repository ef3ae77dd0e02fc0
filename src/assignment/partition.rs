//! An assigned partition, from the assignment to its end.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::claim::{self, Claim, Claiming};
use super::lifecycle::{Event, State, next};
use crate::cursor::Cursor;
use crate::fencing_token::FencingToken;
use crate::halt::{Halt, HaltCode};
use crate::horizon::Look;
use crate::kafka::{InspectError, Inspector};
use crate::parked_keys::ParkedKeys;
use crate::postgres::{Error, Refusal};
use crate::record::TopicPartition;
use crate::runtime::{Runtime, Topic};
use crate::steps::Rules;
use crate::steps::fence::{Claimed, Witness};
use crate::telemetry::{PartitionState, metrics};
use crate::writer::{Ended, Stop, Writer, backoff};

/// The longest wait before the broker is asked again whether it confirms.
const CONFIRM_WAIT_MAX: Duration = Duration::from_secs(5);

/// How often a topic may seem to be missing before that is believed.
const MISSING_MAX: u32 = 8;

/// The database or the log did not answer: asked again soon.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The database.
    #[error(transparent)]
    Database(#[from] Error),
    /// The log.
    #[error(transparent)]
    Kafka(#[from] InspectError),
    /// The thread that asks.
    #[error("looking at the log: {0}")]
    Looking(#[from] tokio::task::JoinError),
}

/// One assigned partition of a running worker.
pub struct Partition {
    /// What all partitions share.
    pub worker: Arc<Runtime>,
    /// Its topic.
    pub topic: Arc<Topic>,
    /// Which one it is.
    pub source: TopicPartition,
    /// Rung when its row or its log has changed.
    pub poke: Notify,
    /// Its gauges.
    pub gauges: metrics::Partition,
    /// The claim in force, for those who watch the row.
    claimed: Mutex<Option<Claimed>>,
    /// The newest look at its log, taken by the writer.
    look: Mutex<Option<Look>>,
    /// What the writer last reported as its cursor, for the lag.
    cursor: Mutex<Option<Cursor>>,
    running: AtomicBool,
    /// An operator wants something done with its dead letters.
    letters_requested: AtomicBool,
    /// Of the oldest record that the writer has in hand; -1: it has none.
    oldest_unsettled_ms: AtomicI64,
    looked_at_offset: AtomicI64,
}

impl Partition {
    /// A partition that was just assigned.
    pub fn new(worker: Arc<Runtime>, topic: Arc<Topic>, source: TopicPartition) -> Arc<Self> {
        Arc::new(Self {
            gauges: metrics::Partition::new(&source.topic, source.partition),
            worker,
            topic,
            source,
            poke: Notify::new(),
            claimed: Mutex::new(None),
            look: Mutex::new(None),
            cursor: Mutex::new(None),
            running: AtomicBool::new(false),
            letters_requested: AtomicBool::new(true),
            oldest_unsettled_ms: AtomicI64::new(-1),
            looked_at_offset: AtomicI64::new(-1),
        })
    }

    /// What the pure steps need to know of it.
    pub fn rules(&self, partition_count: i32) -> Rules {
        Rules {
            source: self.source.clone(),
            handlers: self.topic.handlers.clone(),
            partition_count,
            partitioner: self.topic.partitioner,
            payload_bytes_max: self.worker.limits.payload_bytes_max,
            outcome_bytes_max: self.topic.outcome_bytes_max,
            parking: self.topic.parking,
        }
    }

    /// What this process has seen of it.
    pub fn witness(&self) -> Option<Witness> {
        self.worker.witness(&self.source)
    }

    /// Remembers what was seen durable.
    pub fn witnessed(&self, token: FencingToken, cursor: Cursor) {
        *lock(&self.cursor) = Some(cursor);
        self.worker.witnessed(&self.source, token, cursor);
    }

    /// The newest look, once.
    pub fn look(&self) -> Option<Look> {
        lock(&self.look).take()
    }

    /// Somebody has looked at the log.
    pub fn looked(&self, look: Look) {
        *lock(&self.look) = Some(look);
    }

    /// The claim in force.
    pub fn claimed(&self) -> Option<Claimed> {
        lock(&self.claimed).clone()
    }

    /// The writer has a batch in hand whose first record is of this time,
    /// milliseconds since 1970; `None`: everything that it received is durable.
    pub fn oldest_unsettled(&self, record_time_ms: Option<i64>) {
        self.oldest_unsettled_ms.store(record_time_ms.unwrap_or(-1), Ordering::Relaxed);
    }

    /// What was last said of it.
    pub fn oldest_unsettled_ms(&self) -> Option<i64> {
        Some(self.oldest_unsettled_ms.load(Ordering::Relaxed)).filter(|time_ms| *time_ms >= 0)
    }

    /// The cursor that was last seen, also while no writer runs.
    pub fn last_cursor(&self) -> Option<Cursor> {
        *lock(&self.cursor)
    }

    /// Shows how far it is behind, unless it was given up meanwhile.
    pub fn show_lag(&self, records: u64, age: Duration) {
        if lock(&self.cursor).is_some() {
            self.gauges.lag(records, age);
        }
    }

    /// Remembers where a partition stands that is not written to.
    pub fn stands_at(&self, cursor: Cursor) {
        *lock(&self.cursor) = Some(cursor);
    }

    /// Whether an operator wants something done with its dead letters.
    pub fn are_letters_requested(&self) -> bool {
        self.letters_requested.load(Ordering::Relaxed)
    }

    /// What is known of that.
    pub fn letters_requested(&self, requested: bool) {
        self.letters_requested.store(requested, Ordering::Relaxed);
    }

    /// Whether nothing was settled since this was last asked.
    pub fn idle_since_last_look(&self, cursor: Cursor) -> bool {
        self.looked_at_offset.swap(cursor.next_offset, Ordering::Relaxed) == cursor.next_offset
    }

    /// The cursor in force, while a writer runs.
    pub fn cursor(&self) -> Option<Cursor> {
        lock(&self.cursor).filter(|_| self.running.load(Ordering::Acquire))
    }

    /// Asks the log something, off the async threads.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Inspector, &TopicPartition) -> Result<T, InspectError> + Send + 'static,
    ) -> Result<T, AskError> {
        let (inspector, source) = (self.worker.inspector.clone(), self.source.clone());
        Ok(tokio::task::spawn_blocking(move || question(&inspector, &source)).await??)
    }

    /// The topic's partition count, asked of the broker until it answers. `None`
    /// if stopped meanwhile.
    pub async fn partition_count_now(&self, stop: &CancellationToken) -> Option<i32> {
        let mut waits = backoff(CONFIRM_WAIT_MAX);
        let mut missing = 0;
        loop {
            let (inspector, topic) = (self.worker.inspector.clone(), self.source.topic.clone());
            match tokio::task::spawn_blocking(move || inspector.partition_count(&topic)).await {
                Ok(Ok(count)) => return Some(count),
                // a broker whose metadata is still loading says so too
                Ok(Err(InspectError::NoTopic)) if missing >= MISSING_MAX => return Some(0),
                Ok(Err(InspectError::NoTopic)) => missing += 1,
                Ok(Err(error)) => tracing::warn!(source = %self.source, %error, "asking for the partition count"),
                Err(error) => tracing::error!(source = %self.source, %error, "asking for the partition count"),
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                () = tokio::time::sleep(waits.next().unwrap_or(CONFIRM_WAIT_MAX)) => {}
            }
        }
    }

    /// Owns the partition until it is told to stop.
    pub async fn own(self: Arc<Self>, stop: Stop) {
        let mut owner = Owner { stop, claim: None, waits: Box::new(backoff(CONFIRM_WAIT_MAX)), reason: "assigned" };
        let mut state = State::Claiming;
        while state != State::Ended {
            self.gauges.state(owner.shown(state));
            let event = match state {
                State::Claiming => owner.claim(&self).await,
                State::Running => owner.write(&self).await,
                State::Confirming => owner.confirm(&self).await,
                State::Halted => owner.wait(&self).await,
                State::Ended => Event::Stopped,
            };
            state = next(state, event);
        }
        *lock(&self.claimed) = None;
        let mut cursor = lock(&self.cursor);
        *cursor = None;
        // under the lock: a look at the log that is under way shows nothing after this
        self.gauges.released();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the task of a partition keeps from state to state.
struct Owner {
    stop: Stop,
    claim: Option<Claim>,
    waits: Box<dyn Iterator<Item = Duration> + Send>,
    /// Why the next claim is made, for the metric.
    reason: &'static str,
}

impl Owner {
    fn shown(&self, state: State) -> PartitionState {
        match state {
            State::Claiming => PartitionState::Claiming,
            State::Running => PartitionState::Running,
            State::Confirming => PartitionState::BackingOff,
            State::Halted => PartitionState::Halted,
            State::Ended => PartitionState::Draining,
        }
    }

    async fn claim(&mut self, partition: &Partition) -> Event {
        let claiming = claim::claim(partition);
        let claimed = tokio::select! {
            biased;
            () = self.stop.revoked.cancelled() => return Event::Stopped,
            () = self.stop.draining.cancelled() => return Event::Stopped,
            claimed = claiming => claimed,
        };
        metrics::claimed(self.reason);
        self.reason = "retried";
        match claimed {
            Ok(Claiming::Claimed(claim)) => self.claimed(partition, *claim),
            Ok(Claiming::Halted(claimed)) => {
                *lock(&partition.claimed) = Some(claimed);
                Event::Halted
            }
            Ok(Claiming::Fenced) => Event::Fenced,
            Err(AskError::Database(Error::Refused(Refusal::AnotherGroup(message)))) => {
                // a mistake of the configuration, for the whole process
                partition.worker.failed.send_replace(Some(message));
                Event::Stopped
            }
            Err(error) => {
                tracing::warn!(source = %partition.source, %error, "claiming");
                self.pause().await
            }
        }
    }

    fn claimed(&mut self, partition: &Partition, claim: Claim) -> Event {
        let row = &claim.row;
        tracing::info!(
            source = %partition.source, token = %row.claimed.token(), next_offset = row.cursor.next_offset, "claimed"
        );
        partition.gauges.fencing_token(row.claimed.token().0);
        partition.gauges.parked(&ParkedKeys::default());
        *lock(&partition.claimed) = Some(row.claimed.clone());
        self.waits = Box::new(backoff(CONFIRM_WAIT_MAX));
        self.claim = Some(claim);
        Event::Claimed
    }

    async fn write(&mut self, partition: &Partition) -> Event {
        let Some(claim) = self.claim.take() else { return Event::Fenced };
        let (worker, source) = (&partition.worker, &partition.source);
        let duty = self.maintenance(partition, &claim);
        let claimed = claim.row.claimed.clone();
        let lane = worker.budget.lane();
        let records = worker.consumer.fetch(source.clone(), claim.row.cursor.next_offset, lane.clone());
        partition.stands_at(claim.row.cursor);
        partition.running.store(true, Ordering::Release);
        let ended = Writer::new(partition, claim, records, lane.clone(), self.stop.clone()).run().await;
        partition.running.store(false, Ordering::Release);
        drop(duty);
        worker.consumer.unfetch(source.clone(), lane);
        match ended {
            Ended::Stopped => Event::Stopped,
            Ended::Fenced => Event::Fenced,
            Ended::Poked => {
                self.reason = "changed";
                Event::Changed
            }
            Ended::Halted(halt) => self.halt(partition, &claimed, &halt).await,
        }
    }

    /// The owner of a partition 0 may have the maintenance duty; the database knows whose is first.
    fn maintenance(&self, partition: &Partition, claim: &Claim) -> Option<AbortOnDropHandle<()>> {
        let duty = crate::maintenance::run(partition.worker.clone(), claim.row.claimed.clone());
        (partition.source.partition == 0).then(|| AbortOnDropHandle::new(tokio::spawn(duty)))
    }

    async fn halt(&mut self, partition: &Partition, claimed: &Claimed, halt: &Halt) -> Event {
        loop {
            match claim::record_halt(partition, claimed, halt).await {
                Ok(Some(held)) => {
                    *lock(&partition.claimed) = Some(held);
                    return Event::Halted;
                }
                Ok(None) => return Event::Fenced,
                Err(error) => tracing::warn!(source = %partition.source, %error, "recording a halt"),
            }
            if self.pause().await == Event::Stopped {
                return Event::Stopped;
            }
        }
    }

    /// Only a member of the group's current generation claims again.
    async fn confirm(&mut self, partition: &Partition) -> Event {
        if self.pause().await == Event::Stopped {
            return Event::Stopped;
        }
        let ownership = partition.worker.consumer.ownership();
        let source = partition.source.clone();
        let next_offset = partition.witness().map_or(0, |witness| witness.cursor.next_offset);
        let inspector = partition.worker.inspector.clone();
        let confirmed = tokio::task::spawn_blocking(move || {
            // never less than the group has: its offset is a witness
            let committed = inspector.committed(&source).ok().flatten().unwrap_or(0);
            ownership.confirm(&source, next_offset.max(committed))
        });
        let confirmed = tokio::select! {
            () = self.stop.revoked.cancelled() => return Event::Stopped,
            confirmed = confirmed => confirmed,
        };
        match confirmed {
            Ok(Ok(())) => {
                self.reason = "fenced";
                Event::Confirmed
            }
            Ok(Err(error)) => {
                tracing::info!(source = %partition.source, %error, "the broker does not confirm the membership");
                Event::Unavailable
            }
            Err(error) => {
                tracing::error!(source = %partition.source, %error, "asking the broker");
                Event::Unavailable
            }
        }
    }

    /// A halted partition waits for an operator.
    async fn wait(&mut self, partition: &Partition) -> Event {
        self.reason = "resumed";
        tokio::select! {
            () = self.stop.revoked.cancelled() => Event::Stopped,
            () = self.stop.draining.cancelled() => Event::Stopped,
            () = partition.poke.notified() => Event::Changed,
        }
    }

    async fn pause(&mut self) -> Event {
        let wait = self.waits.next().unwrap_or(CONFIRM_WAIT_MAX);
        tokio::select! {
            () = self.stop.revoked.cancelled() => Event::Stopped,
            () = self.stop.draining.cancelled() => Event::Stopped,
            () = tokio::time::sleep(wait) => Event::Unavailable,
        }
    }
}

/// A halt for a process that has died several times over the same records.
pub(super) fn crash_loop(claims: i32) -> Halt {
    let detail = format!(
        "{claims} claims in a row have not settled one record: a handler may end the process (stack overflow, out of memory) or never return"
    );
    Halt::new(HaltCode::HandlerFailed, detail)
}
