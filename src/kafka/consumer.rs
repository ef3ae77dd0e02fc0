//! The consumer: one OS thread polls, owned records go through a channel per
//! partition under one budget in bytes.
//!
//! Who owns what is decided elsewhere ([`crate::assignment`]); this thread turns
//! librdkafka's callbacks into [`Notice`]s and does as it is told. A partition is
//! fetched only after its writer has claimed it: assigned first with nothing,
//! then, once, with the cursor from Postgres.
//!
//! No split queues (they stay forwarded after an unassign: rust-rdkafka 535), no
//! `StreamConsumer` (its callbacks run on the executor that they may wait for).

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Budget, Client, Lane, copy};
use crate::record::{Record, TopicPartition};
use crate::steps::acknowledge::Acknowledgement;

/// How long a poll waits for a record: also the longest that a request waits.
const POLL: Duration = Duration::from_millis(20);
/// How long the thread waits for room before it pauses who is stuck.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(1);
/// How long a revocation waits for the writers; what outlives it meets the fence.
const REVOKE_WAIT_MAX: Duration = Duration::from_secs(10);
/// How often settled offsets are committed to the group.
const ACKNOWLEDGE_EVERY: Duration = Duration::from_millis(500);
/// How long leaving the group may take.
const LEAVE_WAIT_MAX: Duration = Duration::from_secs(5);

/// What the poll thread reports.
#[derive(Debug)]
pub enum Notice {
    /// The group gave these partitions to this member.
    Assigned(Vec<TopicPartition>),
    /// The group takes these partitions back. The thread waits, bounded, until
    /// the sender is dropped.
    Revoked(Vec<TopicPartition>, mpsc::Sender<()>),
    /// Some partition's offset is not in its log; librdkafka does not say which.
    OffsetOutOfRange,
    /// The client cannot go on: the process ends.
    Fatal(String),
}

enum Request {
    Fetch { source: TopicPartition, offset: i64, records: UnboundedSender<Record>, lane: Arc<Lane> },
    Unfetch(TopicPartition),
    Acknowledge(Acknowledgement),
    Stop,
}

enum Rebalance {
    Assign(Vec<TopicPartition>),
    Revoke(Vec<TopicPartition>),
}

/// Librdkafka's callbacks become values: they are served after the poll that
/// delivered them, on the same thread.
struct Callbacks {
    rebalances: mpsc::Sender<Rebalance>,
    /// Set while the client is dropped: nobody serves values any more.
    closing: AtomicBool,
}

impl ClientContext for Callbacks {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "consumer");
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log::forward(level, facility, message);
    }
}

impl ConsumerContext for Callbacks {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let assign = err == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Acquire) {
            // librdkafka waits for the call; with nothing assigned, nothing is lost
            let empty = TopicPartitionList::new();
            let served =
                if assign { consumer.incremental_assign(&empty) } else { consumer.incremental_unassign(&empty) };
            if let Err(error) = served {
                tracing::debug!(%error, "rebalance while closing");
            }
            return;
        }
        let parts = list.elements().iter().map(|e| TopicPartition::new(e.topic(), e.partition())).collect();
        let event = if assign { Rebalance::Assign(parts) } else { Rebalance::Revoke(parts) };
        // the receiver lives as long as the thread that polls
        let _ = self.rebalances.send(event);
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        // advisory: the cursor in Postgres is the truth
        match result {
            Ok(()) | Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset)) => {}
            Err(error) => tracing::debug!(%error, "offsets were not committed to the group"),
        }
    }
}

type Native = BaseConsumer<Callbacks>;

/// A handle to the poll thread.
pub struct Consumer {
    requests: mpsc::Sender<Request>,
    thread: std::sync::Mutex<Option<JoinHandle<()>>>,
    native: Weak<Native>,
}

impl Consumer {
    /// Joins the group and begins to poll. `turned` is called at each turn of
    /// the poll loop. Notices arrive at the receiver.
    ///
    /// # Errors
    /// If a setting is not one of librdkafka's.
    pub fn start(
        client: &Client,
        topics: &[&str],
        budget: Arc<Budget>,
        turned: impl Fn() + Send + 'static,
    ) -> KafkaResult<(Self, UnboundedReceiver<Notice>)> {
        let (rebalance_sender, rebalances) = mpsc::channel();
        let callbacks = Callbacks { rebalances: rebalance_sender, closing: AtomicBool::new(false) };
        let native: Arc<Native> = Arc::new(client.consumer().create_with_context(callbacks)?);
        native.subscribe(topics)?;
        let (requests, request_receiver) = mpsc::channel();
        let (notices, notice_receiver) = unbounded_channel();
        let handle = Arc::downgrade(&native);
        let poller = Poller {
            native,
            requests: request_receiver,
            rebalances,
            notices,
            budget,
            assigned: HashSet::new(),
            fetched: Vec::new(),
            last: 0,
            acknowledged: HashMap::new(),
            acknowledged_at: Instant::now(),
            full_since: None,
        };
        let thread = std::thread::Builder::new()
            .name("solewriter-poll".into())
            .spawn(move || poller.run(turned))
            .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok((Self { requests, thread: std::sync::Mutex::new(Some(thread)), native: handle }, notice_receiver))
    }

    /// Begins to fetch a claimed partition at its cursor. Ignored if the group
    /// has taken the partition back meanwhile.
    pub fn fetch(&self, source: TopicPartition, offset: i64, lane: Arc<Lane>) -> UnboundedReceiver<Record> {
        let (records, receiver) = unbounded_channel();
        self.request(Request::Fetch { source, offset, records, lane });
        receiver
    }

    /// Stops fetching a partition.
    pub fn unfetch(&self, source: TopicPartition) {
        self.request(Request::Unfetch(source));
    }

    /// Commits an offset to the group, soon.
    pub fn acknowledge(&self, acknowledgement: Acknowledgement) {
        self.request(Request::Acknowledge(acknowledgement));
    }

    fn request(&self, request: Request) {
        // after the thread has ended there is nothing left to fetch or commit
        let _ = self.requests.send(request);
        if let Ok(thread) = self.thread.lock()
            && let Some(thread) = thread.as_ref()
        {
            thread.thread().unpark();
        }
    }

    /// For asking the broker whether this member is still in good standing.
    pub fn ownership(&self) -> Ownership {
        Ownership { native: self.native.clone() }
    }

    /// Leaves the group and ends the thread. Blocks, for some seconds at most
    /// unless the client itself hangs.
    pub fn stop(&self) {
        self.request(Request::Stop);
        let thread = self.thread.lock().ok().and_then(|mut thread| thread.take());
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the poll thread panicked");
        }
    }
}

/// Asks the broker whether this member still belongs to the group's current
/// generation.
#[derive(Clone)]
pub struct Ownership {
    native: Weak<Native>,
}

impl Ownership {
    /// Commits an offset and waits for the broker's answer: only a member of the
    /// current generation may. Blocks.
    ///
    /// # Errors
    /// Why not, as the broker says it.
    pub fn confirm(&self, source: &TopicPartition, next_offset: i64) -> KafkaResult<()> {
        let native = self.native.upgrade().ok_or(KafkaError::Canceled)?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&source.topic, source.partition, Offset::Offset(next_offset))?;
        native.commit(&list, CommitMode::Sync)
    }
}

/// A partition that is being fetched.
struct Fetched {
    source: TopicPartition,
    records: UnboundedSender<Record>,
    lane: Arc<Lane>,
    paused: bool,
}

struct Poller {
    native: Arc<Native>,
    requests: mpsc::Receiver<Request>,
    rebalances: mpsc::Receiver<Rebalance>,
    notices: UnboundedSender<Notice>,
    budget: Arc<Budget>,
    /// What the group has given to this member, fetched or not.
    assigned: HashSet<TopicPartition>,
    /// What librdkafka has been told to fetch.
    fetched: Vec<Fetched>,
    /// Where in `fetched` the last record belonged: the next one likely too.
    last: usize,
    acknowledged: HashMap<TopicPartition, i64>,
    acknowledged_at: Instant,
    full_since: Option<Instant>,
}

impl Poller {
    fn run(mut self, turned: impl Fn()) {
        self.budget.waits_here();
        loop {
            turned();
            if !self.serve_requests() {
                break;
            }
            if self.has_room() {
                self.poll(POLL);
            } else {
                std::thread::park_timeout(Duration::from_millis(5));
            }
            self.serve_rebalances();
            if self.acknowledged_at.elapsed() >= ACKNOWLEDGE_EVERY {
                self.commit_acknowledged();
            }
        }
        self.leave();
    }

    fn poll(&mut self, timeout: Duration) {
        let native = self.native.clone();
        match native.poll(timeout) {
            Some(Ok(message)) => self.dispatch(&message),
            Some(Err(error)) => self.failed(&error),
            None => {}
        }
    }

    fn dispatch(&mut self, message: &BorrowedMessage<'_>) {
        let is = |fetched: &Fetched| {
            fetched.source.partition == message.partition() && &*fetched.source.topic == message.topic()
        };
        if !self.fetched.get(self.last).is_some_and(is) {
            match self.fetched.iter().position(is) {
                Some(at) => self.last = at,
                None => return, // unassigned meanwhile: it is read again from its cursor
            }
        }
        let record = copy::record(message);
        let Fetched { records, lane, .. } = &self.fetched[self.last];
        lane.take(record.size_bytes());
        // a writer that has ended is about to be unfetched; its lane goes with it
        let _ = records.send(record);
    }

    fn failed(&self, error: &KafkaError) {
        match error {
            KafkaError::MessageConsumption(
                RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::OffsetOutOfRange
                | RDKafkaErrorCode::LogTruncation,
            ) => self.notify(Notice::OffsetOutOfRange),
            KafkaError::MessageConsumptionFatal(code) => self.notify(Notice::Fatal(code.to_string())),
            error => tracing::warn!(%error, "consumer"),
        }
    }

    fn notify(&self, notice: Notice) {
        // nobody listens only while the worker ends
        let _ = self.notices.send(notice);
    }

    /// False: stop.
    fn serve_requests(&mut self) -> bool {
        while let Ok(request) = self.requests.try_recv() {
            match request {
                Request::Fetch { source, offset, records, lane } => self.fetch(source, offset, records, lane),
                Request::Unfetch(source) => self.unfetch(&[source]),
                Request::Acknowledge(Acknowledgement { source, next_offset }) => {
                    self.acknowledged.insert(source, next_offset);
                }
                Request::Stop => return false,
            }
        }
        true
    }

    fn fetch(&mut self, source: TopicPartition, offset: i64, records: UnboundedSender<Record>, lane: Arc<Lane>) {
        if !self.assigned.contains(&source) {
            return;
        }
        self.unfetch(std::slice::from_ref(&source));
        let assigned = at_offset(&source, offset).and_then(|list| self.native.incremental_assign(&list));
        match assigned {
            Ok(()) => self.fetched.push(Fetched { source, records, lane, paused: false }),
            // its writer sees the channel end, and claims again
            Err(error) => tracing::error!(%source, offset, %error, "the client refuses to fetch the partition"),
        }
    }

    fn unfetch(&mut self, sources: &[TopicPartition]) {
        let mut list = TopicPartitionList::new();
        for fetched in self.fetched.extract_if(.., |fetched| sources.contains(&fetched.source)) {
            list.add_partition(&fetched.source.topic, fetched.source.partition);
        }
        if list.count() > 0
            && let Err(error) = self.native.incremental_unassign(&list)
        {
            tracing::error!(%error, "the client refuses to stop fetching");
        }
    }

    fn serve_rebalances(&mut self) {
        while let Ok(rebalance) = self.rebalances.try_recv() {
            match rebalance {
                Rebalance::Assign(sources) => self.given(sources),
                Rebalance::Revoke(sources) => self.taken_back(sources),
            }
        }
    }

    fn given(&mut self, sources: Vec<TopicPartition>) {
        // librdkafka waits for this call, also if the list is empty; each
        // partition is added with its cursor when its writer has claimed it
        if let Err(error) = self.native.incremental_assign(&TopicPartitionList::new()) {
            tracing::error!(%error, "the client refuses the assignment");
        }
        self.assigned.extend(sources.iter().cloned());
        self.notify(Notice::Assigned(sources));
    }

    fn taken_back(&mut self, sources: Vec<TopicPartition>) {
        for source in &sources {
            self.assigned.remove(source);
        }
        self.wait_for_writers(sources.clone());
        // their last acknowledgements, while this member may still commit them
        if self.serve_requests() {
            self.commit_acknowledged();
        } else {
            self.stop_again();
        }
        let fetched: Vec<_> =
            sources.iter().filter(|s| self.fetched.iter().any(|f| f.source == **s)).cloned().collect();
        if fetched.is_empty() {
            if let Err(error) = self.native.incremental_unassign(&TopicPartitionList::new()) {
                tracing::error!(%error, "the client refuses the revocation");
            }
        } else {
            self.unfetch(&fetched);
        }
    }

    /// Stop arrived while a revocation was served: it must be seen again.
    fn stop_again(&mut self) {
        let (sender, receiver) = mpsc::channel();
        let _ = sender.send(Request::Stop);
        self.requests = receiver;
    }

    fn wait_for_writers(&self, sources: Vec<TopicPartition>) {
        let (done, wait) = mpsc::channel();
        self.notify(Notice::Revoked(sources, done));
        // nothing is ever sent: the wait ends when the sender is dropped
        if wait.recv_timeout(REVOKE_WAIT_MAX) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("writers did not stop within {REVOKE_WAIT_MAX:?} of a revocation: the fence holds them off");
        }
    }

    fn commit_acknowledged(&mut self) {
        self.acknowledged_at = Instant::now();
        if self.acknowledged.is_empty() {
            return;
        }
        let mut list = TopicPartitionList::new();
        for (source, next_offset) in self.acknowledged.drain() {
            // an offset that librdkafka refuses is one that it would not commit either
            let _ = list.add_partition_offset(&source.topic, source.partition, Offset::Offset(next_offset));
        }
        if let Err(error) = self.native.commit(&list, CommitMode::Async) {
            tracing::debug!(%error, "offsets were not committed to the group");
        }
    }

    /// Whether the next record may be received. If there is no room for a second,
    /// whoever is stuck is paused: a pause costs a second of that partition's
    /// time when it is resumed, so it is the exception.
    fn has_room(&mut self) -> bool {
        self.resume_paused();
        let full = (self.budget.is_spent() && self.fetched.iter().any(|f| !f.paused))
            || self.fetched.iter().any(|f| !f.paused && f.lane.is_greedy());
        if !full {
            self.full_since = None;
            return true;
        }
        let since = *self.full_since.get_or_insert_with(Instant::now);
        if since.elapsed() < ROOM_WAIT_MAX {
            return false;
        }
        self.full_since = None;
        self.pause_stuck();
        true
    }

    fn pause_stuck(&mut self) {
        let spent = self.budget.is_spent();
        for fetched in &mut self.fetched {
            if !fetched.paused && (spent || fetched.lane.is_greedy()) {
                let list = partition(&fetched.source);
                fetched.paused = self.native.pause(&list).is_ok();
                tracing::info!(source = %fetched.source, queued_bytes = fetched.lane.queued_bytes(), "paused: no room");
            }
        }
    }

    fn resume_paused(&mut self) {
        if self.budget.is_spent() {
            return;
        }
        for fetched in &mut self.fetched {
            if fetched.paused && !fetched.lane.is_greedy() {
                fetched.paused = self.native.resume(&partition(&fetched.source)).is_err();
                tracing::info!(source = %fetched.source, "resumed");
            }
        }
    }

    /// Leaves the group: a last commit, the revocation, then the client is closed.
    fn leave(mut self) {
        self.commit_acknowledged();
        self.native.unsubscribe();
        let deadline = Instant::now() + LEAVE_WAIT_MAX;
        while !self.assigned.is_empty() && Instant::now() < deadline {
            self.poll(POLL);
            self.serve_rebalances();
        }
        self.native.context().closing.store(true, Ordering::Release);
    }
}

fn partition(source: &TopicPartition) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition(&source.topic, source.partition);
    list
}

fn at_offset(source: &TopicPartition, offset: i64) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&source.topic, source.partition, Offset::Offset(offset))?;
    Ok(list)
}
