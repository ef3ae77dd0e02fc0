//! Looks at what a running worker does not hear of by itself: operators' changes
//! of its rows, the horizon, the ends of its logs.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use super::partition::{AskError, Partition};
use crate::cursor::Cursor;
use crate::fencing_token::FencingToken;
use crate::horizon::{Horizon, Look};
use crate::kafka::{InspectError, Inspector, LogEnd};
use crate::record::TopicPartition;
use crate::runtime::{Runtime, worker_time_ms};
use crate::telemetry::metrics;

/// Operators' changes reach a running owner within a second.
const ROWS_EVERY: Duration = Duration::from_millis(400);
/// How often the logs' ends are looked at.
const LOGS_EVERY: Duration = Duration::from_secs(3);

/// The partitions to watch, and the tasks that do.
pub(super) struct Watch {
    partitions: Arc<Mutex<Vec<Arc<Partition>>>>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

impl Watch {
    /// Watches these from now on.
    pub fn set(&self, partitions: Vec<Arc<Partition>>) {
        *self.partitions.lock().unwrap_or_else(PoisonError::into_inner) = partitions;
    }
}

/// Starts watching.
pub(super) fn start(worker: Arc<Runtime>) -> Watch {
    let partitions = Arc::new(Mutex::new(Vec::new()));
    let spawn = |task| AbortOnDropHandle::new(tokio::spawn(task));
    let rows: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(watch_rows(worker, partitions.clone()));
    let logs = Box::pin(watch_logs(partitions.clone()));
    Watch { partitions, _tasks: [spawn(rows), spawn(logs)] }
}

type Partitions = Arc<Mutex<Vec<Arc<Partition>>>>;

fn snapshot(partitions: &Partitions) -> Vec<Arc<Partition>> {
    partitions.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

async fn watch_rows(worker: Arc<Runtime>, partitions: Partitions) {
    loop {
        let looked = look_at_rows(&worker, &snapshot(&partitions)).await;
        worker.health.set_database_ok(looked.is_ok());
        if let Err(error) = looked {
            tracing::warn!(%error, "watching the partitions' rows");
        }
        tokio::select! {
            () = tokio::time::sleep(ROWS_EVERY) => {}
            () = worker.horizon_wanted.notified() => {}
        }
    }
}

async fn look_at_rows(worker: &Runtime, partitions: &[Arc<Partition>]) -> crate::postgres::Result<()> {
    let horizon = worker.store.horizon().await?;
    worker.horizon.send_replace(Horizon(horizon.at_ms));
    metrics::horizon_lag((horizon.database_time_ms - worker.limits.window_ms - horizon.at_ms).max(0));
    for row in worker.store.watch(&worker.owner).await? {
        let is = |p: &&Arc<Partition>| *p.source.topic == *row.topic && p.source.partition == row.partition;
        let Some(partition) = partitions.iter().find(is) else { continue };
        if row.requested {
            partition.letters_requested(true);
        }
        // another claim id is another claim: its owner is told by the fence
        let changed = partition.claimed().is_some_and(|claimed| {
            claimed.claim_id().0 == row.claim_id && claimed.token() != FencingToken(row.fencing_token)
        });
        if changed {
            tracing::info!(source = %partition.source, "an operator has changed the partition");
            partition.poke.notify_one();
        }
    }
    look_at_functions(worker, partitions).await
}

/// Functions that somebody has changed run no further than this: the next claim finds them, and halts.
async fn look_at_functions(worker: &Runtime, partitions: &[Arc<Partition>]) -> crate::postgres::Result<()> {
    for topic in &worker.topics {
        let absent = worker.store.absent_functions(&topic.handlers.in_database.functions).await?;
        if absent.is_empty() {
            continue;
        }
        let running = partitions.iter().filter(|p| p.source.topic == topic.name && p.cursor().is_some());
        running.for_each(|partition| partition.poke.notify_one());
    }
    Ok(())
}

async fn watch_logs(partitions: Partitions) {
    loop {
        tokio::time::sleep(LOGS_EVERY).await;
        for partition in snapshot(&partitions) {
            if let Err(error) = look_at_log(&partition).await {
                tracing::debug!(source = %partition.source, %error, "looking at the log's end");
            }
        }
    }
}

/// How far a partition is behind; and while a writer runs, the proof of log time.
async fn look_at_log(partition: &Partition) -> Result<(), AskError> {
    let Some(cursor) = partition.last_cursor() else { return Ok(()) };
    let end_offset = match partition.cursor() {
        Some(cursor) => prove_log_time(partition, cursor).await?,
        None => partition.ask(move |inspector, source| Ok(inspector.log_end(source)?.high)).await?,
    };
    let lag = u64::try_from(end_offset - cursor.next_offset).unwrap_or(0);
    let oldest_ms = match partition.oldest_unsettled_ms() {
        _ if lag == 0 => None,
        Some(time_ms) => Some(time_ms),
        None => partition
            .ask(move |inspector, source| inspector.first_time_from(source, cursor.next_offset))
            .await
            .inspect_err(
                |error| tracing::warn!(source = %partition.source, %error, "reading the oldest unsettled record"),
            )
            .unwrap_or(None),
    };
    let age_ms = oldest_ms.map_or(0, |oldest_ms| worker_time_ms() - oldest_ms);
    partition.show_lag(lag, Duration::from_millis(u64::try_from(age_ms).unwrap_or(0)));
    Ok(())
}

/// The clock first, then the log's end: all that was in the log at that time
/// lies below it.
async fn prove_log_time(partition: &Partition, cursor: Cursor) -> Result<i64, AskError> {
    let database_time_ms = partition.worker.store.horizon().await?.database_time_ms;
    let idle = partition.idle_since_last_look(cursor);
    let end_offset =
        partition.ask(move |inspector, source| end_offset(inspector, source, cursor.next_offset, idle)).await?;
    partition.looked(Look { database_time_ms, end_offset });
    Ok(end_offset)
}

/// The log's end; the cursor itself, if only transaction markers follow it: they
/// are never settled.
fn end_offset(
    inspector: &Inspector,
    source: &TopicPartition,
    next_offset: i64,
    idle: bool,
) -> Result<i64, InspectError> {
    let LogEnd { high, .. } = inspector.log_end(source)?;
    let only_markers = idle && high > next_offset && inspector.holds_nothing_from(source, next_offset, high)?;
    Ok(if only_markers { next_offset } else { high })
}
