//! Misrouted letters are produced again, as they are, to the partitions of their keys.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use anyhow::Context as _;

use super::act::Common;
use super::plan::{Requests, of_letter};
use crate::cli::backend;
use crate::config::{Config, Partitioner};
use crate::dead_letter::stored_headers;
use crate::kafka::{self, CommandProducer, Delivery};
use crate::postgres::{OperatorAction, Store, StoredLetter};
use crate::record::TopicPartition;
use crate::steps::decide::Action;

/// Letters whose deliveries are awaited together.
const IN_FLIGHT_MAX: usize = 1_000;

/// Produces these letters' records again and requests, some at a time, that it be noted of those
/// that every in-sync replica has. A tool that ends in between may leave some in the log twice: they
/// keep their ids, so each has one effect all the same. Returns the requests' numbers.
pub(super) async fn all(
    store: &Store,
    config: &Config,
    misrouted: &[StoredLetter],
    common: &Common,
    reason: &str,
) -> anyhow::Result<Vec<i64>> {
    if misrouted.is_empty() {
        return Ok(Vec::new());
    }
    let settings = kafka::Client::new(&config.kafka, "solewriter-redrive")?;
    let actor = backend::actor();
    let (mut producers, mut ids) = (HashMap::new(), Vec::new());
    for letters in misrouted.chunks(common.at_once(IN_FLIGHT_MAX).min(IN_FLIGHT_MAX)) {
        common.pace(ids.is_empty()).await;
        let mut in_flight = Vec::with_capacity(letters.len());
        for letter in letters {
            let topic = config.topics.iter().find(|topic| topic.name == letter.topic);
            let partitioner = topic.map_or_else(Partitioner::default, |topic| topic.partitioner);
            let producer = match producers.entry(partitioner) {
                Entry::Occupied(producer) => producer.into_mut(),
                Entry::Vacant(vacant) => {
                    vacant.insert(CommandProducer::new(&settings.command_producer(partitioner, common.timeout))?)
                }
            };
            in_flight.push((letter, produce(store, producer, letter, common.timeout).await?));
        }
        let mut noted = Requests::new();
        for (letter, delivery) in in_flight {
            delivery.finished().await.with_context(|| format!("producing letter {} again", letter.dead_letter_id))?;
            noted.entry((letter.topic.clone(), letter.home)).or_default().push(of_letter(letter));
        }
        for ((topic, home), requests) in noted {
            let source = TopicPartition::new(topic, home);
            let by = OperatorAction { source: &source, actor: &actor, reason };
            ids.extend(store.request(&by, Action::Reproduced, false, &requests).await?);
        }
    }
    Ok(ids)
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
