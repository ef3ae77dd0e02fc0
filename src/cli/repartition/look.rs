//! How far the partitions of a topic are from standing still.

use std::sync::Arc;

use anyhow::bail;

use super::Args;
use crate::cli::exit::Problem;
use crate::config::Partitioner;
use crate::halt::{self, HaltCode};
use crate::kafka::{InspectError, Inspector, RecordAt};
use crate::postgres::{PlacedPartition, Store};
use crate::record::TopicPartition;

/// A topic and its partitions' rows at one moment.
pub(super) struct Look {
    topic: String,
    /// How many partitions the topic has.
    pub(super) partition_count: i32,
    pub(super) partitions: Vec<Seen>,
}

/// A partition that was claimed before.
pub(super) struct Seen {
    pub(super) row: PlacedPartition,
    /// The end of its log: the high watermark.
    pub(super) end_offset: i64,
    /// What of its own layout is not done.
    pub(super) undone: Option<String>,
}

/// The topic's partition count, asked of the broker.
pub(super) async fn partition_count(inspector: &Arc<Inspector>, topic: &str) -> anyhow::Result<i32> {
    let (inspector, name) = (inspector.clone(), topic.to_owned());
    let asked = tokio::task::spawn_blocking(move || inspector.partition_count(&name)).await?;
    asked.map_err(|error| Problem::unreachable(format!("{topic}: {error}")).into())
}

impl Look {
    pub(super) async fn at(
        store: &Store,
        inspector: &Arc<Inspector>,
        partitioner: Partitioner,
        topic: &str,
        wanted: Option<i32>,
    ) -> anyhow::Result<Self> {
        let rows = store.placed_partitions(topic).await?;
        if rows.is_empty() {
            return Err(Problem::usage(format!(
                "{topic} has never been claimed, so nothing has a place yet: add partitions with kafka-topics.sh"
            ))
            .into());
        }
        let found = partition_count(inspector, topic).await?;
        let (asked, name) = (inspector.clone(), topic.to_owned());
        let looked = tokio::task::spawn_blocking(move || {
            let topic_id = asked.topic_id(&name);
            let wanted = wanted.unwrap_or(found);
            let looking = Looking { inspector: &asked, partitioner, topic: &name, found, wanted };
            let partitions: Result<Vec<Seen>, _> = rows.into_iter().map(|row| looking.see(row)).collect();
            (topic_id, partitions)
        });
        let (topic_id, partitions) = looked.await?;
        let partitions = partitions.map_err(|error| Problem::unreachable(format!("{topic}: {error}")))?;
        let recreated =
            |seen: &Seen| seen.row.topic_id.is_some() && topic_id.is_some() && seen.row.topic_id != topic_id;
        if partitions.iter().any(recreated) {
            bail!(
                "{topic} was deleted and created again: a running worker halts it; then type: solewriter resume \
                 {topic} --accept-new-log --reason …"
            );
        }
        Ok(Self { topic: topic.to_owned(), partition_count: found, partitions })
    }

    pub(super) fn is_drained(&self) -> bool {
        self.partitions.iter().all(|seen| seen.undone.is_none())
    }

    /// Each halt that has another reason is resolved first.
    pub(super) fn refuse_other_halts(&self) -> anyhow::Result<()> {
        for Seen { row, .. } in &self.partitions {
            let Some(code) = &row.halted_code else { continue };
            if code != HaltCode::PartitionsChanged.as_str() {
                let source = TopicPartition::new(&*self.topic, row.partition);
                let resolve = halt::resolve(code, &source);
                let detail = row.halted_detail.as_deref().unwrap_or_default();
                bail!("{source} is halted, {code}: {detail}; first type: {resolve}");
            }
        }
        Ok(())
    }

    pub(super) fn refuse_undrained(&self, args: &Args) -> anyhow::Result<()> {
        let Some(undone) = self.undone() else { return Ok(()) };
        let partitions = args.partitions.map(|count| format!(" --partitions {count}")).unwrap_or_default();
        bail!(
            "{undone}\n  stop the producers, then type: solewriter repartition {}{partitions} --drain --execute \
             --reason …",
            self.topic
        );
    }

    /// What is not done, a line for each partition.
    pub(super) fn undone(&self) -> Option<String> {
        let line = |seen: &Seen| Some(format!("{}:{} {}", self.topic, seen.row.partition, seen.undone.as_ref()?));
        let lines: Vec<String> = self.partitions.iter().filter_map(line).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    /// Rises while partitions settle and publish.
    pub(super) fn progress(&self) -> i64 {
        self.partitions.iter().map(|seen| seen.row.next_offset + i64::from(!seen.row.owes)).sum()
    }
}

impl PlacedPartition {
    fn is(&self, step: &str) -> bool {
        self.repartitioning.as_deref() == Some(step)
    }

    pub(super) fn is_moving(&self) -> bool {
        self.is("moving")
    }

    /// Whether its owner has met the end of what it may settle.
    fn has_met_another_layout(&self) -> bool {
        self.is("draining") && self.halted_code.as_deref() == Some(HaltCode::PartitionsChanged.as_str())
    }
}

/// Looks at partitions of one topic.
struct Looking<'a> {
    inspector: &'a Inspector,
    partitioner: Partitioner,
    topic: &'a str,
    /// How many partitions it has, and how many it is to have.
    found: i32,
    wanted: i32,
}

impl Looking<'_> {
    fn see(&self, row: PlacedPartition) -> Result<Seen, InspectError> {
        let source = TopicPartition::new(self.topic, row.partition);
        let end_offset = self.inspector.log_end(&source)?.high;
        let placed_for = if row.partition_count == 0 { self.found } else { row.partition_count };
        let undone = match () {
            // it knows the layout that is wanted, or its own was drained before
            () if placed_for == self.wanted || row.is_moving() => None,
            () if row.owes => Some("owes outcomes of settled commands".to_owned()),
            () if row.next_offset >= end_offset => None,
            () if placed_for != self.found && row.has_met_another_layout() => None,
            () => self.unsettled(&source, row.next_offset, end_offset, placed_for)?,
        };
        Ok(Seen { row, end_offset, undone })
    }

    /// What is not settled of a log, unless it begins with a record that was placed for another layout.
    fn unsettled(
        &self,
        source: &TopicPartition,
        next_offset: i64,
        end_offset: i64,
        placed_for: i32,
    ) -> Result<Option<String>, InspectError> {
        if self.inspector.holds_nothing_from(source, next_offset, end_offset)? {
            return Ok(None);
        }
        let first = self.inspector.first_record_from(source, next_offset)?;
        if placed_for != self.found
            && let RecordAt::Found(record) = &first
            && let Some(key) = record.key()
            && self.partitioner.partition(key, placed_for) != source.partition
            && self.partitioner.partition(key, self.found) == source.partition
        {
            return Ok(None);
        }
        let count = end_offset - next_offset;
        Ok(Some(format!("is not settled: {count} offsets from {next_offset} to the end of its log, {end_offset}")))
    }
}
