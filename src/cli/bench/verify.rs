//! `bench verify`: how fast a log is run again, and what that costs a live worker.

use std::num::NonZeroU32;
use std::time::Duration;

use super::super::exit::Exit;
use super::super::output::{Output, drawn, table};
use super::{Handlers, machine, shutdown, workload};
use crate::bench::report::of_rounds;
use crate::bench::verify::{self, Beside, Measured, Plan, Verifying};
use crate::config::Config;

/// How fast replay verify runs a log again, and what that costs a live worker
///
/// In rounds: a worker settles a log as fast as it can, and a verification runs it again and compares everything. Then
/// the waits of commands at a pace, alone and while verifications of all that was settled go on beside the worker. The
/// books are balanced; the exit code is 3 if they are wrong or a verification finds a difference.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  solewriter bench verify --commands 1000000 --rounds 3")]
pub(in super::super) struct Args {
    /// Commands that are settled, and run again
    #[arg(long, value_name = "NUMBER", default_value_t = 400_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    commands: u64,
    /// How often
    #[arg(long, value_name = "NUMBER", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Partitions of the command topic
    #[arg(long, value_name = "NUMBER", default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..=1_000))]
    partitions: i32,
    /// Commands per second for the live worker
    #[arg(long, value_name = "NUMBER", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pace: u32,
    /// How long the waits are measured, each time
    #[arg(long = "for", value_name = "DURATION", default_value = "20s", value_parser = humantime::parse_duration)]
    length: Duration,
    /// Records per second that a verification beside the worker reads at most, one limit after the other
    #[arg(long, value_name = "RECORDS,…", value_delimiter = ',', default_value = "2000,10000")]
    rate: Vec<NonZeroU32>,
    /// What the commands are written in
    #[arg(long, value_enum, default_value_t)]
    handlers: Handlers,
}

/// How long the pace is kept up before the waits count.
const WARM_UP: Duration = Duration::from_secs(3);

pub(super) async fn run(args: Args, output: Output, config: Config) -> anyhow::Result<Exit> {
    let plan = Plan {
        row: args.handlers.into(),
        workload: workload(args.commands)?,
        partitions: args.partitions,
        rounds: args.rounds.into(),
        pace: args.pace,
        length: args.length,
        warm_up: WARM_UP,
        rates: args.rate,
    };
    let measured = verify::measure(&config, &plan, &shutdown()?, &|event| eprintln!("{event}")).await?;
    output.print(&measured, shown)?;
    Ok(if measured.void.is_some() { Exit::Difference } else { Exit::Done })
}

fn shown(measured: &Measured) -> String {
    let mut rates = table(&["commands/s", "median", "min", "max", "x live"]);
    let of = [
        ("live worker", measured.live_per_second, 1.0),
        ("run again", measured.verified_per_second, measured.verified_to_live),
    ];
    for (name, spread, ratio) in of {
        let figures = [spread.median, spread.min, spread.max].map(|rate| format!("{rate:.0}"));
        rates.add_row([name.to_owned()].into_iter().chain(figures).chain([format!("{ratio:.2}")]));
    }
    let mut waits = table(&["beside the worker", "records/s", "durable p50 ms", "p99", "outcome p50 ms", "p99"]);
    for Beside { verifying, records_per_second, latency } in &measured.beside {
        let name = match verifying {
            Verifying::Not => "nothing".to_owned(),
            Verifying::AtMost(rate) => format!("verify --rate {rate}"),
            Verifying::Unlimited => "verify".to_owned(),
        };
        let (durable, outcome) = (&latency.durable_ms, &latency.outcome_ms);
        let figures = [durable.p50, durable.p99, outcome.p50, outcome.p99].map(|ms| format!("{ms:.1}"));
        waits.add_row([name, format!("{records_per_second:.0}")].into_iter().chain(figures));
    }
    let void = measured.void.as_ref().map_or_else(String::new, |void| format!("VOID: {void}\n"));
    format!(
        "{}\n{}{void}\nHandlers: {}; {} commands on {} partitions, {}. Waits at {} commands/s, from when each was due\n{}",
        drawn(&rates),
        drawn(&waits),
        measured.handlers.name(),
        measured.commands,
        measured.partitions,
        of_rounds(measured.rounds),
        measured.pace,
        machine(&measured.machine),
    )
}
