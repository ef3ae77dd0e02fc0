//! The maintenance duty: makes day partitions ahead, raises the horizon, drops
//! days and deletes batches behind it.
//!
//! One owner in the schema has it: that of partition 0 of the first topic, by name,
//! that was ever claimed there, whichever worker carries it. Kafka elects it, and
//! the claim that guards a commit guards every change made here, in the call that
//! makes it: a duty that wakes up late changes nothing. The owners of other
//! partitions 0 stand by.

mod held_back;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use self::held_back::HeldBack;
use crate::horizon::{self, Pass, Raise};
use crate::postgres::{Error, HorizonRow, LogTime, Refusal, Result};
use crate::runtime::{Runtime, worker_time_ms};
use crate::steps::fence::Claimed;
use crate::telemetry::metrics;

/// Day partitions exist this far ahead: 48 hours, in days.
const DAYS_AHEAD: i32 = 2;
/// Batches deleted in one call: some tens of milliseconds.
const BATCHES_MAX: i32 = 500;

/// Passes until it is aborted, or the claim is stale.
pub async fn run(worker: Arc<Runtime>, duty: Claimed) {
    let mut held_back = HeldBack::default();
    loop {
        match pass(&worker, &duty, &mut held_back).await {
            Ok(true) => metrics::maintenance_pass(),
            // or a topic that was claimed for the first time has it from this moment on
            Ok(false) | Err(Error::Refused(Refusal::DutyElsewhere(_))) => {
                tracing::debug!(source = %duty.source(), "stands by: another topic carries the maintenance duty");
            }
            Err(Error::Refused(Refusal::Fenced)) => {
                metrics::fenced();
                tracing::info!(source = %duty.source(), token = %duty.token(), "the maintenance duty is fenced: nothing was changed");
                return;
            }
            Err(error) => tracing::warn!(source = %duty.source(), %error, "the maintenance duty tries again"),
        }
        tokio::time::sleep(worker.limits.maintenance_interval).await;
    }
}

/// One pass: drop what an earlier pass has proven, note what the pass before has
/// raised, then raise. In this order, as each rests on a later transaction than
/// the one before. False: another topic carries the duty.
async fn pass(worker: &Runtime, duty: &Claimed, held_back: &mut HeldBack) -> Result<bool> {
    let log_times = worker.store.log_times().await?;
    if !is_first(&duty.source().topic, &log_times) {
        return Ok(false);
    }
    let row = worker.store.horizon().await?;
    if let made @ 1.. = worker.store.make_days(duty, DAYS_AHEAD).await? {
        tracing::info!(made, "made days ahead");
    }
    drop_days(worker, duty).await?;
    // while a busy log raises the horizon at each pass, one raise is seen at a time
    if row.unseen {
        worker.store.see_horizon(duty, &row).await?;
    }
    raise_horizon(worker, duty, &row, with_unclaimed(worker, log_times), held_back).await?;
    delete_batches(worker, duty).await?;
    Ok(true)
}

/// Whether a topic is the first, by name, of which partition 0 was ever claimed. Asked here so that
/// the others need not be refused at each pass: the database decides.
fn is_first(topic: &str, log_times: &[LogTime]) -> bool {
    log_times.iter().filter(|log| log.partition == 0).all(|log| topic <= log.topic.as_str())
}

async fn drop_days(worker: &Runtime, duty: &Claimed) -> Result<()> {
    loop {
        match worker.store.drop_day(duty).await {
            Ok(Some(day)) => tracing::info!(day, "dropped a day below the horizon"),
            Ok(None) => return Ok(()),
            // writers go first: the next pass tries again
            Err(Error::Refused(Refusal::TimedOut(why))) => {
                tracing::info!(why, "a day below the horizon is in use, and stays until the next pass");
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
}

async fn raise_horizon(
    worker: &Runtime,
    duty: &Claimed,
    row: &HorizonRow,
    log_times: Vec<LogTime>,
    held_back: &mut HeldBack,
) -> Result<()> {
    let pass = Pass {
        horizon_ms: row.at_ms,
        database_time_ms: row.database_time_ms,
        worker_time_ms: worker_time_ms(),
        log_times_ms: log_times.iter().map(|log| log.time_ms).collect(),
        window_ms: worker.limits.window_ms,
    };
    match horizon::raise(&pass) {
        Raise::To(to_ms) => {
            tracing::info!(to = crate::outcome::rfc3339(to_ms), "the horizon rises");
            worker.store.raise_horizon(duty, to_ms).await?;
        }
        Raise::ClocksDiffer { by_ms } => {
            tracing::error!(by_ms, "the database's clock and this worker's differ: the horizon stands still");
        }
        Raise::Stay => held_back.tell(&pass, &log_times),
    }
    Ok(())
}

/// Of every partition of every topic in the schema: another worker's backlog is still to come, too;
/// and a partition without a row was never looked at.
fn with_unclaimed(worker: &Runtime, claimed: Vec<LogTime>) -> Vec<LogTime> {
    let ours = worker.topics.iter().map(|topic| (topic.name.to_string(), topic.partition_count));
    let mut partitions: BTreeMap<String, i32> = ours.collect();
    for log in &claimed {
        let count = partitions.entry(log.topic.clone()).or_default();
        *count = log.partition_count.max(*count);
    }
    let mut all = claimed;
    let held: HashSet<(String, i32)> = all.iter().map(|log| (log.topic.clone(), log.partition)).collect();
    for (topic, partition_count) in partitions {
        let unclaimed =
            (0..partition_count).map(|partition| (topic.clone(), partition)).filter(|of| !held.contains(of));
        all.extend(unclaimed.map(|(topic, partition)| LogTime { topic, partition, partition_count, time_ms: None }));
    }
    all
}

/// A piece at a time, with a pause after each that is as long as the piece took,
/// and for half the time between two passes at most: what is left waits for the next.
async fn delete_batches(worker: &Runtime, duty: &Claimed) -> Result<()> {
    let pass = Instant::now();
    loop {
        let piece = Instant::now();
        let deleted = worker.store.delete_batches(duty, BATCHES_MAX).await?;
        if deleted > 0 {
            tracing::debug!(deleted, "deleted published batches older than the horizon");
        }
        if deleted < BATCHES_MAX || pass.elapsed() > worker.limits.maintenance_interval / 2 {
            return Ok(());
        }
        tokio::time::sleep(piece.elapsed()).await;
    }
}
