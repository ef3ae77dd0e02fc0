//! What the outcomes topic knows of a partition. An outcome is published after it
//! is durable: one that the database does not hold shows that it went back in
//! time, also where the group's offsets are gone or are behind themselves.

use std::ops::Range;

use serde::Deserialize;
use uuid::Uuid;

use super::partition::{AskError, Partition};
use super::verify::{Testimony, suspects};
use crate::horizon::Horizon;
use crate::kafka::{InspectError, Inspector, RecordAt};
use crate::record::{Record, TopicPartition};

/// So many of the last outcomes are read for each partition whose outcomes go to the
/// same one. A database that lost commits lost the last ones, so the end of the topic
/// tells; more would be copies and repeats.
const OUTCOMES_EACH_MAX: i64 = 200;

/// What is asked of an outcome's value.
#[derive(Deserialize)]
struct Said {
    command_id: Uuid,
    topic: String,
    partition: i32,
    offset: i64,
}

/// The last outcomes of the partition. None are heard where the topic does not
/// exist (yet), or this user may not read it, which is said once.
pub(super) async fn hear(partition: &Partition) -> Result<Vec<Testimony>, AskError> {
    let topic = partition.topic.publish_to.outcomes.0.clone();
    match partition.ask(move |inspector, source| last_outcomes(inspector, &topic, source)).await {
        Err(AskError::Kafka(InspectError::NoTopic)) => Ok(Vec::new()),
        Err(AskError::Kafka(error @ InspectError::Denied(_))) => {
            partition.topic.unread_outcomes.call_once(|| {
                tracing::warn!(
                    topic = &*partition.topic.publish_to.outcomes.0, %error,
                    "the outcomes topic cannot bear witness against a database that went back in time: give this user \
                     Read on it (docs/security.md)"
                );
            });
            Ok(Vec::new())
        }
        heard => heard,
    }
}

fn last_outcomes(inspector: &Inspector, topic: &str, source: &TopicPartition) -> Result<Vec<Testimony>, InspectError> {
    let count = inspector.partition_count(topic)?;
    let sharing = 1 + inspector.partition_count(&source.topic)? / count.max(1);
    let outcomes = TopicPartition::new(topic, source.partition % count);
    inspector.last(&outcomes, OUTCOMES_EACH_MAX * i64::from(sharing), |record| testimony(source, &record))
}

/// What is no outcome of this partition says nothing.
fn testimony(source: &TopicPartition, record: &Record) -> Option<Testimony> {
    let said: Said = serde_json::from_slice(record.value()?).ok()?;
    let is_its_own = *said.topic == *source.topic && said.partition == source.partition;
    is_its_own.then_some(Testimony { command_id: said.command_id, offset: said.offset })
}

/// The outcome of the highest of these offsets that the database does not hold,
/// and should. The offsets are those from the cursor, or from what an operator has
/// accepted as lost, to the log's end.
pub(super) async fn forgotten(
    partition: &Partition,
    offsets: Range<i64>,
    outcomes: &[Testimony],
) -> Result<Option<Testimony>, AskError> {
    if !outcomes.iter().any(|outcome| offsets.contains(&outcome.offset)) {
        return Ok(None);
    }
    let store = &partition.worker.store;
    let horizon = Horizon(store.horizon().await?.at_ms);
    let suspects = suspects(&offsets, horizon, outcomes);
    let (ids, offsets): (Vec<Uuid>, Vec<i64>) = suspects.iter().map(|s| (s.command_id, s.offset)).unzip();
    let known = store.known(&partition.source, &ids, &offsets).await?;
    match super::verify::forgotten(&suspects, &known) {
        Some(outcome) if is_of_this_log(partition, outcome).await? => Ok(Some(outcome)),
        _ => Ok(None),
    }
}

/// Whether the record that an outcome speaks of is in the log. A topic that was
/// created again has another there, while its outcomes topic still speaks of the
/// old one.
async fn is_of_this_log(partition: &Partition, outcome: Testimony) -> Result<bool, AskError> {
    let found = partition.ask(move |inspector, source| inspector.record_at(source, outcome.offset)).await?;
    Ok(match found {
        // in structured mode the id is in the value: it may well be this one
        RecordAt::Found(record) => record.header("ce_id").is_none_or(|id| is_id(id, outcome.command_id)),
        RecordAt::Missing => false,
    })
}

fn is_id(text: &[u8], id: Uuid) -> bool {
    Uuid::try_parse_ascii(text).is_ok_and(|found| found == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_testifies_for_its_own_partition_only() {
        let source = TopicPartition::new("accounts.commands", 3);
        let heard = |value: &str| testimony(&source, &Record::copied(0, 0, None, Some(value.as_bytes()), &[]));
        let outcome =
            |of: &str| format!(r#"{{"command_id":"01990000-0000-7000-8000-000000000001","outcome":"dead",{of}}}"#);
        let own = outcome(r#""topic":"accounts.commands","partition":3,"offset":8412"#);
        assert_eq!(heard(&own).map(|testimony| testimony.offset), Some(8412));
        assert!(heard(&outcome(r#""topic":"accounts.commands","partition":4,"offset":8412"#)).is_none());
        assert!(heard(&outcome(r#""topic":"cards.commands","partition":3,"offset":8412"#)).is_none());
        assert!(heard("{}").is_none() && heard("not an outcome").is_none());
    }
}
