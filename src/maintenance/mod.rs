//! The maintenance duty: makes day partitions ahead, raises the horizon, drops
//! days behind it.
//!
//! It belongs to the owner of partition 0 of the first topic: Kafka elects it,
//! and the same fence that guards a commit guards every change made here. A duty
//! that wakes up late changes nothing.

use std::sync::Arc;
use std::time::Duration;

use crate::horizon::{self, Pass, Raise};
use crate::postgres::{Error, HorizonRow, Refusal, Result};
use crate::runtime::{Runtime, worker_time_ms};
use crate::steps::fence::Claimed;

/// How often a pass is made.
const EVERY: Duration = Duration::from_secs(30);
/// Day partitions exist this far ahead: 48 hours, in days.
const DAYS_AHEAD: i64 = 2;
/// Published batches deleted in one pass, per partition.
const BATCHES_MAX: i64 = 10_000;
const DAY_MS: i64 = horizon::STEP_MS_MAX;

/// Passes until it is aborted, or the claim is stale.
pub async fn run(worker: Arc<Runtime>, duty: Claimed) {
    loop {
        match pass(&worker, &duty).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => tracing::warn!(%error, "the maintenance duty tries again"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// One pass: drop what an earlier pass has proven, note what the pass before has
/// raised, then raise. In this order, as each rests on a later transaction than
/// the one before. False: the claim is stale.
async fn pass(worker: &Runtime, duty: &Claimed) -> Result<bool> {
    let row = worker.store.horizon().await?;
    for day in 0..=DAYS_AHEAD {
        worker.store.make_day(row.database_time_ms + day * DAY_MS).await?;
    }
    // while a busy log raises the horizon at each pass, one raise is seen at a time
    let stands = drop_days(worker, duty).await?
        && (!row.unseen || worker.store.see_horizon(duty).await?)
        && raise_horizon(worker, duty, &row).await?;
    Ok(stands && delete_batches(worker).await?)
}

async fn raise_horizon(worker: &Runtime, duty: &Claimed, row: &HorizonRow) -> Result<bool> {
    match horizon::raise(&considered(worker, row).await?) {
        Raise::To(to_ms) => {
            tracing::info!(to = crate::outcome::rfc3339(to_ms), "the horizon rises");
            worker.store.raise_horizon(duty, to_ms).await
        }
        Raise::ClocksDiffer { by_ms } => {
            tracing::error!(by_ms, "the database's clock and this worker's differ: the horizon stands still");
            Ok(true)
        }
        Raise::Stay => Ok(true),
    }
}

async fn considered(worker: &Runtime, row: &HorizonRow) -> Result<Pass> {
    // of every topic in the schema: another worker's backlog is still to come, too
    let rows = worker.store.log_times().await?;
    let mut log_times_ms: Vec<Option<i64>> = rows.iter().map(|(_, time)| *time).collect();
    for topic in &worker.topics {
        // a partition without a row was never looked at
        let with_row = rows.iter().filter(|(name, _)| **name == *topic.name).count();
        if with_row < usize::try_from(topic.partition_count).unwrap_or(usize::MAX) {
            log_times_ms.push(None);
        }
    }
    Ok(Pass {
        horizon_ms: row.at_ms,
        database_time_ms: row.database_time_ms,
        worker_time_ms: worker_time_ms(),
        log_times_ms,
        window_ms: worker.limits.window_ms,
    })
}

async fn drop_days(worker: &Runtime, duty: &Claimed) -> Result<bool> {
    for day in worker.store.droppable_days().await? {
        match worker.store.drop_day(duty, &day).await {
            Ok(true) => tracing::info!(day, "dropped a day below the horizon"),
            Ok(false) => return Ok(false),
            // writers go first: the next pass tries again
            Err(Error::Refused(Refusal::TimedOut(_))) => return Ok(true),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

async fn delete_batches(worker: &Runtime) -> Result<bool> {
    while let deleted @ 1.. = worker.store.delete_old_batches(BATCHES_MAX).await? {
        tracing::debug!(deleted, "deleted published batches older than the horizon");
    }
    Ok(true)
}
