//! What `check` reads: the last records of a command topic, judged as a worker
//! would judge them.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::check::Check;
use crate::command::Command;
use crate::config::{Partitioner, Topic};
use crate::dead_letter::{DeadCode, DeadLetter};
use crate::handlers::{EntityHandlers, Handler};
use crate::kafka::{InspectError, Inspector};
use crate::record::{Record, TopicPartition};
use crate::runtime::worker_time_ms;
use crate::steps::decide::called;
use crate::steps::receive::receive;
use crate::steps::route::{UNKNOWN_PARTITIONER, producer_of, route};
use crate::steps::{Parking, Rules};

/// Partitions that are looked into, from the first.
const PARTITIONS_MAX: i32 = 8;
/// Records of each.
const RECORDS_PER_PARTITION: i64 = 12;
/// So many producers of misrouted records are named.
const PRODUCERS_MAX: usize = 3;
/// A producer's clock may be so far off: milliseconds.
const CLOCK_SKEW_MAX_MS: i64 = 60_000;

/// What the sample shows.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sample {
    records: usize,
    /// Ids that are not UUIDv7: kept for ever.
    untimed: usize,
    /// Ids made later than now, beyond a clock's tolerance.
    ahead: usize,
    dead: BTreeMap<&'static str, usize>,
    /// The misrouted ones, by what their headers say of their producer.
    misrouted: BTreeMap<Option<String>, Misrouted>,
}

/// What one producer has sent to wrong partitions.
#[derive(Debug, Default, PartialEq, Eq)]
struct Misrouted {
    records: usize,
    /// So many of the keys fit this partitioner.
    partitioners: BTreeMap<&'static str, usize>,
}

/// Reads the last records, and says what a worker would make of them.
pub(super) async fn check(
    handlers: Option<Arc<EntityHandlers>>,
    topic: &Topic,
    inspector: &Arc<Inspector>,
    partition_count: i32,
) -> anyhow::Result<Check> {
    let name = format!("commands on {}", topic.name);
    let Some(handlers) = handlers else {
        return Ok(Check::ok(name, "not judged: no handlers, or none that are in order"));
    };
    let (inspector, topic) = (inspector.clone(), topic.clone());
    let read = tokio::task::spawn_blocking(move || sample(&inspector, &topic, &handlers, partition_count)).await?;
    Ok(match read {
        Ok(sample) => sample.check(name),
        Err(error) => Check::failed(name, error.to_string(), "give this user read on the topic (docs/security.md)"),
    })
}

fn sample(
    inspector: &Inspector,
    topic: &Topic,
    handlers: &Arc<EntityHandlers>,
    partition_count: i32,
) -> Result<Sample, InspectError> {
    let mut sample = Sample::default();
    for partition in 0..partition_count.min(PARTITIONS_MAX) {
        let source = TopicPartition::new(topic.name.as_str(), partition);
        let records = inspector.last_records(&source, RECORDS_PER_PARTITION)?;
        let rules = Rules {
            source,
            handlers: handlers.clone(),
            partition_count,
            partitioner: topic.partitioner,
            payload_bytes_max: usize::MAX,
            outcome_bytes_max: usize::MAX,
            parking: Parking::default(),
        };
        for record in records {
            sample.judge(record, &rules, worker_time_ms());
        }
    }
    Ok(sample)
}

impl Sample {
    fn judge(&mut self, record: Record, rules: &Rules, now_ms: i64) {
        self.records += 1;
        let judged = receive(record, rules).and_then(|command| route(command, rules));
        match judged.and_then(|command| with_arguments(command, rules)) {
            Ok(command) => match crate::horizon::id_time_ms(&command.id) {
                None => self.untimed += 1,
                Some(time_ms) if time_ms > now_ms + CLOCK_SKEW_MAX_MS => self.ahead += 1,
                Some(_) => {}
            },
            Err(letter) => {
                *self.dead.entry(letter.code.as_str()).or_default() += 1;
                if letter.code == DeadCode::Misrouted {
                    let of_producer = self.misrouted.entry(producer_of(&letter.record)).or_default();
                    of_producer.records += 1;
                    let key = letter.record.key().unwrap_or_default();
                    for name in Partitioner::candidates(key, rules.source.partition, rules.partition_count) {
                        *of_producer.partitioners.entry(name).or_default() += 1;
                    }
                }
            }
        }
    }

    /// Who has misrouted, and how, those with the most records first.
    fn culprits(&self) -> String {
        let mut producers: Vec<_> = self.misrouted.iter().collect();
        producers.sort_by_key(|(_, misrouted)| Reverse(misrouted.records));
        let several = producers.len() > 1;
        let told = producers.iter().take(PRODUCERS_MAX).map(|(named, Misrouted { records, partitioners })| {
            let seems = partitioners.iter().max_by_key(|(_, count)| **count);
            let seems = seems.map_or(UNKNOWN_PARTITIONER, |(name, _)| *name);
            let count = if several { format!("of {records} ") } else { String::new() };
            let named = named.as_ref().map(|named| format!("; its headers say {named}")).unwrap_or_default();
            format!("{count}the producer's partitioner seems to be {seems}{named}")
        });
        let mut culprits: Vec<String> = told.collect();
        if let Some(more @ 1..) = producers.len().checked_sub(PRODUCERS_MAX) {
            culprits.push(format!("and {more} producers more"));
        }
        culprits.join("; ")
    }

    fn check(&self, name: String) -> Check {
        let Self { records, untimed, ahead, .. } = self;
        if let Some(misrouted) = self.dead.get(DeadCode::Misrouted.as_str()) {
            let culprits = self.culprits();
            let found = format!("{misrouted} of the last {records} lie on the wrong partition; {culprits}");
            let cure = "set that producer's partitioner (docs/publishing.md)";
            // all of them, or one producer among others, perhaps long mended
            return if misrouted * 2 > *records {
                Check::failed(name, found, cure)
            } else {
                Check::warning(name, found, cure)
            };
        }
        if !self.dead.is_empty() {
            let codes: Vec<String> = self.dead.iter().map(|(code, count)| format!("{count} {code}")).collect();
            let found = format!("of the last {records}, dead letters: {}", codes.join(", "));
            return Check::warning(name, found, "docs/interface.md says what a command record holds");
        }
        if *ahead > 0 {
            let found = format!("{ahead} of the last {records} ids were made more than a minute ahead of this clock");
            return Check::warning(name, found, "let producers follow a time server (chrony, NTP)");
        }
        if *untimed > 0 {
            let found = format!("{untimed} of the last {records} ids are not UUIDv7: they are kept for ever");
            return Check::warning(name, found, "let producers make UUIDv7 ids, which expire with the window");
        }
        match records {
            0 => Check::ok(name, "none yet"),
            _ => Check::ok(name, format!("the last {records}: on their partitions, with UUIDv7 ids")),
        }
    }
}

/// Of a command in SQL its payload is judged, too; whether it suits a handler in Rust only running
/// it would tell.
fn with_arguments(command: Command, rules: &Rules) -> Result<Command, Box<DeadLetter>> {
    let Handler::Sql(call) = &command.command_type.handler else { return Ok(command) };
    match called(&command, rules, call) {
        Ok(_) => Ok(command),
        Err(fault) => Err(Box::new(command.dead(fault))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::CheckStatus;
    use super::*;

    fn found(dead: &[(&'static str, usize)], untimed: usize, ahead: usize) -> Check {
        let dead = dead.iter().copied().collect();
        let misrouted = BTreeMap::from([(None, misrouted(3))]);
        Sample { records: 12, untimed, ahead, dead, misrouted }.check("commands".into())
    }

    fn misrouted(records: usize) -> Misrouted {
        let partitioners = BTreeMap::from([("crc32 (librdkafka's default)", records), ("fnv1a", 1)]);
        Misrouted { records, partitioners }
    }

    #[test]
    fn producers_of_misrouted_records_are_named_the_worst_first() {
        let source = |n: usize| Some(format!("ce_source=\"/service-{n}\""));
        let mut sample = Sample { misrouted: BTreeMap::from([(source(1), misrouted(2))]), ..Sample::default() };
        let crc32 = "the producer's partitioner seems to be crc32 (librdkafka's default)";
        assert_eq!(sample.culprits(), format!("{crc32}; its headers say ce_source=\"/service-1\""));
        sample.misrouted.insert(None, Misrouted { records: 9, partitioners: BTreeMap::new() });
        let explicit = "of 9 the producer's partitioner seems to be none that is known: random or explicit";
        assert_eq!(sample.culprits(), format!("{explicit}; of 2 {crc32}; its headers say ce_source=\"/service-1\""));
        sample.misrouted.extend((3..6).map(|n| (source(n), misrouted(n))));
        assert!(sample.culprits().ends_with("; and 2 producers more"), "{}", sample.culprits());
    }

    #[test]
    fn a_wrong_partitioner_fails_and_is_named() {
        let check = found(&[("misrouted", 7), ("missing-id", 1)], 0, 0);
        assert_eq!(check.status, CheckStatus::Failed);
        assert_eq!(found(&[("misrouted", 3)], 0, 0).status, CheckStatus::Warning);
        assert!(check.detail.contains("7 of the last 12") && check.detail.ends_with("crc32 (librdkafka's default)"));
    }

    #[test]
    fn what_is_only_unwise_is_a_warning() {
        assert_eq!(found(&[("missing-id", 1)], 0, 0).status, CheckStatus::Warning);
        assert_eq!(found(&[], 0, 2).status, CheckStatus::Warning);
        assert_eq!(found(&[], 2, 0).status, CheckStatus::Warning);
        assert_eq!(found(&[], 0, 0).status, CheckStatus::Ok);
    }
}
