//! What the rebuild is set against: one snapshot of the live tables, or that of an earlier process whose shadow is gone on
//! with.

use serde::{Deserialize, Serialize};

use super::run::Verification;
use super::settled_offsets::SettledOffsets;
use crate::postgres::{CheckpointCursor, CutPartition, CutTable};
use crate::replay::ReplayError;

/// A cut that is older is not gone on with: 24 h.
const CUT_AGE_MAX_MS: i64 = 24 * 3_600_000;

/// What one snapshot of the live tables says, as far as it is no table of the shadow.
#[derive(Serialize, Deserialize)]
pub(super) struct Snapshot {
    /// When it was taken, milliseconds since 1970, by the database's clock.
    pub at_ms: i64,
    pub partitions: Vec<(CutPartition, SettledOffsets)>,
    /// Final outcomes: topic, partition, the day of the id (days since 1970, `None` for ids without a time), how many.
    pub outcomes: Vec<(String, i32, Option<i64>, i64)>,
    pub entities: u64,
    /// The newest dead letter that the shadow began with.
    pub newest_letter: i64,
    /// The tables that commands write.
    pub tables: Vec<CutTable>,
    /// What of it cannot be compared.
    pub unproven: Vec<String>,
}

impl Verification<'_> {
    /// That of a shadow that somebody else has begun: not long ago, and of the tables that are live now.
    pub async fn kept_snapshot(&self, shadow: &str, kept: &str) -> Result<Snapshot, ReplayError> {
        let kept: Snapshot = serde_json::from_str(kept).map_err(|error| ReplayError::NotKept(error.to_string()))?;
        let topics: Vec<&str> = self.config.topics.iter().map(|topic| &*topic.name).collect();
        let mut now = self.live.cut(&[]).await?;
        let (now_ms, partitions) = (now.at_ms().await?, now.partitions(&topics).await?);
        now.end().await?;
        if now_ms - kept.at_ms > CUT_AGE_MAX_MS {
            let cut_at = crate::outcome::rfc3339(kept.at_ms);
            return Err(ReplayError::TooOld { shadow: shadow.to_owned(), cut_at });
        }
        for (then, _) in &kept.partitions {
            let is_same = |now: &&CutPartition| (&now.topic, now.partition) == (&then.topic, then.partition);
            let now = partitions.iter().find(is_same);
            if now.is_none_or(|now| now.next_offset < then.next_offset || now.batch_seq < then.batch_seq) {
                return Err(ReplayError::Older(then.source()));
            }
        }
        tracing::warn!(shadow, cut_at = crate::outcome::rfc3339(kept.at_ms), "goes on where it was stopped");
        Ok(kept)
    }

    /// Fills the shadow with the cut.
    pub async fn cut(&self) -> Result<Snapshot, ReplayError> {
        let snapshot = self.snapshot().await?;
        let said = serde_json::to_string(&snapshot).map_err(|error| ReplayError::NotKept(error.to_string()))?;
        match self.shadow.keep_cut(&said).await.map_err(ReplayError::Shadow)? {
            true => Ok(snapshot),
            false => Err(ReplayError::Crashed),
        }
    }

    /// Everything that has to be read at one moment.
    async fn snapshot(&self) -> Result<Snapshot, ReplayError> {
        let topics: Vec<&str> = self.config.topics.iter().map(|topic| &*topic.name).collect();
        let changed = self.shadow.changed_tables(&self.ready.written).await.map_err(ReplayError::Shadow)?;
        let mut cut = self.live.cut(&changed).await?;
        if let Some(topic) = cut.repartitioned(&topics, self.kept).await? {
            return Err(ReplayError::Repartitioned(topic));
        }
        if let Some(kept) = self.kept
            && let Some(source) = cut.went_back(&topics, kept).await?
        {
            return Err(ReplayError::WentBack(source));
        }
        let (mut partitions, mut unproven) = (Vec::new(), Vec::new());
        for partition in cut.partitions(&topics).await? {
            self.check_cursor(&partition)?;
            let skips_to = cut.skips(&partition.source()).await?;
            let forgotten_below = match (partition.batch_seq, partition.oldest_seq) {
                (0, _) | (_, Some(1)) => 0,
                (_, Some(_)) => partition.oldest_offset.unwrap_or(0),
                (_, None) => partition.next_offset,
            };
            partitions.push((partition, SettledOffsets { forgotten_below, skips_to }));
        }
        cut.copy_stretches(&topics, self.shadow).await.map_err(ReplayError::Shadow)?;
        cut.copy_letters(&topics, self.shadow).await.map_err(ReplayError::Shadow)?;
        cut.copy_batches(&self.topics_with_tables()?, self.shadow).await.map_err(ReplayError::Shadow)?;
        let entities = cut.copy_entities(&topics, self.shadow).await.map_err(ReplayError::Shadow)?;
        let at_ms = cut.at_ms().await?;
        let outcomes = cut.outcome_counts(&topics, self.kept).await?;
        let mut tables = Vec::new();
        for table in &changed {
            tables.extend(cut.copy_table(tables.len(), table, self.shadow).await?);
        }
        cut.end().await?;
        for table in self.ready.written.iter().filter(|table| tables.iter().all(|cut| cut.table != **table)) {
            let name = format!("{}.{}", table.schema, table.name);
            unproven
                .push(format!("{name} is no table of the live database: what commands write there is not compared"));
        }
        let newest_letter = self.shadow.newest_letter().await.map_err(ReplayError::Shadow)?;
        Ok(Snapshot { at_ms, partitions, outcomes, entities, newest_letter, tables, unproven })
    }

    /// The topics whose commands write the team's tables.
    fn topics_with_tables(&self) -> Result<Vec<&str>, ReplayError> {
        let mut topics = Vec::new();
        for topic in &self.config.topics {
            let writes_tables = self.ready.handlers(topic)?.in_database.writes_tables();
            topics.extend(writes_tables.then_some(&*topic.name));
        }
        Ok(topics)
    }

    /// Where the checkpoint has a partition.
    pub fn cursor(&self, partition: &CutPartition) -> Option<&CheckpointCursor> {
        let is_its =
            |cursor: &&CheckpointCursor| (&cursor.topic, cursor.partition) == (&partition.topic, partition.partition);
        self.kept?.cursors.iter().find(is_its)
    }

    /// What lies between the checkpoint and the cut is one history.
    fn check_cursor(&self, partition: &CutPartition) -> Result<(), ReplayError> {
        let Some(cursor) = self.cursor(partition) else { return Ok(()) };
        if let (Some(then), Some(now)) = (&cursor.topic_id, &partition.topic_id)
            && then != now
        {
            return Err(ReplayError::AnotherLog(partition.source()));
        }
        if partition.next_offset < cursor.next_offset || partition.batch_seq < cursor.batch_seq {
            return Err(ReplayError::Older(partition.source()));
        }
        Ok(())
    }
}
