//! How long commands wait for a live worker while checkpoints of its entities are made, small ones with handlers in
//! Rust.

use std::time::{Duration, Instant};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::latency::{self, Latency};
use super::services::Setting;
use super::trial::{self, Options, Row};
use super::workload::Workload;
use super::{Error, Say, with_services};
use crate::config::Config;
use crate::postgres::CheckpointName;
use crate::postgres::{CheckpointError, NewCheckpoint, Store};

/// What its checkpoints are called.
pub(super) const NAME: &str = "bench";

/// What is measured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Its accounts are there before, unknown to the worker.
    pub(crate) workload: Workload,
    pub(crate) partitions: i32,
    /// Commands per second.
    pub(crate) pace: u32,
    /// How long that is measured: alone, then beside checkpoints.
    pub(crate) length: Duration,
    /// How long the pace is kept up before, each time.
    pub(crate) warm_up: Duration,
}

/// What it came to.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) machine: Setting,
    pub(crate) accounts: u64,
    pub(crate) partitions: i32,
    pub(crate) alone: Latency,
    /// While one checkpoint after the other is made.
    pub(crate) beside: Latency,
    /// How long each took that was complete, in order; then it is dropped, which is part of the waits, too.
    pub(crate) checkpoint_seconds: Vec<f64>,
    /// The size of the last of them.
    pub(crate) checkpoint_bytes: Option<i64>,
    /// What is wrong with the books: then the numbers count for nothing.
    pub(crate) void: Option<String>,
}

/// Measures. Whatever was made is gone when this returns.
pub(crate) async fn measure(
    config: &Config,
    plan: &Plan,
    shutdown: &CancellationToken,
    say: Say<'_>,
) -> Result<Measured, Error> {
    with_services(config, shutdown, say, async |services| {
        say(format!("making {} accounts", plan.workload.accounts));
        let paces = latency::Plan {
            row: Row::Rust,
            rates: vec![plan.pace; 2],
            length: plan.length,
            warm_up: plan.warm_up,
            workload: plan.workload,
            cold: true,
            partitions: plan.partitions,
        };
        let options = Options { accounts_exist: true, ..Options::default() };
        let log = (paces.whole(services), plan.partitions);
        trial::on_an_empty_log(services, log, (Row::Rust, options), async |trial| {
            let mut run = latency::Run::begin(services, trial, &paces, say).await?;
            run.warm_up().await?;
            let alone = run.paced(plan.pace).await?;
            let store = Store::new(&trial.config().database, "solewriter bench")?;
            let (stop, mut made) = (CancellationToken::new(), Made::default());
            let beside = {
                let mut making = std::pin::pin!(made.one_after_the_other(&store, &stop));
                let beside = tokio::select! {
                    // it goes on until it is told to stop, or fails
                    ended = &mut making => return Err(ended.err().map_or(Error::Stopped, Error::from)),
                    beside = run.paced(plan.pace) => beside?,
                };
                say("stopping the last checkpoint".to_owned());
                stop.cancel();
                making.await?;
                beside
            };
            store.close().await;
            let (void, _) = run.end().await?;
            let none =
                made.seconds.is_empty().then(|| "no checkpoint was complete before the end: take longer".to_owned());
            Ok(Measured {
                machine: services.setting.clone(),
                accounts: plan.workload.accounts,
                partitions: plan.partitions,
                alone,
                beside,
                checkpoint_seconds: made.seconds,
                checkpoint_bytes: made.bytes,
                void: void.or(none),
            })
        })
        .await
    })
    .await
}

/// Checkpoints that were complete.
#[derive(Default)]
struct Made {
    seconds: Vec<f64>,
    bytes: Option<i64>,
}

impl Made {
    async fn one_after_the_other(&mut self, store: &Store, stop: &CancellationToken) -> Result<(), CheckpointError> {
        let name: CheckpointName = NAME.parse().expect("a name");
        let (actor, reason) = ("solewriter bench", "to be measured");
        let new = NewCheckpoint { name: &name, actor, reason, written: Vec::new(), read: Vec::new() };
        loop {
            let began = Instant::now();
            match store.create_checkpoint(&new, stop).await {
                Ok(row) => {
                    self.seconds.push(began.elapsed().as_secs_f64());
                    self.bytes = Some(row.size_bytes);
                }
                Err(CheckpointError::Stopped(_)) => return Ok(()),
                Err(error) => return Err(error),
            }
            store.drop_checkpoint(&name, actor, reason).await?;
            if stop.is_cancelled() {
                return Ok(());
            }
        }
    }
}
