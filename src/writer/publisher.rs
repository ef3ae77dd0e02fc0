//! Publishes what is durable, in order, and keeps the watermark.
//!
//! What is authoritative: the batch rows in Postgres. A batch that has just been
//! committed is published from memory; whatever else is owed (after a claim, a
//! delivery error, a commit by an earlier attempt) is read from the database.
//! The watermark moves over a batch when all its records are delivered.

mod task;
mod unpublished;

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use self::task::Task;
pub use self::unpublished::Unpublished;
use self::unpublished::{Waiting, settled_bytes};
use crate::assignment::Partition;
use crate::cursor::{Cursor, Published};
use crate::dead_letter::Mirror;
use crate::outcome::{Channel, Publication};
use crate::steps::commit::Durable;
use crate::steps::fence::Claimed;

/// How many settled batches of a partition may wait to be published.
const BATCHES_BEHIND_MAX: i64 = 16;

/// Where outcomes, events and dead letters go.
#[derive(Clone, Debug)]
pub struct PublishTo {
    /// The outcomes topic and its partition count.
    pub outcomes: (Arc<str>, i32),
    /// The events topic and its partition count.
    pub events: (Arc<str>, i32),
    /// Where dead letters are mirrored to, if they are.
    pub dead_letters: Option<DeadLetterTopic>,
}

/// The topic that dead letters are mirrored to.
#[derive(Clone, Debug)]
pub struct DeadLetterTopic {
    /// The topic and its partition count.
    pub topic: (Arc<str>, i32),
    /// How they are mirrored.
    pub mirror: Mirror,
}

impl PublishTo {
    /// The topic and the partition of a publication. `None`: it goes nowhere.
    fn place(&self, publication: &Publication<'_>) -> Option<(&Arc<str>, i32)> {
        let (topic, count) = match publication.channel {
            Channel::Outcomes => &self.outcomes,
            Channel::Events => &self.events,
            Channel::DeadLetters => &self.dead_letters.as_ref()?.topic,
        };
        Some((topic, publication.source_partition % (*count).max(1)))
    }
}

enum Order {
    /// A batch that was just committed.
    Batch(Box<Durable>, Waiting),
    /// Everything up to this cursor is durable: read it.
    Through(Cursor),
}

/// The claim is stale: another owner publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Replaced;

/// The writer's end: hands over, and reads the watermark.
pub(super) struct Publisher {
    orders: mpsc::UnboundedSender<Order>,
    published: watch::Receiver<Published>,
    unpublished: Arc<Unpublished>,
    _task: AbortOnDropHandle<()>,
}

impl Publisher {
    /// Starts publishing for a claimed partition.
    pub fn start(partition: &Partition, claimed: Claimed, published: Published) -> Self {
        let (orders, receiver) = mpsc::unbounded_channel();
        let (sender, published_receiver) = watch::channel(published);
        let task = Task::new(partition, claimed, receiver, sender);
        let task = AbortOnDropHandle::new(tokio::spawn(task.run()));
        let unpublished = partition.worker.unpublished.clone();
        Self { orders, published: published_receiver, unpublished, _task: task }
    }

    /// Hands over a batch that is durable.
    pub fn publish(&self, durable: Durable) {
        let waiting = self.unpublished.hold(settled_bytes(&durable));
        // the task ends only with this handle
        let _ = self.orders.send(Order::Batch(Box::new(durable), waiting));
    }

    /// Publishes from the database up to this cursor.
    pub fn publish_through(&self, cursor: Cursor) {
        let _ = self.orders.send(Order::Through(cursor));
    }

    /// How far everything is published.
    pub fn published(&self) -> Published {
        *self.published.borrow()
    }

    /// Waits until less than `bytes_max` of all partitions, and at most a few
    /// batches of this one, wait to be delivered.
    ///
    /// # Errors
    /// If another owner publishes by now.
    pub async fn room(&mut self, bytes_max: usize, durable: i64) -> Result<(), Replaced> {
        self.unpublished.room(bytes_max).await;
        self.wait_for(durable - BATCHES_BEHIND_MAX).await
    }

    /// Waits until everything up to this batch is published.
    ///
    /// # Errors
    /// If another owner publishes by now.
    pub async fn wait_for(&mut self, batch_seq: i64) -> Result<(), Replaced> {
        // the task ends by itself only when its claim is stale
        let published = self.published.wait_for(|published| published.batch_seq >= batch_seq).await;
        published.map(drop).map_err(|_| Replaced)
    }
}
