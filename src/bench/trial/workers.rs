//! The processes of a trial: started, looked after and ended.

use std::collections::{HashMap, HashSet};
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;
use sqlx::Connection as _;

use super::super::cost::Pid;
use super::super::{Error, bank};
use super::{PATIENCE, Row, Trial};
use crate::local::itself::{Copy, Itself};

/// How long a worker may take to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

impl Trial<'_> {
    /// This program once more: `run` with commands in SQL, and the hidden part of `bench` otherwise.
    pub(crate) fn start_worker(&self) -> Result<Itself, Error> {
        self.start_worker_that_logs("warn,librdkafka=off")
    }

    /// The same, with what `RUST_LOG` says in its log.
    pub(crate) fn start_worker_that_logs(&self, log_directives: &str) -> Result<Itself, Error> {
        let row = self.row.name();
        let (arguments, files): (&[&str], &[_]) = match self.row {
            Row::Sql => (&["run"], &bank::IN_SQL),
            _ => (&["bench", "--as-worker", row], &[]),
        };
        let (config, database_url) = (self.config.clone(), self.services.database_url());
        let copy = Copy { purpose: "bench", arguments, config, files, database_url, log_directives };
        Itself::start(copy).map_err(Error::io("start a worker"))
    }

    /// An error if one has ended, or if all have been waited for in vain.
    pub(crate) fn look_after(&self, workers: &mut [Itself], in_vain: bool) -> Result<(), Error> {
        for worker in workers {
            let ended = worker.guarded.exit_status().map_err(Error::io("look after a worker"))?;
            if ended.is_some() || in_vain {
                let why = ended.map_or_else(
                    || format!("settled nothing for {PATIENCE:?}"),
                    |status| format!("ended with {status}"),
                );
                return Err(Error::Row { row: self.row.name(), why, log: worker.log_text() });
            }
        }
        Ok(())
    }

    /// Which process owns which partition, as far as they are claimed.
    pub(crate) async fn owners(&self) -> Result<HashMap<i32, Pid>, Error> {
        let mut connection = self.services.connection().await?;
        let rows: Vec<(i32, String)> =
            sqlx::query_as("select partition, owner from partitions").fetch_all(&mut connection).await?;
        connection.close().await?;
        // host:process:random
        let process = |owner: &str| owner.rsplit(':').nth(1)?.parse().ok();
        Ok(rows.into_iter().filter_map(|(partition, owner)| Some((partition, process(&owner)?))).collect())
    }

    /// How many processes own a partition.
    pub(super) async fn owning(&self) -> Result<usize, Error> {
        Ok(self.owners().await?.into_values().collect::<HashSet<Pid>>().len())
    }
}

/// Ends a worker in order.
pub(crate) fn stop(worker: &mut Itself) -> Result<ExitStatus, Error> {
    worker.guarded.signal(Signal::TERM).map_err(Error::io("stop a worker"))?;
    wait_for_end(worker)
}

/// Waits for a worker that was told to end, or killed.
pub(crate) fn wait_for_end(worker: &mut Itself) -> Result<ExitStatus, Error> {
    let ended =
        tokio::task::block_in_place(|| worker.guarded.wait(STOP_TIMEOUT)).map_err(Error::io("wait for a worker"))?;
    match ended {
        Some(status) => Ok(status),
        None => Err(Error::Row {
            row: "worker",
            why: format!("did not end within {STOP_TIMEOUT:?}"),
            log: worker.log_text(),
        }),
    }
}
