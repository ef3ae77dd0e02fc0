//! `bench sweep`: how cost grows with one thing.

use std::path::PathBuf;

use super::super::exit::{Exit, Problem};
use super::super::output::{Output, drawn, table};
use super::{COSTS, Handlers, RATES, UNITS, costs, draw, machine, rates, shutdown, workload};
use crate::bench::report::of_rounds;
use crate::bench::sweep::{self, Base, Measurement, Plan, Sweep, Value, What};
use crate::config::Config;

/// How rate and cost change with one thing, all else the same: a table and a picture
///
/// Points are measured in rounds, one after the other and again, and shown as medians with the least
/// and the most. After each trial the books are balanced; a wrong book voids the point, and the exit
/// code is 3. Large data and small batches take fewer commands than asked for.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  solewriter bench sweep partitions --svg partitions.svg
  solewriter bench sweep rows --prefill 0,1M,10M,50M -o json
  solewriter bench sweep batch --values 1,100,2000 --handlers sql")]
pub(super) struct Args {
    /// What is varied
    #[arg(value_enum)]
    what: What,
    /// Over these values: numbers, also as 100k or 10M; of ids v7 and v4
    #[arg(long, value_delimiter = ',', value_name = "VALUE,…")]
    values: Vec<String>,
    /// Records that each trial settles [default: 400000, for workers 2000000]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1_000..))]
    commands: Option<u64>,
    /// How often each point is measured
    #[arg(long, value_name = "NUMBER", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// What the worker's handlers are written in
    #[arg(long, value_enum, default_value_t)]
    handlers: Handlers,
    /// Rows that the idempotency table holds before: the values of rows, and a curve each of ids
    /// [default: of ids 0,10M]
    #[arg(long, value_delimiter = ',', value_name = "ROWS,…", value_parser = sweep::number)]
    prefill: Vec<u64>,
    /// Draw the curves of the rates
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

pub(super) async fn run(args: &Args, output: Output, config: &Config) -> anyhow::Result<Exit> {
    let plan = plan(args)?;
    let measured = sweep::measure(config, &plan, &shutdown()?, &|event| eprintln!("{event}")).await?;
    output.print(&measured, shown)?;
    draw(&measured.chart(), args.svg.as_deref())?;
    Ok(if measured.points.iter().any(|point| point.figures.void.is_some()) { Exit::Difference } else { Exit::Done })
}

fn plan(args: &Args) -> anyhow::Result<Plan> {
    let what = args.what;
    let base = Base {
        workload: workload(args.commands.unwrap_or_else(|| what.default_commands()))?,
        partitions: 8,
        prefilled_rows: if args.prefill.is_empty() { vec![0, 10_000_000] } else { args.prefill.clone() },
    };
    let setups = values(args)?.into_iter().flat_map(|value| what.setups(&base, value)).collect();
    let handlers = args.handlers.into();
    Ok(Plan { what, handlers, setups, rounds: args.rounds.into() })
}

fn values(args: &Args) -> Result<Vec<Value>, Problem> {
    let numbers = || args.prefill.iter().map(u64::to_string).collect();
    let typed: Vec<String> = match args.what {
        What::Rows if args.values.is_empty() => numbers(),
        What::Ids => args.values.clone(),
        _ if !args.prefill.is_empty() => return Err(Problem::usage("--prefill is for ids, and the values of rows")),
        _ => args.values.clone(),
    };
    if typed.is_empty() {
        return Ok(args.what.default_values());
    }
    let values = typed.iter().map(|text| args.what.value(text)).collect::<Result<_, _>>();
    values.map_err(Problem::usage)
}

fn shown(measured: &Sweep) -> String {
    let mut rows = table(&[&["value", "series", "commands"][..], &RATES, &["x first"], &COSTS].concat());
    for point in &measured.points {
        rows.add_row(cells(point));
    }
    let voids = measured.points.iter().filter_map(|point| {
        let series = if point.series.is_empty() { String::new() } else { format!(" {}", point.series) };
        Some(format!("{}{series}: VOID, {}\n", point.value, point.figures.void.as_ref()?))
    });
    format!(
        "{}{}\nvalue: {}. {UNITS}\nHandlers: {}. {}\n{}",
        drawn(&rows),
        voids.collect::<String>(),
        measured.what.label(),
        measured.handlers.name(),
        of_rounds(measured.rounds),
        machine(&measured.machine),
    )
}

fn cells(point: &Measurement) -> Vec<String> {
    let series = if point.series.is_empty() { "-".to_owned() } else { point.series.clone() };
    let mut cells = vec![point.value.to_string(), series, point.workload.commands.to_string()];
    if point.figures.void.is_some() {
        cells.push("VOID".to_owned());
        return cells;
    }
    cells.extend(rates(&point.figures));
    cells.push(point.ratio_to_first.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")));
    cells.extend(costs(&point.figures));
    cells
}

#[cfg(test)]
mod tests {
    use crate::bench::Row;
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Typed {
        #[command(flatten)]
        args: Args,
    }

    fn typed(line: &str) -> Args {
        Typed::try_parse_from(["sweep"].into_iter().chain(line.split(' '))).expect("good").args
    }

    fn refusal(line: &str) -> String {
        plan(&typed(line)).expect_err("wrong usage").to_string()
    }

    #[test]
    fn the_rows_of_a_sweep_are_those_to_prefill() {
        let plan = plan(&typed("rows --prefill 0,1M,50M --handlers sql")).expect("good");
        let rows: Vec<u64> = plan.setups.iter().map(|setup| setup.options.prefilled_rows).collect();
        assert_eq!((rows, plan.handlers), (vec![0, 1_000_000, 50_000_000], Row::Sql));
    }

    #[test]
    fn ids_are_compared_with_each_number_of_rows() {
        let plan = plan(&typed("ids --prefill 0,100k")).expect("good");
        let points: Vec<String> = plan.setups.iter().map(|setup| format!("{} {}", setup.value, setup.series)).collect();
        assert_eq!(points, ["v7 0 rows", "v7 100k rows", "v4 0 rows", "v4 100k rows"]);
    }

    #[test]
    fn what_cannot_be_varied_so_is_refused() {
        assert_eq!(refusal("workers --prefill 1M"), "--prefill is for ids, and the values of rows");
        assert_eq!(refusal("rows --prefill 1M --values 2M"), "--prefill is for ids, and the values of rows");
        assert_eq!(refusal("duplicates --values 95"), "95 is not within 0 and 90");
        assert_eq!(refusal("ids --values 7"), "\"7\" is neither v7 nor v4");
    }
}
