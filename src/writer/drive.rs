//! The driver of one partition: the eight steps, in order.
//!
//! While a batch is being committed the next one is decided, on the state that
//! the first will leave. If the first does not commit as decided, the second is
//! thrown away and decided again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::batch::{Again, Batch};
use super::cache::{Cache, RecentIds};
use super::clock::DatabaseClock;
use super::prefetch::{self, Suspects};
use super::publisher::Publisher;
use super::report;
use super::settle::{Answered, Sending, backoff};
use crate::assignment::{Claim, Partition};
use crate::cursor::Cursor;
use crate::halt::{Halt, HaltCode};
use crate::horizon::Looks;
use crate::kafka::Lane;
use crate::postgres::{Error, Progress, Refusal, Settling};
use crate::record::Record;
use crate::steps::acknowledge::acknowledge;
use crate::steps::commit::{Durable, Held, Settled, Settlement};
use crate::steps::decide::{Decision, Entities, Routed, Unstorable, decide, record_of};
use crate::steps::deduplicate::Deduplicator;
use crate::steps::{Rules, fence};
use crate::telemetry::metrics;

/// How often the watermark is recorded while no batch carries it.
const TICK: Duration = Duration::from_millis(200);
/// The log time is recorded by an idle writer when it has moved this far:
/// milliseconds.
const LOG_TIME_STEP_MS: i64 = 60_000;

/// Why a writer stopped.
#[derive(Debug)]
#[non_exhaustive]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// Its claim is stale, or may be: ask the broker who owns the partition.
    Fenced,
    /// Somebody changed the partition's row, or its log: claim again.
    Poked,
    /// It refuses to go on.
    Halted(Halt),
}

/// How a writer is told to stop.
#[derive(Clone, Debug)]
pub struct Stop {
    /// The group takes the partition back: finish the call in flight, no more.
    pub revoked: CancellationToken,
    /// The process ends: also wait until everything is published.
    pub draining: CancellationToken,
}

/// One claimed partition.
pub struct Writer<'p> {
    partition: &'p Partition,
    claim: Claim,
    rules: Rules,
    records: UnboundedReceiver<Record>,
    lane: Arc<Lane>,
    received: Vec<Record>,
    /// The first offset that was not received.
    expected_offset: i64,
    /// The cursor of what is durable.
    cursor: Cursor,
    cache: Cache,
    recent: RecentIds,
    clock: DatabaseClock,
    again: Again,
    batch_commands_max: usize,
    publisher: Publisher,
    looks: Looks,
    log_time_ms: Option<i64>,
    recorded: Progress,
    stop: Stop,
}

/// A batch with its decision.
struct Decided {
    batch: Batch,
    decision: Arc<Decision>,
}

/// A batch whose settlement is on its way.
struct InFlight {
    decided: Decided,
    settlement: Settlement,
    sending: JoinHandle<Option<Answered>>,
    /// How the sending ended, once it has: `None` if it was given up or panicked.
    answer: Option<Option<Answered>>,
    started: Instant,
}

impl InFlight {
    /// Waits for the answer. May be cancelled and called again.
    async fn finished(&mut self) {
        if self.answer.is_none() {
            // the task panics only for a bug of ours; then the fence sorts it out
            self.answer = Some((&mut self.sending).await.ok().flatten());
        }
    }
}

/// What ends a writer, or `Ok`.
type Step<T> = Result<T, Ended>;

impl<'p> Writer<'p> {
    /// A writer for a claim, with the channel of its records.
    pub fn new(
        partition: &'p Partition,
        claim: Claim,
        records: UnboundedReceiver<Record>,
        lane: Arc<Lane>,
        stop: Stop,
    ) -> Self {
        let worker = &partition.worker;
        let published = claim.row.published;
        let publisher = Publisher::start(
            partition.source.clone(),
            published,
            worker.store.clone(),
            worker.producer.clone(),
            partition.topic.publish_to.clone(),
            worker.unpublished.clone(),
            partition.gauges.clone(),
        );
        publisher.publish_through(claim.row.cursor.batch_seq);
        Self {
            rules: partition.rules(claim.row.partition_count),
            records,
            lane,
            received: Vec::new(),
            expected_offset: claim.row.cursor.next_offset,
            cursor: claim.row.cursor,
            cache: Cache::new(worker.limits.entity_cache_entries_max),
            recent: RecentIds::default(),
            clock: DatabaseClock::read(claim.database_time_ms),
            again: Again::default(),
            batch_commands_max: if claim.careful { 1 } else { worker.limits.batch_commands_max.get() },
            publisher,
            looks: Looks::default(),
            log_time_ms: None,
            recorded: Progress { published, log_time_ms: None },
            stop,
            partition,
            claim,
        }
    }

    /// Performs the eight steps for whatever arrives, until something ends it.
    pub async fn run(mut self) -> Ended {
        let mut in_flight = None;
        let ended = loop {
            if let Err(ended) = self.turn(&mut in_flight).await {
                break ended;
            }
        };
        // what was sent may commit: its outcome decides where the next claim begins
        if let Some(in_flight) = in_flight.take() {
            let _ = self.conclude(in_flight).await;
        }
        if matches!(ended, Ended::Stopped) {
            self.wind_up().await;
        }
        ended
    }

    /// One turn: take the next batch, decide it while the one before is being
    /// committed, then commit it.
    async fn turn(&mut self, in_flight: &mut Option<InFlight>) -> Step<()> {
        let Some(batch) = self.next_batch(in_flight).await? else { return Ok(()) };
        let decided = self.decide(batch, in_flight.as_ref()).await?;
        let before_stands = match in_flight.take() {
            Some(before) => self.conclude(before).await?,
            None => true,
        };
        match decided {
            Some(decided) if before_stands => *in_flight = Some(self.commit(decided)),
            Some(decided) => {
                // it rests on a decision that did not commit
                self.forget(&decided.decision);
                self.again.push_back(decided.batch);
            }
            None => {}
        }
        Ok(())
    }

    /// Steps 1 and 2. `None`: something else happened meanwhile.
    async fn next_batch(&mut self, in_flight: &mut Option<InFlight>) -> Step<Option<Batch>> {
        if self.stop.revoked.is_cancelled() || self.stop.draining.is_cancelled() {
            return Err(Ended::Stopped);
        }
        if in_flight.is_none()
            && let Some(batch) = self.again.take(self.batch_commands_max)
        {
            return Ok(Some(batch));
        }
        let worker = &self.partition.worker;
        let may_receive = self.again.is_empty();
        tokio::select! {
            biased;
            () = self.stop.revoked.cancelled() => Err(Ended::Stopped),
            () = self.stop.draining.cancelled() => Err(Ended::Stopped),
            () = self.partition.poke.notified() => Err(Ended::Poked),
            count = async {
                self.publisher.room(worker.limits.unpublished_bytes_max.get(), self.cursor.batch_seq).await;
                self.records.recv_many(&mut self.received, self.batch_commands_max).await
            }, if may_receive => match count {
                0 => Err(Ended::Fenced), // the poll thread has let go of the partition
                _ => self.receive().await,
            },
            () = answered(in_flight) => {
                if let Some(finished) = in_flight.take() {
                    self.conclude(finished).await?;
                }
                Ok(None)
            }
            () = tokio::time::sleep(TICK), if in_flight.is_none() => self.tick().await.map(|()| None),
        }
    }

    async fn receive(&mut self) -> Step<Option<Batch>> {
        // offsets have gaps (transaction markers), but never go back
        let expected = self.expected_offset;
        let stale: usize =
            self.received.extract_if(.., |record| record.offset < expected).map(|record| record.size_bytes()).sum();
        self.lane.give_back(stale);
        let Some(last) = self.received.last() else { return Ok(None) };
        self.expected_offset = last.offset + 1;
        let batch = Batch::receive(&mut self.received, &self.rules);
        if batch.has_misrouted() {
            self.check_partition_count().await?;
        }
        Ok(Some(batch))
    }

    /// Metadata can be minutes old: before a record is called misrouted, the
    /// partition count is asked afresh.
    async fn check_partition_count(&mut self) -> Step<()> {
        let expected = self.rules.partition_count;
        let found = self.partition.partition_count_now(&self.stop.revoked).await.ok_or(Ended::Stopped)?;
        if found == expected {
            return Ok(());
        }
        let detail = format!(
            "the topic has {found} partitions, its keys were placed for {expected}: one entity may be on two of them"
        );
        Err(Ended::Halted(Halt::new(HaltCode::PartitionsChanged, detail)))
    }

    /// Steps 3 to 5. `None`: it can be decided only after the batch before.
    async fn decide(&mut self, batch: Batch, in_flight: Option<&InFlight>) -> Step<Option<Decided>> {
        let before = in_flight.map(|in_flight| &*in_flight.decided.decision);
        loop {
            let (mut deduplicator, mut entities) = self.prefetch(&batch, before).await?;
            match decide(&batch.items, &self.rules, &mut deduplicator, &mut entities, &self.again.caution) {
                Ok(decision) if self.hides_a_settled_id(&decision).await? => {
                    self.again.look_up_all = true;
                    if before.is_some() {
                        self.again.push_back(batch);
                        return Ok(None);
                    }
                }
                Ok(decision) => {
                    self.cache.put_back(entities);
                    for outcome in &decision.outcomes {
                        self.recent.insert(&outcome.command_id);
                    }
                    return Ok(Some(Decided { batch, decision: Arc::new(decision) }));
                }
                Err(Unstorable) => {
                    self.again.caution.encode_each = true;
                    if before.is_some() {
                        // its entities are spent, and the database does not hold yet
                        // what the batch before leaves
                        self.again.push_back(batch);
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// An outcome of an id that was settled before is refused by the commit's
    /// unique key; a dead letter has no such key. So before one stands, its id is
    /// looked up: a known id is a duplicate or `id-reuse`, whatever else is wrong.
    async fn hides_a_settled_id(&mut self, decision: &Decision) -> Step<bool> {
        let judged_late = decision.dead.iter().filter(|letter| letter.code.follows_look_up());
        let ids: Vec<Uuid> = judged_late.filter_map(|letter| letter.command_id).collect();
        if ids.is_empty() || self.again.look_up_all {
            return Ok(false);
        }
        let mut waits = backoff(self.partition.worker.limits.database_backoff_max);
        loop {
            match self.partition.worker.store.outcomes_of(&ids).await {
                Ok(known) => return Ok(!known.is_empty()),
                Err(error) => self.read_again(error, &mut waits).await?,
            }
        }
    }

    async fn prefetch(&mut self, batch: &Batch, before: Option<&Decision>) -> Step<(Deduplicator, Entities)> {
        let store = &self.partition.worker.store;
        let mut waits = backoff(self.partition.worker.limits.database_backoff_max);
        loop {
            let horizon = self.partition.worker.horizon();
            let suspects = Suspects { all: self.again.look_up_all, recent: &self.recent, horizon };
            let read = async {
                let known = prefetch::known_outcomes(batch, store, before, suspects).await?;
                let entities =
                    prefetch::entities(batch, &mut self.cache, store, &self.rules, &self.claim.row.claimed).await?;
                Ok::<_, Error>((Deduplicator::new(known, horizon, self.clock.now_ms()), entities))
            };
            match read.await {
                Ok(read) => return Ok(read),
                Err(error) => self.read_again(error, &mut waits).await?,
            }
        }
    }

    /// Waits before a read is tried again, if that can help.
    async fn read_again(&mut self, error: Error, waits: &mut (impl Iterator<Item = Duration> + Send)) -> Step<()> {
        match error {
            Error::Refused(Refusal::Fenced) => return Err(Ended::Fenced),
            Error::Refused(refusal) if !matches!(refusal, Refusal::TimedOut(_) | Refusal::Contended(_)) => {
                return Err(Ended::Halted(halt_for(refusal)));
            }
            error => tracing::warn!(source = %self.partition.source, %error, "reading what the batch needs"),
        }
        tokio::select! {
            () = self.stop.revoked.cancelled() => Err(Ended::Stopped),
            () = tokio::time::sleep(waits.next().unwrap_or(TICK)) => Ok(()),
        }
    }

    /// Step 6: sent by a task of its own, which is never aborted.
    fn commit(&mut self, decided: Decided) -> InFlight {
        let worker = &self.partition.worker;
        let settlement = Settlement {
            claimed: self.claim.row.claimed.clone(),
            cursor: self.cursor,
            decision_id: Uuid::new_v4(),
            entity_type: self.rules.handlers.entity_type.clone(),
            decision: decided.decision.clone(),
        };
        let sending = Sending {
            store: worker.store.clone(),
            settlement: settlement.clone(),
            progress: self.progress(),
            type_ids: self.partition.topic.type_ids.clone(),
            answer_wait_max: worker.limits.answer_wait_max,
            backoff_max: worker.limits.database_backoff_max,
            give_up: self.stop.revoked.clone(),
        };
        let sending = tokio::spawn(sending.until_answered());
        InFlight { decided, settlement, sending, answer: None, started: Instant::now() }
    }

    /// What the database answered: true if the batch is durable.
    async fn conclude(&mut self, mut in_flight: InFlight) -> Step<bool> {
        in_flight.finished().await;
        let InFlight { decided, settlement, answer, started, .. } = in_flight;
        let settling = match answer.flatten() {
            Some(Ok(settling)) => settling,
            Some(Err(refusal)) => return self.refused(decided, refusal).map(|()| false),
            None if self.stop.revoked.is_cancelled() => return Err(Ended::Stopped),
            None => return Err(Ended::Fenced),
        };
        metrics::batch(decided.batch.items.len(), started.elapsed());
        let Settling { answer, database_time_ms } = settling;
        self.clock = DatabaseClock::read(database_time_ms);
        match settlement.answered(answer) {
            Settled::Durable(durable) => self.durable(decided, durable).map(|()| true),
            Settled::Fenced(held) => Err(self.fenced(held)),
            Settled::Superseded(held) => self.superseded(decided, held).map(|()| false),
            Settled::Behind(held) => Err(self.behind(held)),
            Settled::Halted => Err(Ended::Poked),
        }
    }

    /// Steps 7 and 8.
    fn durable(&mut self, decided: Decided, durable: Durable) -> Step<()> {
        self.cursor = durable.cursor();
        self.partition.settled_time(durable.decision().last.timestamp_ms);
        self.partition.witnessed(self.claim.row.claimed.token(), self.cursor);
        report::settled(&self.rules, durable.decision(), self.clock.now_ms());
        self.partition.worker.consumer.acknowledge(acknowledge(&durable));
        self.publisher.publish(durable);
        self.lane.give_back(decided.batch.size_bytes());
        self.again.settled();
        let most = self.partition.worker.limits.batch_commands_max.get();
        self.batch_commands_max = (self.batch_commands_max * 2).min(most);
        Ok(())
    }

    /// A stale claim: remembered only in what was decided on it.
    fn fenced(&self, held: Held) -> Ended {
        metrics::fenced();
        let claimed = &self.claim.row.claimed;
        tracing::warn!(source = %self.partition.source, token = %claimed.token(), held = %held.token, "fenced: nothing was written");
        match fence::check_not_behind(self.partition.witness(), held.token, held.cursor, self.claim.row.accepted_offset)
        {
            Ok(()) => Ended::Fenced,
            // the next claim will see the same, and record it under its own token
            Err(_) => Ended::Poked,
        }
    }

    /// The claim stands, the history below it does not: nobody else owns the
    /// partition, so this is no fence. The next claim finds the reason to halt.
    fn behind(&self, held: Held) -> Ended {
        tracing::warn!(source = %self.partition.source, next_offset = held.cursor.next_offset, expected = self.cursor.next_offset, "the database holds another history: nothing was written");
        Ended::Poked
    }

    /// An earlier attempt won: what it decided is published, not this.
    fn superseded(&mut self, decided: Decided, held: Held) -> Step<()> {
        tracing::warn!(source = %self.partition.source, next_offset = held.cursor.next_offset, "an earlier attempt had committed");
        self.forget(&decided.decision);
        self.partition.witnessed(self.claim.row.claimed.token(), held.cursor);
        self.cursor = held.cursor;
        self.publisher.publish_through(held.cursor.batch_seq);
        let (settled, open): (Vec<Routed>, Vec<Routed>) =
            decided.batch.items.into_iter().partition(|item| record_of(item).offset < held.cursor.next_offset);
        self.lane.give_back(Batch { items: settled }.size_bytes());
        self.again.push_front(Batch { items: open });
        Ok(())
    }

    /// The database refused, and undid everything: decide again, differently.
    fn refused(&mut self, decided: Decided, refusal: Refusal) -> Step<()> {
        let Decided { batch, decision } = decided;
        tracing::debug!(source = %self.partition.source, %refusal, commands = batch.items.len(), "decided again");
        self.forget(&decision);
        match refusal {
            Refusal::Duplicate => self.again.look_up_all = true,
            Refusal::Conflict => {}
            Refusal::BelowHorizon => self.partition.worker.look_at_horizon(),
            Refusal::Contended(_) => self.batch_commands_max = (batch.items.len() / 2).max(1),
            Refusal::Data(why) => self.narrow(&batch, why),
            refusal => return Err(Ended::Halted(halt_for(refusal))),
        }
        self.again.push_front(batch);
        Ok(())
    }

    /// A value that the database does not take belongs to one command: halve the
    /// batch until that one is alone, then condemn it.
    fn narrow(&mut self, batch: &Batch, why: String) {
        match batch.items.as_slice() {
            [item] => self.again.caution.condemned = Some((record_of(item).offset, why)),
            items => self.batch_commands_max = items.len() / 2,
        }
    }

    fn forget(&mut self, decision: &Decision) {
        self.cache.forget(decision.entities.iter().map(|entity| &entity.entity_id));
    }

    fn progress(&mut self) -> Progress {
        if let Some(look) = self.partition.look() {
            self.looks.looked(look);
        }
        let published = self.publisher.published();
        if let Some(log_time_ms) = self.looks.satisfied(published.next_offset) {
            self.log_time_ms = Some(log_time_ms);
        }
        let progress = Progress { published, log_time_ms: self.log_time_ms };
        self.recorded = progress;
        progress
    }

    /// Nothing to settle: record the watermark, if it has moved.
    async fn tick(&mut self) -> Step<()> {
        let before = self.recorded;
        let progress = self.progress();
        let log_time_moved = progress.log_time_ms.unwrap_or(0) - before.log_time_ms.unwrap_or(0) >= LOG_TIME_STEP_MS;
        if progress.published == before.published && !log_time_moved {
            self.recorded = before;
            return Ok(());
        }
        match self.partition.worker.store.record_progress(&self.claim.row.claimed, self.cursor, progress).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Ended::Fenced),
            Err(error) => {
                tracing::warn!(source = %self.partition.source, %error, "recording what is published");
                self.recorded = before;
                Ok(())
            }
        }
    }

    /// Told to stop: a process that ends also waits until everything is published.
    async fn wind_up(&mut self) {
        if self.stop.draining.is_cancelled() {
            tokio::select! {
                () = self.publisher.wait_for(self.cursor.batch_seq) => {}
                () = self.stop.revoked.cancelled() => {}
            }
        }
        let progress = self.progress();
        let recorded = self.partition.worker.store.record_progress(&self.claim.row.claimed, self.cursor, progress);
        // the next owner publishes again what is not recorded here
        let _ = tokio::time::timeout(Duration::from_secs(1), recorded).await;
    }
}

/// Ready when the settlement in flight is answered; never, if there is none.
async fn answered(in_flight: &mut Option<InFlight>) {
    match in_flight {
        Some(in_flight) => in_flight.finished().await,
        None => std::future::pending().await,
    }
}

/// The halt for a refusal that no retry mends.
fn halt_for(refusal: Refusal) -> Halt {
    match refusal {
        Refusal::WrongHome(detail) => Halt::new(HaltCode::PartitionsChanged, detail),
        refusal => Halt::new(HaltCode::HandlerFailed, format!("the database refuses to settle: {refusal}")),
    }
}
