//! The driver of one partition: the eight steps, in order.
//!
//! While a batch is being committed the next one is decided, on the state that
//! the first will leave. If the first does not commit as decided, the second is
//! thrown away and decided again.

mod conclude;
mod layout;
mod letters;
mod progress;
mod reads;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::batch::{Again, Batch};
use super::batch_size::BatchSize;
use super::cache::{Cache, RecentIds};
use super::clock::DatabaseClock;
use super::flood::Flood;
use super::publisher::{Publisher, Replaced};
use super::settle::{Answered, Sending};
use crate::assignment::{Claim, Partition};
use crate::cursor::Cursor;
use crate::halt::{Halt, HaltCode};
use crate::horizon::Looks;
use crate::kafka::Lane;
use crate::parked_keys::ParkedKeys;
use crate::postgres::{Progress, Refusal};
use crate::record::Record;
use crate::steps::Rules;
use crate::steps::commit::{Running, Settlement};
use crate::steps::decide::{Basis, Decision, Settles, Undecided, decide, redrive};
use crate::telemetry::{PartitionState, metrics};

/// How often the watermark is recorded while no batch carries it.
const TICK: Duration = Duration::from_millis(200);
/// The log time is recorded by an idle writer when it has moved this far:
/// milliseconds.
const LOG_TIME_STEP_MS: i64 = 60_000;

/// So many batches after one that raised are run carefully: where one command broke a rule, more
/// do. It costs a subtransaction per batch.
const CAREFUL_BATCHES: u32 = 64;

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
    /// It halts when what it has received is settled.
    halts: Option<Halt>,
    batch_size: BatchSize,
    /// The keys that are parked once what is durable counts.
    parked: ParkedKeys,
    flood: Flood,
    /// It is the turn of requested letters, not of the log.
    letters_next: bool,
    /// The log can't go on before letters have: too many are parked or wait.
    needs_room: bool,
    /// The letter that the latest batch of letters began with.
    letters_begun_with: Option<i64>,
    /// Letters run one by one.
    letters_one_by_one: bool,
    /// So many of the next batches name the commands that raise.
    careful_batches: u32,
    publisher: Publisher,
    looks: Looks,
    log_time_ms: Option<i64>,
    recorded: Progress,
    /// Whether the database knows that this claim has begun to decide.
    deciding: bool,
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
        let commands_max = worker.limits.batch_commands_max.get();
        let published = claim.row.published;
        partition.gauges.parked(&claim.row.parked);
        // first what was requested while nobody owned it: it may make room
        partition.letters_requested(true);
        let publisher = Publisher::start(partition, claim.row.claimed.clone(), published);
        publisher.publish_through(claim.row.cursor);
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
            halts: None,
            batch_size: BatchSize::new(if claim.careful { 1 } else { commands_max }, commands_max),
            parked: claim.row.parked.clone(),
            flood: Flood::new(partition.source.clone(), worker.limits.flood),
            letters_next: true,
            needs_room: false,
            letters_begun_with: None,
            letters_one_by_one: false,
            careful_batches: 0,
            publisher,
            looks: Looks::default(),
            log_time_ms: None,
            recorded: Progress { published, log_time_ms: None },
            deciding: false,
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
        if matches!(ended, Ended::Stopped) {
            self.partition.gauges.state(PartitionState::Draining);
        }
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
        if in_flight.is_none() {
            self.partition.oldest_unsettled(batch.first_time_ms());
        }
        let decided = self.decide(batch, in_flight.as_ref()).await?;
        let before_stands = match in_flight.take() {
            Some(before) => self.conclude(before).await?,
            None => true,
        };
        match decided {
            Some(decided) if before_stands => {
                self.partition.oldest_unsettled(decided.batch.first_time_ms());
                *in_flight = Some(self.commit(decided));
            }
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
        if in_flight.is_none() && self.needs_room && self.partition.are_letters_requested() {
            return self.requested_letters().await;
        }
        if in_flight.is_none()
            && let Some(batch) = self.again.take(self.batch_size.commands_max())
        {
            return Ok(Some(batch));
        }
        if in_flight.is_none()
            && let Some(halt) = self.halts.take()
        {
            return Err(self.halted_at_last(halt).await);
        }
        // in turns with what comes from the log, if anything does
        let letters_next = self.partition.are_letters_requested() && (self.letters_next || self.records.is_empty());
        if letters_next && in_flight.is_none() {
            self.letters_next = false;
            return self.requested_letters().await;
        }
        let worker = &self.partition.worker;
        let may_receive = self.again.is_empty() && !letters_next && self.halts.is_none();
        tokio::select! {
            biased;
            () = self.stop.revoked.cancelled() => Err(Ended::Stopped),
            () = self.stop.draining.cancelled() => Err(Ended::Stopped),
            () = self.partition.poke.notified() => Err(Ended::Poked),
            count = async {
                self.publisher.room(worker.limits.unpublished_bytes_max.get(), self.cursor.batch_seq).await?;
                Ok(self.records.recv_many(&mut self.received, self.batch_size.commands_max()).await)
            }, if may_receive => match count.map_err(|Replaced| stale())? {
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
        self.letters_next = true;
        let Some(last) = self.received.last() else { return Ok(None) };
        self.expected_offset = last.offset + 1;
        let mut batch = Batch::receive(&mut self.received, &self.rules);
        if let Some(n) = batch.first_misrouted() {
            self.check_layout(&mut batch, n).await?;
        }
        if batch.items.is_empty() {
            return Ok(None);
        }
        if batch.is_mixed() {
            self.again.push_back(batch);
            return Ok(None);
        }
        Ok(Some(batch))
    }

    /// Steps 3 to 5. `None`: it can be decided only after the batch before.
    async fn decide(&mut self, mut batch: Batch, in_flight: Option<&InFlight>) -> Step<Option<Decided>> {
        let before = in_flight.map(|in_flight| &*in_flight.decided.decision);
        if before.is_some_and(|before| batch.repeats(before)) {
            // how the first copy ends is known when that is durable
            self.again.push_back(batch);
            return Ok(None);
        }
        loop {
            let (mut deduplicator, mut entities) = self.prefetch(&batch, before).await?;
            let parked = before.map_or(&self.parked, |before| &before.parked).clone();
            let mut basis = Basis {
                rules: &self.rules,
                deduplicator: &mut deduplicator,
                entities: &mut entities,
                caution: &self.again.caution,
            };
            let decided = if batch.is_of_letters() {
                redrive(&batch.items, &batch.letters, &mut basis, parked)
            } else {
                decide(&batch.items, &mut basis, parked)
            };
            match decided {
                Ok(decision) if self.hides_a_settled_id(&decision).await? => {
                    self.again.look_up_all = true;
                    if before.is_some() {
                        self.again.push_back(batch);
                        return Ok(None);
                    }
                }
                Ok(Decision { settles: Settles::Letters(changes), .. }) if changes.letters.is_empty() => {
                    self.cache.put_back(entities);
                    self.refuse(&changes.refused).await?;
                    return Ok(None);
                }
                Ok(decision) => {
                    self.cache.put_back(entities);
                    for id in decision.final_ids() {
                        self.recent.insert(&id);
                    }
                    return Ok(Some(Decided { batch, decision: Arc::new(decision) }));
                }
                Err(Undecided::Halts(..)) if before.is_some() => {
                    // its entities are spent
                    self.again.push_back(batch);
                    return Ok(None);
                }
                Err(Undecided::Halts(0, halt))
                    if halt.code == HaltCode::ParkedLimit && self.partition.are_letters_requested() =>
                {
                    // what an operator has requested may make room
                    self.needs_room = true;
                    self.again.push_front(batch);
                    return Ok(None);
                }
                Err(Undecided::Halts(0, halt)) => return Err(self.halted_at_last(halt).await),
                Err(Undecided::Halts(n, _)) => {
                    // what lies before is settled first
                    let rest = batch.split_off(n);
                    self.again.push_front(rest);
                }
                Err(Undecided::Unstorable) => {
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

    /// Step 6: sent by a task of its own, which is never aborted.
    fn commit(&mut self, decided: Decided) -> InFlight {
        let worker = &self.partition.worker;
        let settlement = Settlement {
            claimed: self.claim.row.claimed.clone(),
            cursor: self.cursor,
            decision_id: Uuid::new_v4(),
            entity_type: self.rules.handlers.entity_type.clone(),
            running: Running::of(&decided.decision, &self.rules, self.careful_batches > 0),
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
}

/// Ready when the settlement in flight is answered; never, if there is none.
async fn answered(in_flight: &mut Option<InFlight>) {
    match in_flight {
        Some(in_flight) => in_flight.finished().await,
        None => std::future::pending().await,
    }
}

/// The database refused a read or a write because the token is stale.
fn stale() -> Ended {
    metrics::fenced();
    Ended::Fenced
}

/// The halt for a refusal that no retry mends.
fn halt_for(refusal: Refusal) -> Halt {
    match refusal {
        Refusal::WrongHome(home) => {
            let detail = format!(
                "{home}, and a command for it came here: the partition count or its producers' partitioner has changed, and \
                 no entity may have two writers"
            );
            Halt::new(HaltCode::PartitionsChanged, detail)
        }
        refusal => {
            let detail = format!(
                "the database refuses to settle: {refusal}; no retry mends that, and nothing is lost: mend it (solewriter \
                 check looks for missing rights, tables and functions), then resume"
            );
            Halt::new(HaltCode::HandlerFailed, detail)
        }
    }
}
