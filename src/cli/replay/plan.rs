//! `replay plan`: what became of each command in a range.

mod report;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use self::report::{Line, PartitionLine, RecordLine, Report};
use super::range::{RangeArgs, resolved};
use super::watch::Watch;
use crate::cli::backend;
use crate::cli::exit::{Exit, Problem};
use crate::cli::output::{self, Output};
use crate::cli::status::Halt;
use crate::config::Config;
use crate::kafka::Client;
use crate::postgres::PartitionStatus;
use crate::record::TopicPartition;
use crate::replay::progress::Progress;
use crate::replay::range::Only;
use crate::replay::resolve::Stretch;
use crate::replay::survey::{Survey, SurveyError, Surveyed, Tally};

/// Partitions that are read at a time.
const PARTITIONS_AT_ONCE: usize = 4;
/// Chunks of rows that wait to be printed.
const ROWS_WAITING_MAX: usize = 4;
/// How long the broker may be silent.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Say what became of each command in a range of the log
///
/// Applied, rejected, duplicate, dead, waiting, or never settled: counts for each partition, and with -o json
/// a line for each record. Nothing is changed, and nothing is run.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  solewriter replay plan accounts.commands --since 2h
  solewriter replay plan accounts.commands:3:8400-8500 -o json
  solewriter replay plan --since 1d --export > yesterday
  solewriter replay plan --from-datetime 2026-01-31T00:00:00Z --to-datetime 2026-02-01T00:00:00Z --key acct-42

-o json prints JSON Lines: {\"type\":\"record\",…} for each record, and behind them {\"type\":\"partition\",…} for
each partition.")]
pub(super) struct Args {
    #[command(flatten)]
    range: RangeArgs,
    /// Only print which offsets are meant, a line for each partition: for --from-file, where a time would move on
    #[arg(long)]
    export: bool,
}

pub(super) async fn run(args: &Args, output: Output, config: &Config) -> anyhow::Result<Exit> {
    let range = args.range.range()?;
    let store = backend::fitting_store(config).await?;
    let stretches = resolved(config, &backend::inspector(config)?, &range).await?;
    if args.export {
        output::print(&exported(&stretches, output))?;
        return Ok(Exit::Done);
    }
    let survey = Survey {
        store: store.clone(),
        client: Client::new(&config.kafka, "solewriter")?,
        only: range.only.clone(),
        payload_bytes_max: config.worker.payload_bytes_max.get(),
        timeout: READ_TIMEOUT,
    };
    let progress = Progress::of(stretches.iter().map(Stretch::offsets).sum());
    let watch = Watch::begin(&progress, "offsets")?;
    let surveyed = survey_all(survey, &stretches, output, &progress).await;
    drop(watch);
    let tallies = surveyed?;
    // behind the records, which a halt of the meantime explains
    let standing = store.status().await?;
    let report = Report::of(&stretches, tallies, &standing, range.only != Only::default());
    output_report(output, &report)?;
    if progress.is_stopped() {
        return Err(Problem::failed("stopped before the end: these are the numbers so far").into());
    }
    if stretches.iter().all(|stretch| stretch.offsets() == 0) && stretches.iter().any(|stretch| stretch.lost.is_some())
    {
        return Err(Problem::failed("nothing of the range is left in the log").into());
    }
    Ok(Exit::Done)
}

/// As `--from-file` reads it; as JSON Lines with `-o json`.
fn exported(stretches: &[Stretch], output: Output) -> String {
    let line = |stretch: &Stretch| {
        let TopicPartition { topic, partition } = &stretch.source;
        let (from, to) = stretch.asked();
        let line = match output {
            Output::Table => format!("{topic}:{partition}:{from}-{to}\n"),
            Output::Json => {
                format!("{}\n", json!({ "topic": topic, "partition": partition, "from": from, "to": to }))
            }
        };
        (from < to).then_some(line)
    };
    stretches.iter().filter_map(line).collect()
}

fn output_report(output: Output, report: &Report) -> anyhow::Result<()> {
    match output {
        Output::Table => output::print(&report.text()),
        Output::Json => report.partitions.iter().try_for_each(|line| print_line(&Line::Partition(line))),
    }
}

fn print_line(line: &Line<'_>) -> anyhow::Result<()> {
    output::print(&serde_json::to_string(line)?)
}

/// All stretches, some at a time, by their place in the list; rows are printed as they come if they are wanted.
async fn survey_all(
    survey: Survey,
    stretches: &[Stretch],
    output: Output,
    progress: &Progress,
) -> anyhow::Result<BTreeMap<usize, Tally>> {
    let (sender, rows) = mpsc::channel(ROWS_WAITING_MAX);
    let at_once = Arc::new(Semaphore::new(PARTITIONS_AT_ONCE));
    let survey = Arc::new(survey);
    let mut running = JoinSet::new();
    for (n, stretch) in stretches.iter().cloned().enumerate() {
        let (survey, sender, at_once, progress) = (survey.clone(), sender.clone(), at_once.clone(), progress.clone());
        running.spawn(async move {
            // nobody closes it
            let _permit = at_once.acquire().await;
            Ok::<_, SurveyError>((n, survey.run(&stretch, &sender, &progress).await?))
        });
    }
    drop(sender);
    let printing = (output == Output::Json).then(|| AbortOnDropHandle::new(tokio::spawn(print_rows(rows))));
    let mut tallies = BTreeMap::new();
    while let Some(ended) = running.join_next().await {
        tallies.extend([ended??]);
    }
    if let Some(printing) = printing {
        printing.await??;
    }
    Ok(tallies)
}

async fn print_rows(mut rows: mpsc::Receiver<(TopicPartition, Vec<Surveyed>)>) -> anyhow::Result<()> {
    while let Some((source, surveyed)) = rows.recv().await {
        let mut text = String::new();
        for record in &surveyed {
            text += &serde_json::to_string(&Line::Record(RecordLine::of(&source, record)))?;
            text.push('\n');
        }
        output::print(&text)?;
    }
    Ok(())
}

impl Report {
    /// Of the stretches, in their order.
    fn of(
        stretches: &[Stretch],
        mut tallies: BTreeMap<usize, Tally>,
        standing: &[PartitionStatus],
        is_filtered: bool,
    ) -> Self {
        let is_of = |row: &&PartitionStatus, source: &TopicPartition| {
            row.topic == *source.topic && row.partition == source.partition
        };
        let line = |(n, stretch): (usize, &Stretch)| {
            let row = standing.iter().find(|row| is_of(row, &stretch.source));
            PartitionLine::of(stretch, tallies.remove(&n).unwrap_or_default(), row.and_then(Halt::of))
        };
        Self { partitions: stretches.iter().enumerate().map(line).collect(), is_filtered }
    }
}
