//! What follows a dry run: the halt is lifted, and a worker settles again what the database has forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Found;
use crate::config::Config;
use crate::kafka::{Client, Inspector, blocking};
use crate::postgres::{Layout, OperatorAction, PartitionSeen, Store};
use crate::record::TopicPartition;
use crate::replay::ReplayError;
use crate::replay::progress::Progress;

/// How long the broker may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the cursors are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Resumes the partitions of a dry run, as `solewriter resume --accept-database` does, each only if it is still as it
/// was seen; the numbers of the dry run are kept in the audit. Those that were changed meanwhile, which are left as
/// they are.
///
/// # Errors
/// If the database or the broker cannot be reached.
pub async fn resume(
    store: &Store,
    config: &Config,
    found: &Found,
    actor: &str,
    reason: &str,
) -> Result<Vec<TopicPartition>, ReplayError> {
    let client = Client::new(&config.kafka, "solewriter replay")?;
    let inspector = Arc::new(Inspector::new(&client, ASK_TIMEOUT)?);
    // before the first is resumed: the broker may be silent
    let mut layouts = BTreeMap::new();
    for seen in &found.seen {
        let topic = config.topics.iter().find(|topic| topic.name == seen.topic);
        let topic = topic.ok_or_else(|| ReplayError::UnknownTopic(seen.topic.clone()))?;
        let (inspector, name) = (inspector.clone(), topic.name.clone());
        let count = blocking(move || inspector.partition_count(&name)).await;
        let partition_count = count.map_err(|error| ReplayError::Inspect(topic.name.clone(), error))?;
        let layout =
            Layout { topic: &topic.name, entity_type: &topic.entity, partitioner: topic.partitioner, partition_count };
        layouts.insert(&topic.name, layout);
    }
    let mut changed = Vec::new();
    for partition in &found.report.partitions {
        let is_its = |seen: &&PartitionSeen| (&seen.topic, seen.partition) == (&partition.topic, partition.partition);
        let (seen, layout) = (found.seen.iter().find(is_its), layouts.get(&partition.topic));
        let (Some(seen), Some(layout)) = (seen, layout) else { continue };
        let source = seen.source();
        let action = OperatorAction { source: &source, actor, reason };
        let detail = found.report.audited(partition);
        if !store.operator_resume_as_seen(&action, seen, layout, partition.to, detail).await? {
            changed.push(source);
        }
    }
    Ok(changed)
}

/// How far a worker has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Everything is settled and published again.
    All,
    /// It was not waited for any longer.
    Stopped,
    /// A partition has halted again: with this code, for that reason.
    Halted(TopicPartition, String, String),
}

/// Waits until a worker has settled and published all that the dry run has run. `progress` counts offsets, and ends
/// the waiting.
///
/// # Errors
/// If the database cannot be reached.
pub async fn settled(store: &Store, found: &Found, progress: &Progress) -> Result<Settled, ReplayError> {
    let partitions = &found.report.partitions;
    let mut open: Vec<(TopicPartition, i64, i64)> = partitions
        .iter()
        .map(|partition| (TopicPartition::new(&*partition.topic, partition.partition), partition.from, partition.to))
        .collect();
    progress.expect(open.iter().map(|(_, from, to)| u64::try_from(to - from).unwrap_or(0)).sum());
    loop {
        let rows = store.status().await?;
        let mut still = Vec::new();
        for (source, from, to) in open {
            let row = rows.iter().find(|row| *row.topic == *source.topic && row.partition == source.partition);
            let Some(row) = row else {
                still.push((source, from, to));
                continue;
            };
            let published = row.published_offset.min(row.next_offset);
            // an older backlog is published first
            let reached = published.clamp(from, to);
            progress.add(u64::try_from(reached - from).unwrap_or(0));
            if published >= to {
                continue;
            }
            if let Some(code) = &row.halted_code {
                let detail = row.halted_detail.clone().unwrap_or_default();
                return Ok(Settled::Halted(source, code.clone(), detail));
            }
            still.push((source, reached, to));
        }
        if still.is_empty() {
            return Ok(Settled::All);
        }
        open = still;
        tokio::select! {
            () = progress.stopped() => return Ok(Settled::Stopped),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}
