//! Publishes again what settled batches owed: the same key, value and headers, in the order of settlement of
//! each partition. No command is run, and nothing of the partitions' rows is changed.
//!
//! What is authoritative: the batch rows, which name what each owed in order, and the rows that they name; the
//! one encoder makes the bytes. So it can be done as long as the batches are kept: the deduplication window.
//! Whoever reads drops copies by `ce_id`; so after a crash a few may come again, and none is missing.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::progress::Progress;
use super::range::Only;
use crate::kafka::{BatchDelivery, Introduced, Producer, SendError, Session};
use crate::outcome::{Channel, Delivery, Publication};
use crate::pace::Pace;
use crate::postgres::{self, Republication, SettledBatch, SettledItem, Store};
use crate::record::TopicPartition;

/// How many batches are read from the database at a time.
const BATCHES_AT_ONCE: i64 = 8;
/// How long it may be until what is done is noted, where a rate makes it slow.
const NOTE_EVERY: Duration = Duration::from_secs(1);
/// How long a stop waits for what is in flight.
const STOP_WAIT: Duration = Duration::from_secs(10);

/// Which records of settled batches are published again.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Of deliveries from this offset on.
    pub from: i64,
    /// Up to the one before this offset.
    pub to: i64,
    /// Of these commands.
    pub only: Only,
    /// Outcomes.
    pub outcomes: bool,
    /// Events.
    pub events: bool,
}

/// What is made of one item of a batch.
enum Made<'b> {
    Record(Publication<'b>),
    /// An outcome that is no longer remembered.
    Forgotten,
    /// A dead letter's outcome that a later attempt has overwritten.
    Overwritten,
}

impl Wanted {
    fn made<'b>(&self, batch: &'b SettledBatch) -> impl Iterator<Item = Made<'b>> {
        batch.items.iter().flat_map(move |item| self.of(item, batch.is_of_log))
    }

    fn of<'b>(&self, item: &'b SettledItem, is_of_log: bool) -> Vec<Made<'b>> {
        let is_within = |offset: i64| !is_of_log || (self.from..self.to).contains(&offset);
        let is_meant = |delivery: &Delivery| self.means(Some(&delivery.entity_id), Some(&delivery.command_type));
        match item {
            SettledItem::Outcome(outcome) if is_within(outcome.delivery.offset) && is_meant(&outcome.delivery) => {
                let events = outcome.events().filter(|_| self.events);
                self.outcomes.then(|| outcome.outcome()).into_iter().chain(events).map(Made::Record).collect()
            }
            // which delivery it was that repeated it is not known: a copy too many does no harm
            SettledItem::Repeat(outcome) if self.outcomes && is_meant(&outcome.delivery) => {
                vec![Made::Record(outcome.outcome())]
            }
            SettledItem::Dead(dead)
                if self.outcomes && is_within(dead.offset()) && self.means(dead.entity_id(), dead.command_type()) =>
            {
                dead.publication().map(Made::Record).into_iter().collect()
            }
            SettledItem::Forgotten(_) => vec![Made::Forgotten],
            SettledItem::Overwritten(_) if self.outcomes => vec![Made::Overwritten],
            _ => Vec::new(),
        }
    }

    fn means(&self, entity_id: Option<&str>, command_type: Option<&str>) -> bool {
        let Only { entity_id: entity, command_type: of_type } = &self.only;
        entity.as_deref().is_none_or(|wanted| entity_id == Some(wanted))
            && of_type.as_deref().is_none_or(|wanted| command_type == Some(wanted))
    }
}

/// What was published again, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Settled batches.
    pub batches: u64,
    /// Outcomes, repeats and dead ones included.
    pub outcomes: u64,
    /// Events.
    pub events: u64,
    /// Outcomes that are no longer remembered, as their ids are older than the horizon.
    pub forgotten: u64,
    /// Outcomes of dead deliveries that a later attempt has overwritten.
    pub overwritten: u64,
    /// Batches that were dropped since it was looked which are kept.
    pub dropped: u64,
}

impl Counts {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            batches: self.batches + other.batches,
            outcomes: self.outcomes + other.outcomes,
            events: self.events + other.events,
            forgotten: self.forgotten + other.forgotten,
            overwritten: self.overwritten + other.overwritten,
            dropped: self.dropped + other.dropped,
        }
    }

    fn count(&mut self, made: &Made<'_>) {
        *match made {
            Made::Record(Publication { channel: Channel::Events, .. }) => &mut self.events,
            Made::Record(_) => &mut self.outcomes,
            Made::Forgotten => &mut self.forgotten,
            Made::Overwritten => &mut self.overwritten,
        } += 1;
    }
}

/// Where records go.
#[derive(Clone, Debug)]
pub struct Targets {
    /// The outcomes' topic and its partition count.
    pub outcomes: (Arc<str>, i32),
    /// The events' topic and its partition count.
    pub events: (Arc<str>, i32),
}

impl Targets {
    fn place(&self, publication: &Publication<'_>) -> (&Arc<str>, i32) {
        let (topic, count) = match publication.channel {
            Channel::Events => &self.events,
            Channel::Outcomes | Channel::DeadLetters => &self.outcomes,
        };
        (topic, publication.source_partition % (*count).max(1))
    }
}

/// Publishing again ended before its end. What was noted stays done; the same command goes on from there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepublishError {
    /// The batches cannot be read, or what is done cannot be noted.
    #[error("{0}: the database does not answer")]
    Store(TopicPartition, #[source] postgres::Error),
    /// A record could not be delivered.
    #[error("{0}, after batch {1}: not delivered")]
    Send(TopicPartition, i64, #[source] SendError),
}

/// What all partitions of a republication share.
#[derive(Clone)]
pub struct Republisher {
    /// The tables.
    pub store: Store,
    /// The command, as it was given: what is done is noted under it.
    pub asked: Arc<str>,
    /// Through which everything goes.
    pub producer: Arc<Producer>,
    /// At most so many records a second.
    pub pace: Option<Arc<Mutex<Pace>>>,
}

impl Republisher {
    /// One for all partitions.
    pub fn new(store: Store, asked: &str, producer: Producer, rate: Option<NonZeroU32>) -> Self {
        let pace = rate.map(|rate| Arc::new(Mutex::new(Pace::new(Some(rate)))));
        Self { store, asked: asked.into(), producer: Arc::new(producer), pace }
    }

    /// Publishes what is left of a partition, and notes how far it has come. `progress` counts batches; when it
    /// is stopped, this ends behind the last batch that is published whole.
    ///
    /// # Errors
    /// If a record cannot be delivered, or the database does not answer.
    pub async fn run(
        &self,
        span: &Republication,
        wanted: &Wanted,
        targets: &Targets,
        progress: &Progress,
    ) -> Result<Counts, RepublishError> {
        let source = span.source();
        let failed = |after: i64| move |error| (after, error);
        let of_send = |(after, error)| RepublishError::Send(source.clone(), after, error);
        let session = self.producer.session().map_err(failed(span.done_seq)).map_err(of_send)?;
        let mut sending = Sending { session, introduced: Introduced::default(), targets, pace: self.pace.as_ref() };
        let (mut counts, mut done) = (Counts::default(), span.done_seq);
        while done < span.through_seq && !progress.is_stopped() {
            let of_store = |error| RepublishError::Store(source.clone(), error);
            let batches = self.store.settled_batches(&source, done, span.through_seq, BATCHES_AT_ONCE).await;
            let batches = batches.map_err(of_store)?;
            let (sent, of_sent) =
                sending.batches(&batches, wanted, progress).await.map_err(failed(done)).map_err(of_send)?;
            let upto = if batches.is_empty() { span.through_seq } else { sent.unwrap_or(done) };
            self.store.republished(&self.asked, &source, upto).await.map_err(of_store)?;
            progress.add(u64::try_from(upto - done).unwrap_or(0));
            counts = counts.and(of_sent);
            counts.dropped += gap(done, upto, of_sent.batches);
            done = upto;
        }
        Ok(counts)
    }
}

/// Counts what [`Republisher::run`] would publish.
///
/// # Errors
/// If the database does not answer.
pub async fn count(
    store: &Store,
    span: &Republication,
    wanted: &Wanted,
    progress: &Progress,
) -> Result<Counts, RepublishError> {
    let source = span.source();
    let (mut counts, mut done) = (Counts::default(), span.done_seq);
    while done < span.through_seq && !progress.is_stopped() {
        let batches = store.settled_batches(&source, done, span.through_seq, BATCHES_AT_ONCE).await;
        let batches = batches.map_err(|error| RepublishError::Store(source.clone(), error))?;
        for batch in &batches {
            counts.batches += 1;
            wanted.made(batch).for_each(|made| counts.count(&made));
        }
        let upto = batches.last().map_or(span.through_seq, |last| last.batch_seq);
        counts.dropped += gap(done, upto, batches.len() as u64);
        progress.add(u64::try_from(upto - done).unwrap_or(0));
        done = upto;
    }
    Ok(counts)
}

/// How many batches there were between two that are not kept any more: numbers are given without a gap.
fn gap(after: i64, upto: i64, kept: u64) -> u64 {
    u64::try_from(upto - after).unwrap_or(0).saturating_sub(kept)
}

/// One partition's way to the producer.
struct Sending<'r> {
    session: Session,
    introduced: Introduced,
    targets: &'r Targets,
    pace: Option<&'r Arc<Mutex<Pace>>>,
}

impl Sending<'_> {
    /// Sends batches in order until all are, or a stop, or enough time has passed to note what is done; returns
    /// when what was sent is delivered. The last batch that was sent whole, if one was.
    async fn batches(
        &mut self,
        batches: &[SettledBatch],
        wanted: &Wanted,
        progress: &Progress,
    ) -> Result<(Option<i64>, Counts), SendError> {
        let begun = Instant::now();
        let delivery = BatchDelivery::begin();
        let (mut sent, mut counts) = (None, Counts::default());
        for batch in batches {
            let Some(of_batch) = self.batch(batch, wanted, progress, &delivery).await? else { break };
            counts = counts.and(of_batch);
            sent = Some(batch.batch_seq);
            if begun.elapsed() > NOTE_EVERY {
                break;
            }
        }
        delivery.all_sent();
        tokio::select! {
            delivered = delivery.finished() => delivered?,
            () = stopped_for(progress, STOP_WAIT) => return Ok((None, Counts::default())),
        }
        Ok((sent, counts))
    }

    /// `None`: it was stopped before the batch was sent whole.
    async fn batch(
        &mut self,
        batch: &SettledBatch,
        wanted: &Wanted,
        progress: &Progress,
        delivery: &Arc<BatchDelivery>,
    ) -> Result<Option<Counts>, SendError> {
        let mut counts = Counts { batches: 1, ..Counts::default() };
        for made in wanted.made(batch) {
            counts.count(&made);
            let Made::Record(publication) = made else { continue };
            tokio::select! {
                sent = self.record(&publication, delivery) => sent?,
                () = progress.stopped() => return Ok(None),
            }
        }
        Ok(Some(counts))
    }

    async fn record(&mut self, publication: &Publication<'_>, delivery: &Arc<BatchDelivery>) -> Result<(), SendError> {
        if let Some(pace) = self.pace {
            pace.lock().await.turn().await;
        }
        let (topic, partition) = self.targets.place(publication);
        self.introduced.send(&self.session, topic, partition, publication, delivery).await
    }
}

/// Returns when a stop was asked for and so much time has passed since.
async fn stopped_for(progress: &Progress, wait: Duration) {
    progress.stopped().await;
    tokio::time::sleep(wait).await;
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;
    use uuid::Uuid;

    use super::*;
    use crate::command::Fingerprint;
    use crate::outcome::{ENCODING, Ending, Event, FinalOutcome};

    fn outcome(offset: i64, entity_id: &str) -> Arc<FinalOutcome> {
        let delivery = Delivery {
            command_id: Uuid::from_u128(offset as u128 + 1),
            command_type: "t".into(),
            entity_type: "e".into(),
            entity_id: entity_id.into(),
            fingerprint: Fingerprint([0; 16]),
            source: TopicPartition::new("t", 0),
            offset,
            record_time_ms: 0,
            traceparent: None,
        };
        let event = Event { event_type: "e".into(), data: RawValue::NULL.to_owned() };
        let ending = Ending::Applied { reply: RawValue::NULL.to_owned(), events: vec![event] };
        Arc::new(FinalOutcome { delivery, version: 1, ending, encoding: ENCODING })
    }

    fn all() -> Wanted {
        Wanted { from: 0, to: i64::MAX, only: Only::default(), outcomes: true, events: true }
    }

    fn counts(wanted: &Wanted, is_of_log: bool) -> (u64, u64, u64, u64) {
        let items = vec![
            SettledItem::Outcome(outcome(10, "a")),
            SettledItem::Repeat(outcome(3, "a")),
            SettledItem::Forgotten(Uuid::from_u128(1)),
            SettledItem::Outcome(outcome(12, "b")),
            SettledItem::Overwritten(1),
        ];
        let batch = SettledBatch { batch_seq: 1, is_of_log, items };
        let mut counts = Counts::default();
        wanted.made(&batch).for_each(|made| counts.count(&made));
        (counts.outcomes, counts.events, counts.forgotten, counts.overwritten)
    }

    #[test]
    fn a_range_may_begin_and_end_within_a_batch() {
        assert_eq!(counts(&all(), true), (3, 2, 1, 1));
        // the repeat of an offset that nobody knows comes again all the same
        assert_eq!(counts(&Wanted { from: 11, ..all() }, true), (2, 1, 1, 1));
        assert_eq!(counts(&Wanted { to: 12, ..all() }, true), (2, 1, 1, 1));
        assert_eq!(counts(&Wanted { from: 11, ..all() }, false), (3, 2, 1, 1), "letters have offsets of long ago");
    }

    #[test]
    fn batches_that_are_gone_are_counted() {
        assert_eq!((gap(5, 8, 3), gap(5, 8, 1), gap(5, 8, 0), gap(5, 5, 0)), (0, 2, 3, 0));
    }

    #[test]
    fn one_entity_or_one_channel_may_be_wanted() {
        let only = Only { entity_id: Some("b".into()), command_type: None };
        assert_eq!(counts(&Wanted { only, ..all() }, true), (1, 1, 1, 1));
        assert_eq!(counts(&Wanted { events: false, ..all() }, true), (3, 0, 1, 1));
        assert_eq!(counts(&Wanted { outcomes: false, ..all() }, true), (0, 2, 1, 0));
    }
}
