//! `bench latency`: how long commands wait.

use std::path::PathBuf;
use std::time::Duration;

use super::super::exit::Exit;
use super::super::output::Output;
use super::{Handlers, draw, machine, shutdown, workload};
use crate::bench::latency::{self, Latency, Measured, Plan};
use crate::bench::workload::Workload;
use crate::config::Config;

/// How long commands wait until they are durable, and until their outcome has arrived
///
/// At paces that do not slip: a command that cannot be sent in time waits from when it was due. Durable
/// is known from the log of the worker, a process of its own (to the microsecond, after the commit's
/// answer); the outcome from a reader of the outcomes topic. At the end the books are balanced; the exit
/// code is 3 if they are wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  solewriter bench latency --rate 1000 --for 60s --svg latency.svg
  solewriter bench latency --cold --rate 1000")]
pub(in super::super) struct Args {
    /// Commands per second, one pace after the other
    #[arg(long, value_name = "NUMBER,…", value_delimiter = ',', default_value = "100,1000,5000", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: Vec<u32>,
    /// How long each pace is measured
    #[arg(long = "for", value_name = "DURATION", default_value = "20s", value_parser = humantime::parse_duration)]
    length: Duration,
    /// How long each pace is kept up before
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = humantime::parse_duration)]
    warm_up: Duration,
    /// How many accounts the commands are spread over [default: 10000, with --cold 10000000]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    accounts: Option<u64>,
    /// Accounts that have been there for long, and that the worker has not seen
    #[arg(long)]
    cold: bool,
    /// What the commands are written in
    #[arg(long, value_enum, default_value_t)]
    handlers: Handlers,
    /// Partitions of the command topic
    #[arg(long, value_name = "NUMBER", default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..=1_000))]
    partitions: i32,
    /// Draws the percentiles into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

pub(super) async fn run(args: Args, output: Output, config: Config) -> anyhow::Result<Exit> {
    let plan = plan(&args)?;
    let measured = latency::measure(&config, &plan, &shutdown()?, &|event| eprintln!("{event}")).await?;
    draw(&measured.chart(), args.svg.as_deref())?;
    output.print(&measured, shown)?;
    Ok(if measured.void.is_some() { Exit::Difference } else { Exit::Done })
}

fn plan(args: &Args) -> anyhow::Result<Plan> {
    let accounts = args.accounts.unwrap_or(if args.cold { 10_000_000 } else { 10_000 });
    Ok(Plan {
        row: args.handlers.into(),
        rates: args.rate.clone(),
        length: args.length,
        warm_up: args.warm_up,
        // how many commands there are, the paces say
        workload: Workload { accounts, ..workload(0)? },
        cold: args.cold,
        partitions: args.partitions,
    })
}

fn shown(measured: &Measured) -> String {
    let paces: String = measured.latencies.iter().map(pace).collect();
    let void = measured.void.as_ref().map_or_else(String::new, |void| format!("VOID: {void}\n\n"));
    let cold = if measured.cold { " that the worker had not seen" } else { "" };
    let megabytes = |bytes: Option<u64>| {
        bytes.map_or_else(|| "unknown".to_owned(), |bytes| format!("{:.1} MB", bytes as f64 / 1e6))
    };
    format!(
        "{paces}{void}Waits count from when a command was due. Bars: each ten times is {BAR_PER_DECADE} longer.\n\
         Handlers: {}; {} accounts{cold}, {} partitions\n\
         Memory of the worker: idle {}, at most {}\n{}",
        measured.handlers.name(),
        measured.accounts,
        measured.partitions,
        megabytes(measured.idle_memory_bytes),
        megabytes(measured.memory_bytes_max),
        machine(&measured.machine),
    )
}

/// The shortest wait that has a bar.
const BAR_FROM_MS: f64 = 0.1;
const BAR_PER_DECADE: f64 = 6.0;
/// Two of them, with what stands beside them, fit into 80 columns.
const BAR_MAX: f64 = 24.0;

fn pace(latency: &Latency) -> String {
    let Latency { commands_per_second, samples, sent_late, .. } = latency;
    let percentiles = latency.durable_ms.named().zip(latency.outcome_ms.named());
    let lines = percentiles.map(|((name, durable), (_, outcome))| {
        let line = format!("{name:<7}{durable:>9.2} {:<24}  {outcome:>9.2} {}", bar(durable), bar(outcome));
        line.trim_end().to_owned() + "\n"
    });
    format!(
        "{commands_per_second} commands/s: {samples} commands, {sent_late} sent more than 1 ms late\n\
         {:<7}{:>9} {:<24}  {:>9}\n{}\n",
        "ms",
        "durable",
        "",
        "outcome",
        lines.collect::<String>()
    )
}

fn bar(ms: f64) -> String {
    let length = (BAR_PER_DECADE * (ms / BAR_FROM_MS).log10()).round().clamp(0.0, BAR_MAX);
    "▆".repeat(length as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_grows_with_each_ten_times_and_fits() {
        let lengths = [0.0, 0.1, 1.0, 10.0, 1e9].map(|ms| bar(ms).chars().count());
        assert_eq!(lengths, [0, 0, 6, 12, 24]);
    }
}
