//! `bench take-over`: how long partitions are without a writer.

use std::path::PathBuf;

use super::super::exit::Exit;
use super::super::output::{Output, drawn, table};
use super::{draw, machine, shutdown, workload};
use crate::bench::take_over::{self, Measured, Plan};
use crate::config::Config;

/// How long partitions are without a writer when their worker goes
///
/// One of two workers is asked to end (SIGTERM), killed (kill -9) and halted (SIGSTOP) while commands
/// keep coming. Shown is the longest gap between two outcomes of a partition that changed hands, by their
/// timestamps; the time between two commands is part of it. After each time the books are balanced; the
/// exit code is 3 if they are wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  solewriter bench take-over --times 5 --svg take-over.svg")]
pub(in super::super) struct Args {
    /// Commands per second
    #[arg(long, value_name = "NUMBER", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// How often a worker goes in each way
    #[arg(long, value_name = "NUMBER", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    times: u16,
    /// Draws the seconds into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// Of the command topic.
const PARTITIONS: i32 = 8;

pub(super) async fn run(args: Args, output: Output, config: Config) -> anyhow::Result<Exit> {
    let plan = Plan {
        rate: args.rate,
        times: args.times.into(),
        // as many as come until it is over
        workload: workload(0)?,
        partitions: PARTITIONS,
    };
    let measured = take_over::measure(&config, &plan, &shutdown()?, &|event| eprintln!("{event}")).await?;
    draw(&measured.chart(), args.svg.as_deref())?;
    output.print(&measured, shown)?;
    Ok(if measured.void.is_some() { Exit::Difference } else { Exit::Done })
}

fn shown(measured: &Measured) -> String {
    let mut rows = table(&["seconds without a writer", "median", "min", "max"]);
    for take_over in &measured.take_overs {
        let spread = take_over.seconds_without_a_writer;
        let seconds = [spread.median, spread.min, spread.max].map(|seconds| format!("{seconds:.3}"));
        rows.add_row([format!("after {}", take_over.after.name())].into_iter().chain(seconds));
    }
    let void = measured.void.as_ref().map_or_else(String::new, |void| format!("VOID: {void}\n"));
    let times = measured.take_overs.first().map_or(0, |take_over| take_over.each.len());
    format!(
        "{}{void}\nSession timeout {}; {times} times each, {} commands/s, {} partitions, two workers\n{}",
        drawn(&rows),
        measured.session_timeout(),
        measured.commands_per_second,
        measured.partitions,
        machine(&measured.machine),
    )
}
