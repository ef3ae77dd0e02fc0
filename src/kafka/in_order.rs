//! What keeps records in order that go through one producer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{BatchDelivery, SendError, Session};
use crate::outcome::Publication;

/// How long to wait when the producer's queue is full.
const FULL_WAIT: Duration = Duration::from_millis(2);
/// A broker forgets a producer that is idle for `producer.id.expiration.ms`, a day
/// by default: it is introduced anew long before.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

/// Which topics the broker has seen this producer write to, for one source partition.
///
/// A broker checks a producer's sequence only after it has accepted a record of
/// it: of a fresh producer, whose first request is refused, it accepts the next
/// one (`ProducerAppendInfo.checkSequence`). So the first record on each topic is delivered before another
/// is sent: none can overtake it.
#[derive(Debug, Default)]
pub struct Introduced {
    generation: Option<u64>,
    topics: Vec<(Arc<str>, Instant)>,
}

impl Introduced {
    /// Whether this is the first record of the producer on that topic.
    fn is_first(&mut self, generation: u64, topic: &Arc<str>) -> bool {
        if self.generation != Some(generation) {
            *self = Self { generation: Some(generation), topics: Vec::new() };
        }
        match self.topics.iter_mut().find(|(known, _)| known == topic) {
            Some((_, sent_at)) => std::mem::replace(sent_at, Instant::now()).elapsed() > FORGOTTEN_AFTER,
            None => {
                self.topics.push((topic.clone(), Instant::now()));
                true
            }
        }
    }

    /// Gives one record to the producer, as soon as its queue takes it; returns behind the delivery of a
    /// topic's first.
    ///
    /// # Errors
    /// If the producer was discarded: nothing more goes through it.
    pub async fn send(
        &mut self,
        session: &Session,
        topic: &Arc<str>,
        partition: i32,
        publication: &Publication<'_>,
        delivery: &Arc<BatchDelivery>,
    ) -> Result<(), SendError> {
        if !self.is_first(session.generation(), topic) {
            return hand_over(session, topic, partition, publication, delivery).await;
        }
        let first = BatchDelivery::begin();
        hand_over(session, topic, partition, publication, &first).await?;
        first.all_sent();
        first.finished().await
    }
}

async fn hand_over(
    session: &Session,
    topic: &str,
    partition: i32,
    publication: &Publication<'_>,
    delivery: &Arc<BatchDelivery>,
) -> Result<(), SendError> {
    loop {
        match session.send(topic, partition, publication, delivery) {
            Err(SendError::Full) => tokio::time::sleep(FULL_WAIT).await,
            result => return result,
        }
    }
}
