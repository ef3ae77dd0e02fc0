//! `bench`: what this machine could do at best, what people write, and what solewriter does, in one
//! run, as ratios.
//!
//! Rows are measured in rounds, one after the other and again, so that a noisy machine treats all
//! alike. Each row has a log that stands complete, tables of its own and, where it settles commands,
//! processes of its own; its clock runs while the outcomes on the outcomes topic go from a tenth to nine
//! tenths of the commands, as seen from outside. Then its books are balanced against an oracle.
//! Everything that is made carries this run's name and goes at its end. What a kill -9 of this program
//! leaves on a Kafka that is not its own are topics and groups whose names begin with `solewriter-bench-`.

mod backlog;
mod bank;
mod books;
pub(crate) mod chart;
pub(crate) mod checkpoint;
mod cost;
pub(crate) mod latency;
mod outcomes;
mod paced;
mod prefill;
pub(crate) mod report;
mod rows;
pub(crate) mod services;
pub(crate) mod sweep;
pub(crate) mod take_over;
mod trial;
pub(crate) mod verify;
pub(crate) mod workload;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio_util::sync::CancellationToken;

use self::backlog::Backlog;
use self::report::{Table, TableRow};
use self::services::Services;
pub(crate) use self::trial::Row;
use self::trial::{Measured, Options};
use self::workload::Workload;
use crate::config::{self, Config};
use crate::declared::DeclaredError;
use crate::replay::ReplayError;
use crate::{local, postgres};

/// The end of a log that an error shows: lines.
const LOG_LINES_SHOWN: usize = 20;

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the configuration cannot be used")]
    Config(#[from] config::Error),
    #[error("the database's address cannot be used")]
    Url(#[from] config::DatabaseUrlError),
    #[error("there is no way to the database")]
    Connect(#[from] postgres::ConnectError),
    #[error("the database refuses")]
    Database(#[from] sqlx::Error),
    #[error("the database refuses")]
    Store(#[from] postgres::Error),
    #[error("the schema was not made")]
    Migrate(#[from] postgres::MigrateError),
    #[error("{0}")]
    Declared(#[from] DeclaredError),
    #[error("no private Postgres")]
    Postgres(#[from] local::postgres::Error),
    #[error("no private Kafka")]
    Broker(#[from] local::kafka::Error),
    #[error("Kafka does not answer as it should")]
    Kafka(#[from] KafkaError),
    #[error("Kafka does not {doing} topic {topic}: {code}")]
    Topic { doing: &'static str, topic: String, code: RDKafkaErrorCode },
    #[error("Kafka does not delete consumer group {group}: {code}")]
    Group { group: String, code: RDKafkaErrorCode },
    #[error("{delivered} of {commands} commands are on their topic")]
    NotDelivered { delivered: u64, commands: u64 },
    #[error("waited in vain for {0}")]
    Silent(String),
    #[error("{commands} commands were settled before each of {workers} workers owned a partition: take more")]
    TooFew { workers: usize, commands: u64 },
    #[error("somebody has set this machine's clock by {by_us} µs meanwhile: measure again")]
    ClockSet { by_us: u64 },
    #[error(transparent)]
    Chart(#[from] chart::ChartError),
    #[error("there are no rows to copy: the row rust writes them")]
    NoRows,
    #[error("{row} {why}; the end of its log:\n{}", end_of(log))]
    Row { row: &'static str, why: String, log: String },
    #[error("could not {doing}: {source}")]
    Io { doing: &'static str, source: std::io::Error },
    #[error("the log could not be run again")]
    Verify(#[from] ReplayError),
    #[error("a checkpoint could not be made")]
    Checkpoint(#[from] postgres::CheckpointError),
    #[error("run again beside a worker, the log gives something else:\n{0}")]
    Different(String),
    #[error("stopped")]
    Stopped,
}

impl Error {
    fn io(doing: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}

fn end_of(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
}

/// What a table is measured with.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Shown in the order of [`Row::ALL`].
    pub(crate) rows: Vec<Row>,
    /// What the quick rows settle.
    pub(crate) workload: Workload,
    /// How many of its commands the row with a transaction per command settles.
    pub(crate) commands_one_by_one: u64,
    pub(crate) partitions: i32,
    /// At least one round, then so many, unless that takes longer than `rounds_for`.
    pub(crate) rounds_max: usize,
    pub(crate) rounds_for: Duration,
    pub(crate) commits_for: Duration,
}

/// What is being done, for whoever waits.
pub(crate) type Say<'a> = &'a (dyn Fn(String) + Sync);

/// Measures the table. Whatever was made is gone when this returns.
pub(crate) async fn table(
    config: &Config,
    plan: &Plan,
    shutdown: &CancellationToken,
    say: Say<'_>,
) -> Result<Table, Error> {
    with_services(config, shutdown, say, async |services| rounds(services, plan, say).await).await
}

/// Starts or finds Kafka and Postgres, measures, and leaves nothing behind, also if it is stopped.
async fn with_services<T>(
    config: &Config,
    shutdown: &CancellationToken,
    say: Say<'_>,
    measure: impl AsyncFnOnce(&Services) -> Result<T, Error>,
) -> Result<T, Error> {
    say("starting Kafka and Postgres".to_owned());
    let services = Services::start(config).await?;
    let measured = shutdown.run_until_cancelled(measure(&services)).await.unwrap_or(Err(Error::Stopped));
    match (measured, services.stop().await) {
        (measured, Ok(())) => measured,
        (Ok(_), Err(left)) => Err(left),
        (Err(error), Err(left)) => {
            say(format!("not everything that was made is gone: {left}"));
            Err(error)
        }
    }
}

async fn rounds(services: &Services, plan: &Plan, say: Say<'_>) -> Result<Table, Error> {
    say(format!("producing {} commands", plan.workload.commands));
    let whole = Backlog::fill(services, plan.workload, plan.partitions).await?;
    let few = Backlog::fill(services, plan.workload.first(plan.commands_one_by_one), plan.partitions).await?;
    let backlog_of = |row| if row == Row::PerCommand { &few } else { &whole };
    trial::warm_up(services, &whole, say).await?;
    let mut measured: HashMap<Row, Vec<Measured>> = HashMap::new();
    let mut rows_to_copy = None;
    let began = Instant::now();
    let mut rounds = 0;
    while rounds == 0
        || rounds < plan.rounds_max && began.elapsed() * (rounds as u32 + 1) < plan.rounds_for * rounds as u32
    {
        rounds += 1;
        for row in in_order(&plan.rows, rounds) {
            let options = Options { commits_for: plan.commits_for, ..Options::default() };
            let trial = trial::measure(services, row, backlog_of(row), options, &mut rows_to_copy).await?;
            let rate = trial.commands_per_second;
            say(format!("round {rounds}: {} {rate:.0}/s", row.name()));
            measured.entry(row).or_default().push(trial);
        }
    }
    let rows = Row::ALL.into_iter().filter_map(|row| {
        let commands = (row != Row::Commit).then_some(backlog_of(row).workload.commands);
        TableRow::of(row, commands, measured.get(&row)?)
    });
    let mut rows: Vec<TableRow> = rows.collect();
    report::relate(&mut rows);
    whole.drop(services).await?;
    few.drop(services).await?;
    Ok(Table { machine: services.setting.clone(), workload: plan.workload, partitions: plan.partitions, rounds, rows })
}

/// Each round begins with another row, so that none always follows the same one. In the first round
/// `rust` stands before `copy`, which copies what that has written.
fn in_order(rows: &[Row], round: usize) -> Vec<Row> {
    let mut rows = rows.to_vec();
    match round {
        1 => rows.sort_by_key(|row| (*row != Row::Rust, *row == Row::Copy)),
        _ => {
            let first = (round - 1) % rows.len();
            rows.rotate_left(first);
        }
    }
    rows
}

/// What the process of a row that settles commands does, until it is killed.
pub(crate) async fn as_worker(row: Row, config: Config) -> Result<(), Error> {
    match row {
        Row::PerCommand => rows::per_command::run(&config).await,
        _ => rows::per_poll::run(&config).await,
    }
}

/// The worker of the row `rust`.
pub(crate) fn worker_in_rust() -> crate::worker::Worker {
    bank::in_rust()
}
