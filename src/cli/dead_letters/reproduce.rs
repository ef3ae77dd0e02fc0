//! Misrouted letters are produced again, as they are, to the partitions of their keys.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context as _;

use crate::config::{Config, Partitioner};
use crate::dead_letter::stored_headers;
use crate::kafka::{self, CommandProducer, Delivery};
use crate::postgres::{Store, StoredLetter};

/// Letters whose deliveries are awaited together.
const IN_FLIGHT_MAX: usize = 1_000;

/// Produces these letters' records again, and returns them once every in-sync replica has them. A
/// tool that ends in between may leave some in the log twice: they keep their ids, so each has one
/// effect all the same.
pub(super) async fn all(
    store: &Store,
    config: &Config,
    misrouted: &[StoredLetter],
    timeout: Duration,
) -> anyhow::Result<Vec<StoredLetter>> {
    let settings = kafka::Client::new(&config.kafka, "solewriter-redrive")?;
    let mut producers = HashMap::new();
    let mut placed = Vec::with_capacity(misrouted.len());
    for letters in misrouted.chunks(IN_FLIGHT_MAX) {
        let mut in_flight = Vec::with_capacity(letters.len());
        for letter in letters {
            let topic = config.topics.iter().find(|topic| topic.name == letter.topic);
            let partitioner = topic.map_or_else(Partitioner::default, |topic| topic.partitioner);
            let producer = match producers.entry(partitioner) {
                std::collections::hash_map::Entry::Occupied(producer) => producer.into_mut(),
                std::collections::hash_map::Entry::Vacant(vacant) => {
                    vacant.insert(CommandProducer::new(&settings.command_producer(partitioner, timeout))?)
                }
            };
            in_flight.push((letter, produce(store, producer, letter, timeout).await?));
        }
        for (letter, delivery) in in_flight {
            delivery.finished().await.with_context(|| format!("producing letter {} again", letter.dead_letter_id))?;
            placed.push(letter.clone());
        }
    }
    Ok(placed)
}

async fn produce(
    store: &Store,
    producer: &CommandProducer,
    letter: &StoredLetter,
    timeout: Duration,
) -> anyhow::Result<Delivery> {
    let id = letter.dead_letter_id;
    let raw = store.raw_letter(id).await?.with_context(|| format!("there is no dead letter {id} any more"))?;
    let headers = stored_headers(&raw.headers).with_context(|| format!("the headers of dead letter {id}"))?;
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
    let key = raw.key.unwrap_or_default();
    let sent = producer.send(&letter.topic, &key, raw.value.as_deref(), &headers, timeout).await;
    sent.with_context(|| format!("producing letter {id} again"))
}
