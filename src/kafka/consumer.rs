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

mod fetched;
mod poller;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use self::poller::Poller;
use super::{Budget, Client, Lane};
use crate::record::{Record, TopicPartition};
use crate::steps::acknowledge::Acknowledgement;

/// What the poll thread reports.
#[derive(Debug)]
pub enum Notice {
    /// The group gave these partitions to this member.
    Assigned(Vec<TopicPartition>),
    /// The group takes these partitions back. The thread waits, bounded, until
    /// the sender is dropped.
    Revoked(Vec<TopicPartition>, mpsc::Sender<()>),
    /// Partitions were taken without asking: the session has expired, or a topic is
    /// gone. This member counts again when it is assigned again.
    AssignmentLost,
    /// Some partition's offset is not in its log; librdkafka does not say which.
    OffsetOutOfRange,
    /// The client cannot go on: the process ends.
    Fatal(String),
}

enum Request {
    Fetch { source: TopicPartition, offset: i64, records: UnboundedSender<Record>, lane: Arc<Lane> },
    Unfetch(TopicPartition, Arc<Lane>),
    Acknowledge(Acknowledgement),
    Stop,
}

enum Rebalance {
    Assign(Vec<TopicPartition>),
    /// `true`: lost, they may have another owner already.
    Revoke(Vec<TopicPartition>, bool),
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
        let event =
            if assign { Rebalance::Assign(parts) } else { Rebalance::Revoke(parts, consumer.assignment_lost()) };
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
        let poller = Poller::new(native, request_receiver, rebalances, notices, budget);
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

    /// Stops the fetch that was begun with this lane; a newer one goes on.
    pub fn unfetch(&self, source: TopicPartition, lane: Arc<Lane>) {
        self.request(Request::Unfetch(source, lane));
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
