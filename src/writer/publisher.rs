//! Publishes what is durable, in order, and keeps the watermark.
//!
//! What is authoritative: the batch rows in Postgres. A batch that has just been
//! committed is published from memory; whatever else is owed (after a claim, a
//! delivery error, a commit by an earlier attempt) is read from the database.
//! The watermark moves over a batch when all its records are delivered.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::cursor::Published;
use crate::kafka::{BatchDelivery, Producer, SendError, Session};
use crate::outcome::{Channel, Ending, Publication};
use crate::postgres::Store;
use crate::record::TopicPartition;
use crate::steps::commit::Durable;
use crate::steps::decide::{Decision, Owed};
use crate::steps::publish::publications;
use crate::telemetry::metrics;

/// How many batches are read from the database at a time.
const OWED_BATCHES_MAX: i64 = 8;
/// How many settled batches of a partition may wait to be published.
const BATCHES_BEHIND_MAX: i64 = 16;
/// What a record costs beside its value while it waits: bytes.
const PUBLICATION_OVERHEAD_BYTES: usize = 1500;
/// How long the publisher waits when the producer's queue is full.
const FULL_WAIT: Duration = Duration::from_millis(2);
/// How long it waits before it starts over after a failure.
const FAILED_WAIT: Duration = Duration::from_millis(200);

/// Where outcomes and events go.
#[derive(Clone, Debug)]
pub struct PublishTo {
    /// The outcomes topic and its partition count.
    pub outcomes: (Arc<str>, i32),
    /// The events topic and its partition count.
    pub events: (Arc<str>, i32),
}

impl PublishTo {
    fn place(&self, publication: &Publication<'_>) -> (&str, i32) {
        let (topic, count) = match publication.channel {
            Channel::Outcomes => &self.outcomes,
            Channel::Events => &self.events,
        };
        (topic, publication.source_partition % (*count).max(1))
    }
}

enum Order {
    /// A batch that was just committed.
    Batch(Box<Durable>, Waiting),
    /// Everything up to this batch is durable: read it.
    Through(i64),
}

/// The writer's end: hands over, and reads the watermark.
pub(super) struct Publisher {
    orders: mpsc::UnboundedSender<Order>,
    published: watch::Receiver<Published>,
    unpublished: Arc<Unpublished>,
    _task: AbortOnDropHandle<()>,
}

/// What all partitions of a worker have settled and is not yet delivered.
#[derive(Debug, Default)]
pub struct Unpublished {
    bytes: AtomicUsize,
    freed: Notify,
}

impl Unpublished {
    fn hold(self: &Arc<Self>, bytes: usize) -> Waiting {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        Waiting { bytes, of: self.clone() }
    }

    /// Waits until less than `bytes_max` wait to be delivered.
    async fn room(&self, bytes_max: usize) {
        loop {
            let freed = self.freed.notified();
            if self.bytes.load(Ordering::Acquire) < bytes_max {
                return;
            }
            freed.await;
        }
    }
}

/// A batch's share of what waits to be delivered, given back when it is dropped:
/// delivered, or thrown away to be read from the database again.
struct Waiting {
    bytes: usize,
    of: Arc<Unpublished>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.of.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.of.freed.notify_waiters();
    }
}

/// What a settled batch costs until it is delivered, in bytes.
fn owed_bytes(decision: &Decision) -> usize {
    let bytes = |owed: &Owed| match owed {
        Owed::Outcome(outcome) => match &outcome.ending {
            Ending::Applied { reply, events } => {
                let events = events.iter().map(|event| event.data.get().len() + PUBLICATION_OVERHEAD_BYTES);
                reply.get().len() + PUBLICATION_OVERHEAD_BYTES + events.sum::<usize>()
            }
            Ending::Rejected { .. } => PUBLICATION_OVERHEAD_BYTES,
        },
        Owed::Repeat(_) => PUBLICATION_OVERHEAD_BYTES,
        Owed::Dead(n) => decision.dead[*n].record.size_bytes() + PUBLICATION_OVERHEAD_BYTES,
    };
    decision.owed.iter().map(bytes).sum()
}

impl Publisher {
    /// Starts publishing for a claimed partition.
    pub fn start(
        source: TopicPartition,
        published: Published,
        store: Store,
        producer: Arc<Producer>,
        to: PublishTo,
        unpublished: Arc<Unpublished>,
        gauges: metrics::Partition,
    ) -> Self {
        let (orders, receiver) = mpsc::unbounded_channel();
        let (sender, published_receiver) = watch::channel(published);
        let task = Task {
            source,
            store,
            producer,
            to,
            orders: receiver,
            published: sender,
            sent: published.batch_seq,
            durable: published.batch_seq,
            in_flight: VecDeque::new(),
            unpublished: unpublished.clone(),
            gauges,
            records: 0,
        };
        let task = AbortOnDropHandle::new(tokio::spawn(task.run()));
        Self { orders, published: published_receiver, unpublished, _task: task }
    }

    /// Hands over a batch that is durable.
    pub fn publish(&self, durable: Durable) {
        let waiting = self.unpublished.hold(owed_bytes(durable.decision()));
        // the task ends only with this handle
        let _ = self.orders.send(Order::Batch(Box::new(durable), waiting));
    }

    /// Publishes from the database up to this batch.
    pub fn publish_through(&self, batch_seq: i64) {
        let _ = self.orders.send(Order::Through(batch_seq));
    }

    /// How far everything is published.
    pub fn published(&self) -> Published {
        *self.published.borrow()
    }

    /// Waits until less than `bytes_max` of all partitions, and at most a few
    /// batches of this one, wait to be delivered.
    pub async fn room(&mut self, bytes_max: usize, durable: i64) {
        self.unpublished.room(bytes_max).await;
        self.wait_for(durable - BATCHES_BEHIND_MAX).await;
    }

    /// Waits until everything up to this batch is published.
    pub async fn wait_for(&mut self, batch_seq: i64) {
        // an error means that the task has ended: there is nothing to wait for
        let _ = self.published.wait_for(|published| published.batch_seq >= batch_seq).await;
    }
}

/// A batch whose records were handed to the producer.
struct Sent {
    /// How far everything is published once they are delivered.
    published: Published,
    delivery: Arc<BatchDelivery>,
    /// The producer that they were handed to.
    generation: u64,
    records: usize,
    _waiting: Option<Waiting>,
}

struct Task {
    source: TopicPartition,
    store: Store,
    producer: Arc<Producer>,
    to: PublishTo,
    orders: mpsc::UnboundedReceiver<Order>,
    published: watch::Sender<Published>,
    /// The last batch handed to the producer.
    sent: i64,
    /// The last batch known to be durable.
    durable: i64,
    in_flight: VecDeque<Sent>,
    unpublished: Arc<Unpublished>,
    gauges: metrics::Partition,
    /// Records handed over and not yet delivered.
    records: usize,
}

impl Task {
    async fn run(mut self) {
        loop {
            let oldest = self.in_flight.front().map(|sent| sent.delivery.clone());
            let delivered = async {
                match &oldest {
                    Some(delivery) => delivery.finished().await,
                    None => std::future::pending().await,
                }
            };
            let result = tokio::select! {
                order = self.orders.recv() => match order {
                    Some(order) => self.obey(order).await,
                    None => return,
                },
                delivered = delivered => self.delivered(delivered),
            };
            if let Err(error) = result {
                self.start_over(&error).await;
            }
        }
    }

    async fn obey(&mut self, order: Order) -> Result<(), SendError> {
        match order {
            Order::Batch(durable, waiting) => {
                let cursor = durable.cursor();
                self.durable = self.durable.max(cursor.batch_seq);
                if cursor.batch_seq == self.sent + 1 {
                    let published = Published { batch_seq: cursor.batch_seq, next_offset: cursor.next_offset };
                    return self.send(published, publications(&durable), waiting).await;
                }
            }
            Order::Through(batch_seq) => self.durable = self.durable.max(batch_seq),
        }
        self.catch_up().await
    }

    /// Sends everything durable that was not sent, from the database.
    async fn catch_up(&mut self) -> Result<(), SendError> {
        while self.sent < self.durable {
            let owed = self.store.owed(&self.source, self.sent, self.durable, OWED_BATCHES_MAX).await;
            let owed = owed.map_err(|error| SendError::Failed(error.to_string()))?;
            let Some(last) = owed.last() else {
                // rows that are gone were published: they are dropped only then
                self.sent = self.durable;
                return Ok(());
            };
            let last = last.published.batch_seq;
            for batch in &owed {
                let bytes = batch.publications().map(|p| p.value.len() + PUBLICATION_OVERHEAD_BYTES).sum();
                let waiting = self.unpublished.hold(bytes);
                self.send(batch.published, batch.publications(), waiting).await?;
            }
            self.sent = last;
        }
        Ok(())
    }

    async fn send<'a>(
        &mut self,
        published: Published,
        publications: impl Iterator<Item = Publication<'a>>,
        waiting: Waiting,
    ) -> Result<(), SendError> {
        let session = self.producer.session()?;
        let generation = session.generation();
        if self.in_flight.back().is_some_and(|before| before.generation != generation) {
            // what went through the producer before was purged: this must not overtake it
            return Err(SendError::Failed("the producer was replaced under what is in flight".into()));
        }
        let delivery = BatchDelivery::begin();
        let sent = Sent { published, delivery: delivery.clone(), generation, records: 0, _waiting: Some(waiting) };
        self.in_flight.push_back(sent);
        self.sent = published.batch_seq;
        let mut records = 0;
        for publication in publications {
            records += 1;
            self.send_one(&session, &publication, &delivery).await?;
        }
        delivery.all_sent();
        if let Some(sent) = self.in_flight.back_mut() {
            sent.records = records;
        }
        self.count(self.records + records);
        Ok(())
    }

    async fn send_one(
        &self,
        session: &Session,
        publication: &Publication<'_>,
        delivery: &Arc<BatchDelivery>,
    ) -> Result<(), SendError> {
        let (topic, partition) = self.to.place(publication);
        loop {
            match session.send(topic, partition, publication, delivery) {
                Err(SendError::Full) => tokio::time::sleep(FULL_WAIT).await,
                result => return result,
            }
        }
    }

    /// The oldest batch in flight was delivered, or one of its records was not.
    fn delivered(&mut self, whole: bool) -> Result<(), SendError> {
        if !whole {
            return Err(SendError::Failed("a record could not be delivered".into()));
        }
        if let Some(Sent { published, records, .. }) = self.in_flight.pop_front() {
            self.count(self.records.saturating_sub(records));
            self.published.send_replace(published);
        }
        Ok(())
    }

    fn count(&mut self, records: usize) {
        self.records = records;
        self.gauges.unpublished_outcomes(records);
    }

    /// Nothing after the first failed record may be counted: go back to the
    /// watermark and publish from the database.
    async fn start_over(&mut self, error: &SendError) {
        let published = *self.published.borrow();
        tracing::warn!(source = %self.source, %error, after_batch = published.batch_seq, "publishing starts over from the database");
        self.in_flight.clear();
        self.count(0);
        self.sent = published.batch_seq;
        tokio::time::sleep(FAILED_WAIT).await;
        if let Err(error) = self.catch_up().await {
            tracing::warn!(source = %self.source, %error, "publishing from the database");
            // starts over once more
            let delivery = BatchDelivery::failed();
            self.in_flight.push_back(Sent { published, delivery, generation: 0, records: 0, _waiting: None });
        }
    }
}
