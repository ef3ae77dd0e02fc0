//! The publisher's task: hands batches to the producer in order, and starts over
//! from the watermark after a failure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::unpublished::{Unpublished, Waiting, owed_bytes};
use super::{Order, PublishTo};
use crate::assignment::Partition;
use crate::cursor::{Cursor, Published};
use crate::dead_letter::Mirror;
use crate::kafka::{BatchDelivery, Introduced, Producer, SendError};
use crate::outcome::Publication;
use crate::postgres::{Error, Refusal, Store};
use crate::steps::fence::Claimed;
use crate::steps::publish::publications;
use crate::telemetry::metrics;
use crate::writer::backoff;

/// How many batches are read from the database at a time.
const OWED_BATCHES_MAX: i64 = 8;
/// How many times shorter letters become when one was too large.
const SHORTER: usize = 4;
/// The longest wait before it starts over after a failure.
const FAILED_WAIT_MAX: Duration = Duration::from_secs(5);

/// A batch whose records were handed to the producer.
struct Sent {
    /// How far everything is published once they are delivered.
    published: Published,
    delivery: Arc<BatchDelivery>,
    /// The producer that they were handed to.
    generation: u64,
    _waiting: Waiting,
}

pub(super) struct Task {
    claimed: Claimed,
    store: Store,
    producer: Arc<Producer>,
    to: PublishTo,
    /// How dead letters are mirrored: what is configured now decides, whatever was when they died.
    mirror: Option<Mirror>,
    orders: mpsc::UnboundedReceiver<Order>,
    published: watch::Sender<Published>,
    /// The last batch handed to the producer.
    sent: i64,
    /// The cursor behind the last batch known to be durable.
    durable: Cursor,
    in_flight: VecDeque<Sent>,
    introduced: Introduced,
    waits: Box<dyn Iterator<Item = Duration> + Send>,
    unpublished: Arc<Unpublished>,
    gauges: metrics::Partition,
}

impl Task {
    pub(super) fn new(
        partition: &Partition,
        claimed: Claimed,
        orders: mpsc::UnboundedReceiver<Order>,
        published: watch::Sender<Published>,
    ) -> Self {
        let worker = &partition.worker;
        let from = *published.borrow();
        Self {
            claimed,
            store: worker.store.clone(),
            producer: worker.producer.clone(),
            mirror: partition.topic.publish_to.dead_letters.as_ref().map(|to| to.mirror.clone()),
            to: partition.topic.publish_to.clone(),
            orders,
            published,
            sent: from.batch_seq,
            durable: Cursor { next_offset: from.next_offset, batch_seq: from.batch_seq, decision_id: None },
            in_flight: VecDeque::new(),
            introduced: Introduced::default(),
            waits: Box::new(backoff(FAILED_WAIT_MAX)),
            unpublished: worker.unpublished.clone(),
            gauges: partition.gauges.clone(),
        }
    }

    /// Publishes until the handle is dropped.
    pub(super) async fn run(mut self) {
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
            let mut failed = result.err();
            while let Some(error) = failed {
                if error == SendError::Fenced {
                    // the writer learns of it because nobody answers it any more
                    return;
                }
                failed = self.start_over(&error).await.err();
            }
        }
    }

    async fn obey(&mut self, order: Order) -> Result<(), SendError> {
        match order {
            Order::Batch(durable, waiting) => {
                let cursor = durable.cursor();
                self.is_durable(cursor);
                // of a letter that was corrected only its row has the record as it was
                let in_hand = self.mirror.is_none() || !durable.corrects();
                if cursor.batch_seq == self.sent + 1 && in_hand {
                    let published = Published { batch_seq: cursor.batch_seq, next_offset: cursor.next_offset };
                    let mirror = self.mirror.clone();
                    return self.send(published, publications(&durable, mirror.as_ref()), waiting).await;
                }
            }
            Order::Through(cursor) => self.is_durable(cursor),
        }
        self.catch_up().await
    }

    fn is_durable(&mut self, cursor: Cursor) {
        if cursor.batch_seq >= self.durable.batch_seq {
            self.durable = cursor;
        }
        self.count();
    }

    /// Offsets whose outcomes are owed: as many as outcomes, but for transaction
    /// markers and records without an id. An operator may have moved the cursor
    /// while nothing was owed.
    fn count(&self) {
        let published = *self.published.borrow();
        let owes = published.batch_seq < self.durable.batch_seq;
        let offsets = if owes { self.durable.next_offset - published.next_offset } else { 0 };
        self.gauges.unpublished_outcomes(usize::try_from(offsets).unwrap_or(0));
    }

    /// Sends everything durable that was not sent, from the database.
    async fn catch_up(&mut self) -> Result<(), SendError> {
        while self.sent < self.durable.batch_seq {
            let mirror = self.mirror.clone();
            // dead letters come with their records
            let batches_max = if mirror.is_some() { 1 } else { OWED_BATCHES_MAX };
            let (claimed, through) = (&self.claimed, self.durable.batch_seq);
            let owed = self.store.owed(claimed, self.sent, through, batches_max, mirror.is_some()).await;
            let owed = owed.map_err(|error| match error {
                Error::Refused(Refusal::Fenced) => SendError::Fenced,
                error => SendError::Failed(error.to_string()),
            })?;
            let Some(last) = owed.last() else {
                // rows that are gone were published: they are dropped only then
                self.sent = self.durable.batch_seq;
                return Ok(());
            };
            let last = last.published.batch_seq;
            for batch in &owed {
                let publications = || batch.publications(mirror.as_ref());
                let waiting = self.unpublished.hold(owed_bytes(publications()));
                self.send(batch.published, publications(), waiting).await?;
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
        self.in_flight.push_back(Sent { published, delivery: delivery.clone(), generation, _waiting: waiting });
        self.sent = published.batch_seq;
        for publication in publications {
            let Some((topic, partition)) = self.to.place(&publication) else { continue };
            self.introduced.send(&session, topic, partition, &publication, &delivery).await?;
        }
        delivery.all_sent();
        Ok(())
    }

    /// The oldest batch in flight was delivered, or one of its records was not.
    fn delivered(&mut self, all: Result<(), SendError>) -> Result<(), SendError> {
        all?;
        if let Some(Sent { published, .. }) = self.in_flight.pop_front() {
            self.published.send_replace(published);
            self.waits = Box::new(backoff(FAILED_WAIT_MAX));
            self.count();
        }
        Ok(())
    }

    /// Nothing after the first failed record may be counted: go back to the
    /// watermark and publish from the database.
    async fn start_over(&mut self, error: &SendError) -> Result<(), SendError> {
        while self.in_flight.front().is_some_and(|oldest| oldest.delivery.is_delivered()) {
            self.delivered(Ok(()))?;
        }
        self.mirror_less_if_too_large(error);
        let published = *self.published.borrow();
        tracing::warn!(source = %self.claimed.source(), %error, after_batch = published.batch_seq, "publishing starts over from the database");
        self.in_flight.clear();
        self.sent = published.batch_seq;
        tokio::time::sleep(self.waits.next().unwrap_or(FAILED_WAIT_MAX)).await;
        self.catch_up().await
    }
}

impl Task {
    /// The dead-letter topic takes less than it said, or than it did: shorter letters then, until it
    /// takes them.
    fn mirror_less_if_too_large(&mut self, error: &SendError) {
        let (Some(to), Some(mirror)) = (&self.to.dead_letters, &mut self.mirror) else { return };
        let topic = &*to.topic.0;
        let refused = error.is_too_large_for(topic);
        if refused || self.in_flight.iter().any(|sent| sent.delivery.is_too_large_for(topic)) {
            mirror.record_bytes_max /= SHORTER;
            let bytes = mirror.record_bytes_max;
            tracing::warn!(source = %self.claimed.source(), topic, bytes, "the dead-letter topic refused a letter as too large: longer ones go without their value (raise the topic's max.message.bytes, then restart)");
        }
    }
}
