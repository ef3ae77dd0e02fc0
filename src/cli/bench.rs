//! `bench`: the table of rates and costs; below it, latencies, take-overs and sweeps.

mod checkpoint;
mod latency;
mod sweep;
mod take_over;
mod verify;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::exit::{Exit, Problem};
use super::output::{Output, drawn, table};
use super::{run, signals};
use crate::bench::chart::Chart;
use crate::bench::report::{CpuSpread, Figures, Spread, Table, TableRow, of_rounds};
use crate::bench::services::Setting;
use crate::bench::workload::{self, Ids, Workload};
use crate::bench::{self, Plan, Row};
use crate::config::Config;
use crate::telemetry::Health;

/// This machine's limits, what people write, and the worker's rate beside them, in one run
///
/// On the configured Kafka and Postgres, in topics and schemas of its own that go at the end; where
/// one is not configured, on a private one (`./dev bench` fetches Kafka). Rows, in rounds: consume
/// (read and parse the records, do nothing), copy (COPY of the rows that solewriter writes, four
/// connections), commit (commits of one row, eight connections), per-command (the consumer that
/// everybody writes first: a transaction per command), per-poll (the one that a careful team writes:
/// a transaction per poll, set-based), rust and sql (solewriter). After each the books are balanced;
/// a wrong book voids the row, and the exit code is 3.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  solewriter bench --quick
  solewriter bench sweep rows --prefill 0,1M,10M --svg rows.svg
  DATABASE_URL=postgres://localhost/app KAFKA_BOOTSTRAP_SERVERS=localhost:9092 solewriter bench -o json"
)]
pub(super) struct Args {
    #[command(subcommand)]
    part: Option<Part>,
    /// Fewer commands and rounds: at most two minutes
    #[arg(long)]
    quick: bool,
    /// Only these rows; copy needs rust
    #[arg(long, value_enum, value_delimiter = ',', value_name = "ROW,…")]
    rows: Vec<Row>,
    /// Records that each row settles; per-command settles the first hundredth of them [default:
    /// 1000000, with --quick 200000]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1_000..))]
    commands: Option<u64>,
    /// Rounds at most [default: 5, with --quick 3]
    #[arg(long, value_name = "NUMBER")]
    rounds: Option<usize>,
    /// Partitions of the command topic
    #[arg(long, value_name = "NUMBER", default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..=1_000))]
    partitions: i32,
    /// For the processes that settle commands
    #[arg(long, hide = true, value_enum)]
    as_worker: Option<Row>,
}

impl Args {
    /// This process settles commands for another one, which measures it.
    pub(super) fn is_worker(&self) -> bool {
        self.as_worker.is_some()
    }
}

#[derive(Debug, clap::Subcommand)]
enum Part {
    Sweep(sweep::Args),
    Latency(latency::Args),
    TakeOver(take_over::Args),
    Verify(verify::Args),
    Checkpoint(checkpoint::Args),
}

/// Quick is quick also on a slow machine: no round begins that would end later.
const QUICK: Duration = Duration::from_secs(75);
const AT_LENGTH: Duration = Duration::from_hours(1);

pub(super) async fn run(args: Args, output: Output, config: Config) -> anyhow::Result<Exit> {
    match args.as_worker {
        Some(Row::Rust) => return run::run(bench::worker_in_rust(), config).await,
        Some(row) => {
            bench::as_worker(row, config).await?;
            return Ok(Exit::Done);
        }
        None => {}
    }
    match args.part {
        Some(Part::Sweep(args)) => return sweep::run(&args, output, &config).await,
        Some(Part::Latency(args)) => return latency::run(args, output, config).await,
        Some(Part::TakeOver(args)) => return take_over::run(args, output, config).await,
        Some(Part::Checkpoint(args)) => return checkpoint::run(args, output, config).await,
        Some(Part::Verify(args)) => return verify::run(args, output, config).await,
        None => {}
    }
    let plan = plan(&args)?;
    let measured = bench::table(&config, &plan, &shutdown()?, &|event| eprintln!("{event}")).await?;
    output.print(&measured, shown)?;
    Ok(if measured.rows.iter().any(|row| row.figures.void.is_some()) { Exit::Difference } else { Exit::Done })
}

/// What the worker's commands are written in.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Handlers {
    /// Handlers in Rust
    #[default]
    Rust,
    /// Commands in SQL
    Sql,
}

impl From<Handlers> for Row {
    fn from(handlers: Handlers) -> Self {
        match handlers {
            Handlers::Rust => Self::Rust,
            Handlers::Sql => Self::Sql,
        }
    }
}

/// Draws a picture, if one is asked for.
fn draw(chart: &Chart, file: Option<&Path>) -> anyhow::Result<()> {
    match file {
        Some(file) => fs::write(file, chart.svg()?).with_context(|| format!("could not write {}", file.display())),
        None => Ok(()),
    }
}

/// Cancelled by SIGTERM and SIGINT.
fn shutdown() -> anyhow::Result<CancellationToken> {
    let shutdown = CancellationToken::new();
    signals::stop_on_signal(shutdown.clone(), Arc::new(Health::new()))?;
    Ok(shutdown)
}

fn plan(args: &Args) -> anyhow::Result<Plan> {
    let rows = if args.rows.is_empty() { Row::ALL.to_vec() } else { args.rows.clone() };
    if rows.contains(&Row::Copy) && !rows.contains(&Row::Rust) {
        return Err(Problem::usage("the row copy copies what the row rust has written: name both").into());
    }
    let commands = args.commands.unwrap_or(if args.quick { 200_000 } else { 1_000_000 });
    let (rounds, rounds_for, commits) = if args.quick { (3, QUICK, 1) } else { (5, AT_LENGTH, 4) };
    Ok(Plan {
        rows,
        workload: workload(commands)?,
        commands_one_by_one: commands / 100,
        partitions: args.partitions,
        rounds_max: args.rounds.unwrap_or(rounds),
        rounds_for,
        commits_for: Duration::from_secs(commits),
    })
}

/// That of the table: ten thousand accounts, 100 bytes of data, no repeats.
fn workload(commands: u64) -> anyhow::Result<Workload> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
    Ok(Workload {
        commands,
        accounts: 10_000,
        spread: workload::Spread::Even,
        payload_bytes: 100,
        ids: Ids::V7,
        repeats_percent: 0,
        began_ms: noon_before(u64::try_from(now.as_millis())?),
    })
}

/// Noon of yesterday, UTC: how many earlier rows share the day of the workload's ids must not depend on
/// the hour at which it is measured.
fn noon_before(now_ms: u64) -> u64 {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    (now_ms / DAY_MS * DAY_MS).saturating_sub(DAY_MS / 2)
}

fn shown(measured: &Table) -> String {
    let mut rows = table(&[&["row"][..], &RATES, &["x per-command", "of copy"], &COSTS].concat());
    for row in &measured.rows {
        rows.add_row(cells(row));
    }
    let voids =
        measured.rows.iter().filter_map(|row| Some(format!("{}: VOID, {}\n", row.name, row.figures.void.as_ref()?)));
    format!(
        "{}{}\n{UNITS}\n{} commands of {} bytes, {} accounts, {} partitions, {}\n{}",
        drawn(&rows),
        voids.collect::<String>(),
        measured.workload.commands,
        measured.workload.payload_bytes,
        measured.workload.accounts,
        measured.partitions,
        of_rounds(measured.rounds),
        machine(&measured.machine),
    )
}

const UNITS: &str =
    "s: how long the clock ran, at least. CPU: seconds per 100,000 commands. WAL, xids, disk: per command.";

/// A line about where it was measured.
fn machine(machine: &Setting) -> String {
    let postgres: Vec<String> = machine.postgres.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let memory = machine.memory_bytes.map_or_else(String::new, |bytes| format!(", {} GiB", bytes >> 30));
    format!(
        "{}, {} cores{memory}, {}; Kafka {}, librdkafka {}; Postgres {}: {}\n",
        machine.cpu,
        machine.cores,
        machine.system,
        machine.kafka,
        machine.librdkafka,
        machine.database,
        postgres.join(", "),
    )
}

fn cells(row: &TableRow) -> Vec<String> {
    let mut cells = vec![row.name.to_owned()];
    if row.figures.void.is_some() {
        cells.push("VOID".to_owned());
        return cells;
    }
    cells.extend(rates(&row.figures));
    cells.push(row.ratio_to_per_command.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.1}")));
    cells.push(row.share_of_copy.map_or_else(|| "-".to_owned(), |share| format!("{share:.2}")));
    cells.extend(costs(&row.figures));
    cells
}

const RATES: [&str; 4] = ["commands/s", "min", "max", "s"];

/// The median, the least and the most, and how long the clock ran in the shortest round.
fn rates(figures: &Figures) -> [String; 4] {
    let Spread { median, min, max } = figures.commands_per_second;
    [format!("{median:.0}"), format!("{min:.0}"), format!("{max:.0}"), format!("{:.1}", figures.seconds.min)]
}

const COSTS: [&str; 7] = ["CPU worker", "Postgres", "broker", "WAL B", "xids", "disk B", "memory MB"];

/// CPU of worker, Postgres and broker, WAL, transaction ids, disk and memory: medians.
fn costs(figures: &Figures) -> [String; 7] {
    let median = |spread: Option<Spread>, digits: usize| match spread {
        Some(spread) => format!("{:.digits$}", spread.median),
        None => "-".to_owned(),
    };
    let CpuSpread { worker, postgres, broker } = figures.cpu_seconds_per_100k;
    [
        median(worker, 2),
        median(postgres, 2),
        median(broker, 2),
        format!("{:.0}", figures.wal_bytes_per_command.median),
        format!("{:.4}", figures.transaction_ids_per_command.median),
        median(figures.disk_bytes_per_command, 0),
        figures.memory_bytes_max.map_or_else(|| "-".to_owned(), |bytes| format!("{:.0}", bytes.median / 1e6)),
    ]
}
