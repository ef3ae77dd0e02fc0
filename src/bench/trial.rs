//! One row, once: in tables of its own, on a log that stands, until the last outcome is on its topic.

mod workers;

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use serde::Serialize;
use sqlx::AssertSqlSafe;

pub(super) use self::workers::{stop, wait_for_end};
use super::backlog::Backlog;
use super::cost::{self, Cost, Meters, Pid};
use super::outcomes::{Outcomes, Published};
use super::rows::{commit, consume, copy, per_command, per_poll};
use super::services::{Ends, Services};
use super::workload::Workload;
use super::{Error, Say, bank, books, prefill};
use crate::config::Config;
use crate::declared::Declared;
use crate::local::itself::Itself;
use crate::postgres::Store;

/// How often the harness looks for outcomes.
pub(super) const LOOK: Duration = Duration::from_millis(10);
/// Without one more outcome for so long, a row has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);
/// Without one more record for so long, all of a topic that stands has been read.
const SILENCE: Duration = Duration::from_secs(5);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Row {
    /// Read the records, parse headers and data, and do nothing.
    Consume,
    /// COPY the rows that solewriter writes, over four connections.
    Copy,
    /// Commit one row at a time, over eight connections.
    Commit,
    /// The consumer that everybody writes first: a transaction per command, a task per partition.
    PerCommand,
    /// The consumer that a careful team writes: a transaction per poll, set-based.
    PerPoll,
    /// solewriter with handlers in Rust.
    Rust,
    /// solewriter with commands in SQL.
    Sql,
}

impl Row {
    /// All of them, in the order in which they are shown.
    pub(crate) const ALL: [Self; 7] =
        [Self::Consume, Self::Copy, Self::Commit, Self::PerCommand, Self::PerPoll, Self::Rust, Self::Sql];

    /// What it is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Consume => "consume",
            Self::Copy => "copy",
            Self::Commit => "commit",
            Self::PerCommand => "per-command",
            Self::PerPoll => "per-poll",
            Self::Rust => "rust",
            Self::Sql => "sql",
        }
    }

    /// Whether a process of its own settles commands.
    pub(crate) fn is_worker(self) -> bool {
        !matches!(self, Self::Consume | Self::Copy | Self::Commit)
    }

    /// Whether solewriter does it.
    pub(crate) fn is_solewriter(self) -> bool {
        matches!(self, Self::Rust | Self::Sql)
    }
}

/// What may differ from trial to trial, beside the workload.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Options {
    /// Worker processes.
    pub(crate) workers: usize,
    /// `worker.batch_commands_max`, where it is not the configured one.
    pub(crate) batch_commands_max: Option<NonZeroUsize>,
    /// Rows that the idempotency table holds before, with ids like the workload's.
    pub(crate) prefilled_rows: u64,
    /// Whether all accounts of the workload are there before.
    pub(crate) accounts_exist: bool,
    /// What says how far the workers are.
    #[serde(skip)]
    pub(crate) progress: Progress,
    /// How long the row of commits lasts.
    #[serde(skip)]
    pub(crate) commits_for: Duration,
}

/// What says how far workers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The outcomes on their topic.
    Outcomes,
    /// The cursors in the database. When a partition changes hands, its next owner publishes again what
    /// the last one may have published: where several workers share a log, outcomes count too much.
    Cursors,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            workers: 1,
            batch_commands_max: None,
            prefilled_rows: 0,
            accounts_exist: false,
            progress: Progress::Outcomes,
            commits_for: Duration::from_secs(5),
        }
    }
}

/// Measures a row on a log that nothing is on yet. What was made for it is gone when this returns.
pub(super) async fn on_an_empty_log<T>(
    services: &Services,
    (workload, partitions): (Workload, i32),
    (row, options): (Row, Options),
    measure: impl AsyncFnOnce(&Trial<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    services.empty_schemas().await?;
    let backlog = Backlog::empty(services, workload, partitions).await?;
    let trial = Trial::prepare(services, row, &backlog, options).await?;
    let measured = measure(&trial).await?;
    trial.end().await?;
    backlog.drop(services).await?;
    Ok(measured)
}

/// What one trial has shown.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) commands_per_second: f64,
    pub(crate) cost: Cost,
    /// Bytes on disk per command, indexes included.
    pub(crate) disk_bytes: Option<f64>,
    /// How long the clock ran.
    pub(crate) seconds: f64,
    /// The most memory that the workers held, together: bytes.
    pub(crate) memory_bytes_max: Option<u64>,
    /// What is wrong with its books.
    pub(crate) void: Option<String>,
}

/// What a row that this process works itself has done.
pub(super) struct Worked {
    pub(super) commands: u64,
    pub(super) took: Duration,
}

/// The rows of the idempotency table, as COPY takes them; known after the first trial of `rust`.
pub(super) type CopiedRows = Option<copy::Rows>;

/// Measures one row on one backlog.
pub(super) async fn measure(
    services: &Services,
    row: Row,
    backlog: &Backlog,
    options: Options,
    rows: &mut CopiedRows,
) -> Result<Measured, Error> {
    if row.is_worker() {
        let measured = settle(services, row, backlog, options).await?;
        if row == Row::Rust && rows.is_none() {
            *rows = Some(copy::Rows::of(services).await?);
        }
        return Ok(measured);
    }
    services.empty_schemas().await?;
    let store = Store::new(&services.config("none", "copy").database, "solewriter bench")?;
    if row == Row::Copy {
        store.migrate(crate::config::Deduplication::default().window_ms()).await?;
    }
    store.close().await;
    services.checkpoint().await;
    let before = Meters::read(&services.pool, services.parts, &[]).await?;
    let worked = match (row, rows.as_ref()) {
        (Row::Consume, _) => consume::run(services, backlog).await?,
        (Row::Copy, Some(rows)) => copy::run(services, rows).await?,
        (Row::Copy, None) => return Err(Error::NoRows),
        _ => commit::run(services, options.commits_for).await?,
    };
    let after = Meters::read(&services.pool, services.parts, &[]).await?;
    let disk_bytes = cost::disk_bytes(&services.pool, &services.schemas()).await?;
    Ok(Measured {
        commands_per_second: worked.commands as f64 / worked.took.as_secs_f64(),
        seconds: worked.took.as_secs_f64(),
        cost: before.cost(&after, worked.commands),
        disk_bytes: (row != Row::Consume).then(|| disk_bytes as f64 / worked.commands as f64),
        memory_bytes_max: None,
        void: None,
    })
}

/// Lets a broker that has just been started compile what runs often, which takes a third of a core for
/// some seconds. One that is not ours has run before.
pub(super) async fn warm_up(services: &Services, backlog: &Backlog, say: Say<'_>) -> Result<(), Error> {
    if services.has_private_broker() {
        say("warming up the broker".to_owned());
        settle(services, Row::Rust, backlog, Options::default()).await?;
    }
    Ok(())
}

/// Measures one row that settles commands, and leaves its tables behind.
pub(super) async fn settle(
    services: &Services,
    row: Row,
    backlog: &Backlog,
    options: Options,
) -> Result<Measured, Error> {
    services.empty_schemas().await?;
    Trial::prepare(services, row, backlog, options).await?.run().await
}

/// Workers on one log, with topics and tables that go when they are done.
pub(super) struct Trial<'a> {
    services: &'a Services,
    row: Row,
    backlog: &'a Backlog,
    config: Config,
    /// Its outcomes, then its events.
    topics: [String; 2],
    ends: Ends,
    options: Options,
}

impl<'a> Trial<'a> {
    /// Makes topics and tables.
    pub(super) async fn prepare(
        services: &'a Services,
        row: Row,
        backlog: &'a Backlog,
        options: Options,
    ) -> Result<Self, Error> {
        let run = format!("{}-{:06x}", row.name(), fastrand::u32(..1 << 24));
        let mut config = services.config(&backlog.topic, &run);
        if let Some(batch_commands_max) = options.batch_commands_max {
            config.worker.batch_commands_max = batch_commands_max;
        }
        if row == Row::Sql {
            config.commands = vec![bank::COMMANDS.to_owned()];
        }
        let topics: [String; 2] = [config.topics[0].outcomes_topic(), config.topics[0].events_topic()].map(Into::into);
        for topic in &topics {
            services.create_topic(topic, backlog.partitions).await?;
        }
        let ends = Ends::of(services, &topics[0], backlog.partitions)?;
        let trial = Self { services, row, backlog, config, topics, ends, options };
        trial.make_tables().await?;
        services.checkpoint().await;
        Ok(trial)
    }

    async fn make_tables(&self) -> Result<(), Error> {
        match self.row {
            Row::PerCommand => per_command::make_tables(&mut self.services.connection().await?).await,
            Row::PerPoll => per_poll::make_tables(&mut self.services.connection().await?).await,
            _ => {
                let store = Store::new(&self.config.database, "solewriter bench")?;
                store.migrate(self.config.deduplication.window_ms()).await?;
                if self.row == Row::Sql {
                    let declared = bank::declared(&self.config)?;
                    make_functions(&declared, &store).await?;
                }
                store.close().await;
                prefill::processed(self.services, self.workload(), self.options.prefilled_rows).await?;
                match self.options.accounts_exist {
                    true => prefill::accounts(self).await,
                    false => Ok(()),
                }
            }
        }
    }

    async fn run(self) -> Result<Measured, Error> {
        let measured = self.settle().await?;
        self.end().await?;
        Ok(measured)
    }

    /// Starts workers, measures the middle, waits for the last outcome, ends them and balances the
    /// books.
    pub(super) async fn settle(&self) -> Result<Measured, Error> {
        let disk_before = cost::disk_bytes(&self.services.pool, &self.services.schemas()).await?;
        let mut workers = (0..self.options.workers).map(|_| self.start_worker()).collect::<Result<Vec<_>, _>>()?;
        let pids: Vec<Pid> = workers.iter().map(|worker| worker.guarded.id()).collect();
        let commands = self.workload().commands;
        // between the two all is in motion: neither the start counts, nor what was decided before the
        // first outcome was seen, nor the end, when there is nothing behind
        let (first, began) = self.first_settled(commands / 10, &mut workers).await?;
        let before = self.meters(&pids).await?;
        let (last, ended) = self.settled_at_least((commands * 9 / 10).max(first + 1), &mut workers).await?;
        let after = self.meters(&pids).await?;
        self.settled_at_least(commands, &mut workers).await?;
        let memory_bytes_max = pids.iter().map(|pid| cost::memory_bytes_max(*pid)).sum();
        for worker in &mut workers {
            let ended = stop(worker)?;
            if self.row.is_solewriter() && !ended.success() {
                let why = format!("has settled everything and ended with {ended}");
                return Err(Error::Row { row: self.row.name(), why, log: worker.log_text() });
            }
        }
        let settled = last - first;
        let disk_after = cost::disk_bytes(&self.services.pool, &self.services.schemas()).await?;
        let seconds = (ended - began).as_secs_f64();
        let published = self.published().await?;
        let void = match self.options.progress {
            Progress::Outcomes => books::difference(self, &published).await?,
            Progress::Cursors => books::difference_of(self, self.workload(), &published).await?,
        };
        Ok(Measured {
            commands_per_second: settled as f64 / seconds,
            seconds,
            cost: before.cost(&after, settled),
            disk_bytes: Some((disk_after - disk_before) as f64 / commands as f64),
            memory_bytes_max,
            void,
        })
    }

    async fn meters(&self, workers: &[Pid]) -> Result<Meters, Error> {
        Meters::read(&self.services.pool, self.services.parts, workers).await
    }

    /// Waits until all workers settle: the first ones are alone for as long as the group takes to share
    /// its partitions out.
    async fn first_settled(&self, count: u64, workers: &mut [Itself]) -> Result<(u64, Instant), Error> {
        let (mut seen, mut at) = self.settled_at_least(count.max(1), workers).await?;
        while workers.len() > 1 && self.owning().await? < workers.len() {
            if seen >= self.workload().commands {
                return Err(Error::TooFew { workers: workers.len(), commands: seen });
            }
            (seen, at) = self.settled_beyond(seen, workers).await?;
        }
        Ok((seen, at))
    }

    /// Waits for so many in all.
    async fn settled_at_least(&self, wanted: u64, workers: &mut [Itself]) -> Result<(u64, Instant), Error> {
        let mut seen = 0;
        loop {
            let (count, at) = self.settled_beyond(seen, workers).await?;
            if count >= wanted {
                return Ok((count, at));
            }
            seen = count;
        }
    }

    /// Waits for more than have been seen.
    async fn settled_beyond(&self, seen: u64, workers: &mut [Itself]) -> Result<(u64, Instant), Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let count = self.settled().await?;
            let now = Instant::now();
            if count > seen {
                return Ok((count, now));
            }
            self.look_after(workers, now > deadline)?;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// How many records are settled.
    async fn settled(&self) -> Result<u64, Error> {
        match self.options.progress {
            Progress::Outcomes => Ok(tokio::task::block_in_place(|| self.ends.count())?),
            Progress::Cursors => {
                let [schema, _] = self.services.schemas();
                let cursors = format!("select coalesce(sum(next_offset), 0)::bigint from {schema}.partitions");
                let settled: i64 = sqlx::query_scalar(AssertSqlSafe(cursors)).fetch_one(&self.services.pool).await?;
                Ok(settled.unsigned_abs())
            }
        }
    }

    /// All that stands on the outcomes topic after the workers' end, also beyond what was waited for.
    async fn published(&self) -> Result<Published, Error> {
        let records = tokio::task::block_in_place(|| self.ends.count())?;
        let outcomes = Outcomes::follow(self)?;
        let (mut read, mut at) = (0, Instant::now());
        while outcomes.published().records < records && at.elapsed() < SILENCE {
            tokio::time::sleep(LOOK).await;
            let records = outcomes.published().records;
            if records > read {
                (read, at) = (records, Instant::now());
            }
        }
        Ok(outcomes.published())
    }

    /// Drops its topics.
    pub(super) async fn end(self) -> Result<(), Error> {
        self.services.delete_topics(&self.topics.each_ref().map(String::as_str)).await
    }

    /// Of its outcomes.
    pub(super) fn outcomes_topic(&self) -> &str {
        &self.topics[0]
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn backlog(&self) -> &Backlog {
        self.backlog
    }

    pub(super) fn services(&self) -> &Services {
        self.services
    }

    pub(super) fn row(&self) -> Row {
        self.row
    }

    pub(super) fn workload(&self) -> &Workload {
        &self.backlog.workload
    }
}

async fn make_functions(declared: &Declared, store: &Store) -> Result<(), Error> {
    declared.make_tables(store).await?;
    declared.compile(store).await?.make(store).await?;
    Ok(())
}
