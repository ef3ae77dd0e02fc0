//! `replay republish`: outcomes and events of a range are published again, from the database.

mod report;
mod spans;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::report::{PartitionReport, Report};
use self::spans::Span;
use super::range::RangeArgs;
use super::watch::Watch;
use crate::cli::backend;
use crate::cli::exit::{Exit, Problem};
use crate::cli::operator;
use crate::cli::output::Output;
use crate::config::Config;
use crate::kafka::{self, Client, InspectError, Inspector, Producer, Topics};
use crate::postgres::{Republication, Store};
use crate::replay::progress::Progress;
use crate::replay::republish::{Counts, RepublishError, Republisher, Targets, Wanted, count};
use crate::worker::MESSAGE_BYTES_MAX;

/// Partitions that are worked on at a time.
const PARTITIONS_AT_ONCE: usize = 4;
/// How long the broker may take to tell a topic's settings.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// Publish outcomes and events of a range again, from the database
///
/// The same key, value and headers, in the order of settlement: whoever has lost some reads them again and drops
/// by ce_id what it has. No command is run. A dry run, unless --execute is given; a run that was stopped or
/// killed is gone on with by the same command.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  solewriter replay republish accounts.commands --since 1d
  solewriter replay republish accounts.commands:3:8400-8500 --execute --reason 'the index lost them'
  solewriter replay republish --from-datetime 2026-01-31T00:00:00Z --to-datetime 2026-02-01T00:00:00Z \\
      --to accounts.again --rate 5000 --execute --reason 'the warehouse lost a day'")]
pub(super) struct Args {
    #[command(flatten)]
    range: RangeArgs,
    /// Both to this topic. Default: the topics that they were published to
    #[arg(long, value_name = "TOPIC", conflicts_with_all = ["to_outcomes", "to_events"])]
    to: Option<String>,
    /// Outcomes to this topic
    #[arg(long, value_name = "TOPIC", conflicts_with = "events_only")]
    to_outcomes: Option<String>,
    /// Events to this topic
    #[arg(long, value_name = "TOPIC", conflicts_with = "outcomes_only")]
    to_events: Option<String>,
    /// No events
    #[arg(long, conflicts_with = "events_only")]
    outcomes_only: bool,
    /// No outcomes
    #[arg(long)]
    events_only: bool,
    /// So many records a second at most
    #[arg(long, value_name = "N")]
    rate: Option<NonZeroU32>,
    /// Begin anew, where the same command would go on with what it has begun
    #[arg(long)]
    restart: bool,
    /// Why, for the audit; needed to execute
    #[arg(long, value_name = "TEXT", value_parser = operator::reason)]
    reason: Option<String>,
    /// Do it: without this it is only counted
    #[arg(long)]
    execute: bool,
}

impl Args {
    /// The same text for the same command: the range, its filters, and where everything goes. Not how fast.
    fn as_written(&self) -> String {
        let Self { range, to, to_outcomes, to_events, outcomes_only, events_only, .. } = self;
        let range = range.as_written();
        format!("{range} to {to:?} {to_outcomes:?} {to_events:?} {outcomes_only} {events_only}")
    }

    /// The topics that outcomes and events of a command topic go to.
    fn names(&self, topic: &crate::config::Topic) -> (String, String) {
        let own = |given: &Option<String>, own: &str| given.as_deref().or(self.to.as_deref()).unwrap_or(own).to_owned();
        (own(&self.to_outcomes, &topic.outcomes_topic()), own(&self.to_events, &topic.events_topic()))
    }
}

pub(super) async fn run(args: &Args, output: Output, config: &Config) -> anyhow::Result<Exit> {
    if args.execute && args.reason.is_none() {
        return Err(operator::no_reason());
    }
    let (store, inspector) = (backend::fitting_store(config).await?, backend::inspector(config)?);
    let asked = args.as_written();
    let spans = spans::of(args, &asked, config, &store, &inspector).await?;
    let targets = targets(args, config, &inspector, &spans).await?;
    let progress = Progress::of(spans.iter().map(Span::batches_left).sum());
    let watch = Watch::begin(&progress, "batches")?;
    let counts = match &args.reason {
        Some(reason) if args.execute => {
            let producer = producer(config, &targets).await?;
            begin(&store, &asked, (&backend::actor(), reason), args, &spans, &targets).await?;
            let republisher = Republisher::new(store.clone(), &asked, producer, args.rate);
            let executed = execute(&republisher, args, &spans, &targets, &progress).await;
            executed.context("what is done stays done: the same command goes on from there")
        }
        _ => counted(&store, args, &spans, &progress).await,
    };
    drop(watch);
    let counts = counts?;
    if args.execute && !progress.is_stopped() {
        store.end_republication(&asked).await?;
    }
    let partition =
        |(n, span): (usize, &Span)| PartitionReport::of(span, counts.get(&n).copied().unwrap_or_default(), &targets);
    let partitions = spans.iter().enumerate().map(partition).collect();
    let report = Report::of(partitions, args.execute, !progress.is_stopped());
    output.print(&report, Report::text)?;
    if progress.is_stopped() {
        return Err(Problem::failed("stopped before the end; the same command goes on from there, and publishes batches that were under way once more").into());
    }
    match report.is_empty_for_loss() {
        true => Err(Problem::failed("nothing of the range is kept any more").into()),
        false => Ok(Exit::Done),
    }
}

/// By command topic: where its outcomes and events go.
type TargetsByTopic = BTreeMap<String, Targets>;

async fn targets(
    args: &Args,
    config: &Config,
    inspector: &Arc<Inspector>,
    spans: &[Span],
) -> anyhow::Result<TargetsByTopic> {
    let mut targets = BTreeMap::new();
    for topic in config.topics.iter().filter(|topic| spans.iter().any(|span| span.row.topic == topic.name)) {
        let (outcomes, events) = args.names(topic);
        for (name, wanted) in [(&outcomes, !args.events_only), (&events, !args.outcomes_only)] {
            if wanted && config.topics.iter().any(|topic| topic.name == *name) {
                return Err(
                    Problem::usage(format!("{name} is a command topic: outcomes and events are no commands")).into()
                );
            }
        }
        let place = async |name: String, wanted: bool| {
            let count = if wanted { partition_count(config, inspector, &name).await? } else { 0 };
            anyhow::Ok((Arc::from(name), count))
        };
        let targets_of = Targets {
            outcomes: place(outcomes, !args.events_only).await?,
            events: place(events, !args.outcomes_only).await?,
        };
        targets.insert(topic.name.clone(), targets_of);
    }
    // begun when it was
    match spans.iter().find(|span| !targets.contains_key(&span.row.topic)) {
        Some(span) => Err(Problem::usage(format!("topic {} is not in the configuration", span.row.topic)).into()),
        None => Ok(targets),
    }
}

async fn partition_count(config: &Config, inspector: &Arc<Inspector>, topic: &str) -> anyhow::Result<i32> {
    let (asked, name) = (inspector.clone(), topic.to_owned());
    let count = tokio::task::spawn_blocking(move || asked.partition_count(&name)).await?;
    let servers = config.kafka.require_bootstrap_servers()?;
    count.map_err(|error| match error {
        InspectError::NoTopic => {
            let create = kafka::create_command(servers, topic, 12);
            Problem::usage(format!("topic {topic} does not exist; type: {create}")).into()
        }
        error => Problem::unreachable(format!("{topic}: {error}")).into(),
    })
}

/// Notes what is about to be done, and audits it.
async fn begin(
    store: &Store,
    asked: &str,
    by: (&str, &str),
    args: &Args,
    spans: &[Span],
    targets: &TargetsByTopic,
) -> anyhow::Result<()> {
    let left = spans.iter().filter(|span| span.batches_left() > 0);
    let rows = left.filter_map(|span| Some((span.row.clone(), audited(args, targets.get(&span.row.topic)?))));
    let rows: Vec<_> = rows.collect();
    Ok(store.begin_republication(asked, by, &rows).await?)
}

fn audited(args: &Args, targets: &Targets) -> serde_json::Value {
    serde_json::json!({
        "outcomes_topic": (!args.events_only).then_some(&targets.outcomes.0),
        "events_topic": (!args.outcomes_only).then_some(&targets.events.0),
    })
}

/// Through which everything goes, in batches that every topic takes.
async fn producer(config: &Config, targets: &TargetsByTopic) -> anyhow::Result<Producer> {
    let client = Client::new(&config.kafka, "solewriter")?;
    let topics = Topics::new(&client, ASK_TIMEOUT)?;
    let mut bytes_max = MESSAGE_BYTES_MAX;
    for (topic, count) in targets.values().flat_map(|targets| [&targets.outcomes, &targets.events]) {
        // whoever may not ask goes by the default
        let told = if *count > 0 { topics.message_bytes_max(topic).await? } else { None };
        bytes_max = bytes_max.min(told.unwrap_or(MESSAGE_BYTES_MAX));
    }
    Ok(Producer::new(client, bytes_max)?)
}

fn wanted(args: &Args, row: &Republication, range: &RangeArgs) -> anyhow::Result<Wanted> {
    Ok(Wanted {
        from: row.from_offset,
        to: row.to_offset,
        only: range.range()?.only,
        outcomes: !args.events_only,
        events: !args.outcomes_only,
    })
}

async fn execute(
    republisher: &Republisher,
    args: &Args,
    spans: &[Span],
    targets: &TargetsByTopic,
    progress: &Progress,
) -> anyhow::Result<BTreeMap<usize, Counts>> {
    let at_once = Arc::new(Semaphore::new(PARTITIONS_AT_ONCE));
    let mut running = JoinSet::new();
    for (n, span) in spans.iter().enumerate() {
        let Some(targets) = targets.get(&span.row.topic).cloned() else { continue };
        let (republisher, progress, at_once) = (republisher.clone(), progress.clone(), at_once.clone());
        let (row, wanted) = (span.row.clone(), wanted(args, &span.row, &args.range)?);
        running.spawn(async move {
            // nobody closes it
            let _permit = at_once.acquire().await;
            Ok::<_, RepublishError>((n, republisher.run(&row, &wanted, &targets, &progress).await?))
        });
    }
    let mut counts = BTreeMap::new();
    while let Some(ended) = running.join_next().await {
        counts.extend([ended??]);
    }
    Ok(counts)
}

async fn counted(
    store: &Store,
    args: &Args,
    spans: &[Span],
    progress: &Progress,
) -> anyhow::Result<BTreeMap<usize, Counts>> {
    let mut counts = BTreeMap::new();
    for (n, span) in spans.iter().enumerate() {
        counts.insert(n, count(store, &span.row, &wanted(args, &span.row, &args.range)?, progress).await?);
    }
    Ok(counts)
}
