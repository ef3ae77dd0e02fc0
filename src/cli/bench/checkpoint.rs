//! `bench checkpoint`: what a checkpoint costs a live worker.

use std::time::Duration;

use super::super::exit::Exit;
use super::super::output::{Output, drawn, table};
use super::{machine, shutdown, workload};
use crate::bench::checkpoint::{self, Measured, Plan};
use crate::bench::workload::Workload;
use crate::config::Config;

/// How long commands wait while a checkpoint is made
///
/// The accounts are there before, small states of handlers in Rust. Commands come at a pace, first alone, then while one
/// checkpoint after the other is made and dropped: each holds a snapshot as long as it copies. The books are balanced;
/// the exit code is 3 if they are wrong or no checkpoint was complete.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  solewriter bench checkpoint --accounts 10000000 --for 60s")]
pub(in super::super) struct Args {
    /// How many accounts there are
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    accounts: u64,
    /// Commands per second
    #[arg(long, value_name = "NUMBER", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pace: u32,
    /// How long the waits are measured, each time
    #[arg(long = "for", value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    length: Duration,
    /// Partitions of the command topic
    #[arg(long, value_name = "NUMBER", default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..=1_000))]
    partitions: i32,
}

/// How long the pace is kept up before the waits count.
const WARM_UP: Duration = Duration::from_secs(3);

pub(super) async fn run(args: Args, output: Output, config: Config) -> anyhow::Result<Exit> {
    let plan = Plan {
        // how many commands there are, the pace says
        workload: Workload { accounts: args.accounts, ..workload(0)? },
        partitions: args.partitions,
        pace: args.pace,
        length: args.length,
        warm_up: WARM_UP,
    };
    let measured = checkpoint::measure(&config, &plan, &shutdown()?, &|event| eprintln!("{event}")).await?;
    output.print(&measured, shown)?;
    Ok(if measured.void.is_some() { Exit::Difference } else { Exit::Done })
}

fn shown(measured: &Measured) -> String {
    let mut waits = table(&["ms", "durable p50", "p99", "max", "outcome p50", "p99", "max"]);
    for (name, latency) in [("alone", &measured.alone), ("beside checkpoints", &measured.beside)] {
        let figures = [&latency.durable_ms, &latency.outcome_ms].map(|of| [of.p50, of.p99, of.max]);
        let figures = figures.as_flattened().iter().map(|ms| format!("{ms:.1}"));
        waits.add_row([name.to_owned()].into_iter().chain(figures));
    }
    let seconds = measured.checkpoint_seconds.iter().map(|seconds| format!("{seconds:.1}")).collect::<Vec<_>>();
    let size = measured.checkpoint_bytes.map_or_else(String::new, |bytes| format!(" of {:.0} MB", bytes as f64 / 1e6));
    let void = measured.void.as_ref().map_or_else(String::new, |void| format!("VOID: {void}\n"));
    format!(
        "{}{void}\n{} complete checkpoints{size}, seconds each: {}\n\
         {} accounts that the worker had not seen, {} partitions, {} commands/s\n{}",
        drawn(&waits),
        seconds.len(),
        if seconds.is_empty() { "-".to_owned() } else { seconds.join(", ") },
        measured.accounts,
        measured.partitions,
        measured.alone.commands_per_second,
        machine(&measured.machine),
    )
}
