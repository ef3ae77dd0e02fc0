//! The poll thread: the only one that speaks to the group.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset, TopicPartitionList};
use tokio::sync::mpsc::UnboundedSender;

use super::fetched::Fetched;
use super::{Native, Notice, Rebalance, Request};
use crate::kafka::{Budget, Lane, copy};
use crate::record::{Record, TopicPartition};
use crate::steps::acknowledge::Acknowledgement;
use crate::telemetry::PartitionState;

/// How long a poll waits for a record: also the longest that a request waits.
const POLL: Duration = Duration::from_millis(20);
/// How long a revocation waits for the writers; what outlives it meets the fence.
const REVOKE_WAIT_MAX: Duration = Duration::from_secs(10);
/// How often settled offsets are committed to the group.
const ACKNOWLEDGE_EVERY: Duration = Duration::from_millis(500);

pub(super) struct Poller {
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
    /// A request to stop was seen.
    stopping: bool,
}

impl Poller {
    pub(super) fn new(
        native: Arc<Native>,
        requests: mpsc::Receiver<Request>,
        rebalances: mpsc::Receiver<Rebalance>,
        notices: UnboundedSender<Notice>,
        budget: Arc<Budget>,
    ) -> Self {
        Self {
            native,
            requests,
            rebalances,
            notices,
            budget,
            assigned: HashSet::new(),
            fetched: Vec::new(),
            last: 0,
            acknowledged: HashMap::new(),
            acknowledged_at: Instant::now(),
            stopping: false,
        }
    }

    /// Polls until it is told to stop; then leaves the group.
    pub(super) fn run(mut self, turned: impl Fn()) {
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
        let Fetched { records, lane, moved_at, .. } = &mut self.fetched[self.last];
        if lane.queued_bytes() == 0 {
            *moved_at = Instant::now();
        }
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
        loop {
            match self.requests.try_recv() {
                Ok(Request::Fetch { source, offset, records, lane }) => self.fetch(source, offset, records, lane),
                Ok(Request::Unfetch(source, lane)) => {
                    if self.fetched.iter().any(|fetched| Arc::ptr_eq(&fetched.lane, &lane)) {
                        self.unfetch(&[source]);
                    }
                }
                Ok(Request::Acknowledge(Acknowledgement { source, next_offset })) => {
                    self.acknowledged.insert(source, next_offset);
                }
                Err(mpsc::TryRecvError::Empty) => return !self.stopping,
                // whoever started this thread is gone: so does the member of the group
                Ok(Request::Stop) | Err(mpsc::TryRecvError::Disconnected) => {
                    self.stopping = true;
                    return false;
                }
            }
        }
    }

    fn fetch(&mut self, source: TopicPartition, offset: i64, records: UnboundedSender<Record>, lane: Arc<Lane>) {
        if !self.assigned.contains(&source) {
            return;
        }
        self.unfetch(std::slice::from_ref(&source));
        let assigned = at_offset(&source, offset).and_then(|list| self.native.incremental_assign(&list));
        match assigned {
            Ok(()) => self.fetched.push(Fetched::new(source, records, lane)),
            // its writer sees the channel end, and claims again
            Err(error) => tracing::error!(%source, offset, %error, "the client refuses to fetch the partition"),
        }
    }

    fn unfetch(&mut self, sources: &[TopicPartition]) {
        let mut list = TopicPartitionList::new();
        for fetched in self.fetched.extract_if(.., |fetched| sources.contains(&fetched.source)) {
            if fetched.paused {
                // librdkafka keeps an application's pause over an unassign (its issue
                // 5113): left as it is, the partition would never be read again
                if let Err(error) = self.native.resume(&partition(&fetched.source)) {
                    tracing::error!(source = %fetched.source, %error, "the client refuses to resume");
                }
            }
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
                Rebalance::Revoke(sources, lost) => self.taken_back(sources, lost),
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

    fn taken_back(&mut self, sources: Vec<TopicPartition>, lost: bool) {
        if lost {
            self.notify(Notice::AssignmentLost);
        }
        for source in &sources {
            self.assigned.remove(source);
        }
        self.wait_for_writers(sources.clone());
        // their last acknowledgements, while this member may still commit them; a
        // request to stop among them is seen again by the loop
        self.serve_requests();
        self.commit_acknowledged();
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

    /// Whether the next record may be received. While the budget is spent the
    /// thread waits for the writers; only a partition that is stuck is paused, as
    /// a pause costs it a second when it is resumed.
    fn has_room(&mut self) -> bool {
        self.resume_paused();
        let spent = self.budget.is_spent();
        for fetched in &mut self.fetched {
            if !fetched.paused && (spent || fetched.lane.is_greedy()) && fetched.is_stuck() {
                if let Err(error) = self.native.pause(&partition(&fetched.source)) {
                    tracing::warn!(source = %fetched.source, %error, "the client refuses to pause");
                    continue;
                }
                fetched.paused = true;
                fetched.show(PartitionState::Paused);
                tracing::info!(source = %fetched.source, queued_bytes = fetched.lane.queued_bytes(), "paused: its writer is stuck");
            }
        }
        !spent || self.fetched.iter().all(|fetched| fetched.paused)
    }

    fn resume_paused(&mut self) {
        if self.budget.is_spent() {
            return;
        }
        for fetched in &mut self.fetched {
            if fetched.paused && !fetched.lane.is_greedy() && !fetched.is_stuck() {
                if let Err(error) = self.native.resume(&partition(&fetched.source)) {
                    tracing::warn!(source = %fetched.source, %error, "the client refuses to resume");
                    continue;
                }
                fetched.paused = false;
                fetched.show(PartitionState::Running);
                tracing::info!(source = %fetched.source, "resumed");
            }
        }
    }

    /// Leaves the group: a last commit, then the client is closed, which leaves by itself. The writers
    /// have ended before.
    ///
    /// Giving the partitions back first (unsubscribe, then the incremental unassign) would leave nothing
    /// if the client is closed before that is through, as a commit in flight makes it: librdkafka forgets
    /// its LeaveGroup then (rdkafka_cgrp.c, `rd_kafka_cgrp_incr_unassign_done` while terminating), and the
    /// others wait for the session to expire. What a closing client gives back, it gives back as a whole.
    fn leave(mut self) {
        self.commit_acknowledged();
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
