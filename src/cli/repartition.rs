//! `repartition`: another partition count for a topic, with every key's order kept.
//!
//! Halt all partitions, prove that nothing of the old layout is unsettled, move every home in bounded
//! transactions, prove each row, and let all go on in one transaction. Every step finds what the one
//! before has left, so the same command goes on after a crash.

mod drain;
mod homes;
mod look;
mod report;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;

pub(super) use self::homes::refuse_misplaced;
use self::homes::{Moves, Proof};
use self::look::Look;
use self::report::Report;
use super::exit::{Exit, Problem};
use super::output::Output;
use super::{backend, operator, output};
use crate::config::{Config, Partitioner};
use crate::kafka::{self, Inspector, Topics};
use crate::postgres::{Layout, Store, TopicAction};
use crate::record::TopicPartition;

/// How long the broker may take to add partitions and to tell of them.
const GROW_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is asked meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Change a topic's partition count, or go on after it was changed
///
/// Stop the topic's producers first. Entities, dead letters and parked keys move to the partitions that
/// their keys have in the new layout. Without --execute nothing is changed, and what would move is
/// counted.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  solewriter repartition accounts.commands --partitions 24
  solewriter repartition accounts.commands --partitions 24 --reason 'twice the workers' --execute")]
pub(super) struct Args {
    /// The command topic
    topic: String,
    /// The new count; partitions that are missing are added. Default: as many as there are
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// First let the workers settle what was placed for the old layout, and wait for it
    #[arg(long)]
    drain: bool,
    /// How long to wait while the workers make no progress, such as 30s
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Why, for the audit; needed to execute
    #[arg(long, value_name = "TEXT", value_parser = operator::reason)]
    reason: Option<String>,
    /// Do it: without this only a preview is printed
    #[arg(long)]
    execute: bool,
}

/// What a run works with.
struct Run<'a> {
    config: &'a Config,
    args: &'a Args,
    store: Store,
    inspector: Arc<Inspector>,
}

pub(super) async fn run(args: &Args, output: Output, config: &Config) -> anyhow::Result<Exit> {
    let run =
        Run { config, args, store: backend::fitting_store(config).await?, inspector: backend::inspector(config)? };
    let mut look = run.look().await?;
    let layout = run.layout(&look)?;
    let moves = Moves::count(&run.store, &layout).await?;
    let mut report = Report::of(&look, &layout, moves);
    if !args.execute {
        output.print(&report, Report::preview)?;
        return Ok(Exit::Done);
    }
    let Some(reason) = &args.reason else { return Err(operator::no_reason()) };
    if !report.has_something_to_do() {
        output.print(&report, Report::preview)?;
        return Ok(Exit::Done);
    }
    if output == Output::Table {
        output::print(&report.text())?;
    }
    let actor = backend::actor();
    let by = TopicAction { layout, actor: &actor, reason };
    look = run.stand_still(&by, look).await?;
    let rows: Vec<_> = look.partitions.iter().map(|seen| seen.row.clone()).collect();
    if !run.store.begin_moving(&by, &rows).await? {
        return Err(resumed_meanwhile(&by.layout));
    }
    let moved = homes::move_all(&run.store, &by.layout, report.rows()).await?;
    let Some(moved) = moved else { return Err(resumed_meanwhile(&by.layout)) };
    let proof = Proof::of(&run.store, &by.layout, &moved).await?;
    if !proof.holds() {
        return Err(Problem::difference(proof.text(&by.layout)).into());
    }
    let begins = run.begins(&look, &by.layout).await?;
    if !run.store.finish_repartition(&by, &begins, report.audited()).await? {
        return Err(resumed_meanwhile(&by.layout));
    }
    report.executed = true;
    output.print(&report, Report::done)?;
    Ok(Exit::Done)
}

fn resumed_meanwhile(layout: &Layout<'_>) -> anyhow::Error {
    anyhow::anyhow!(
        "{0}: somebody has resumed a partition meanwhile; what was moved stays so; type the same command again",
        layout.topic
    )
}

impl<'a> Run<'a> {
    async fn look(&self) -> anyhow::Result<Look> {
        let (_, partitioner) = self.topic()?;
        Look::at(&self.store, &self.inspector, partitioner, &self.args.topic, self.args.partitions).await
    }

    /// Its entity type, and how its producers choose partitions.
    fn topic(&self) -> anyhow::Result<(&'a str, Partitioner)> {
        let topic = self.config.topics.iter().find(|topic| topic.name == self.args.topic);
        let unknown = || Problem::usage(format!("topic {} is not in the configuration", self.args.topic));
        let topic = topic.ok_or_else(unknown)?;
        Ok((&topic.entity, topic.partitioner))
    }

    /// The layout that is wanted.
    fn layout(&self, look: &Look) -> anyhow::Result<Layout<'a>> {
        let (entity_type, partitioner) = self.topic()?;
        let partition_count = self.args.partitions.unwrap_or(look.partition_count);
        if partition_count < look.partition_count {
            return Err(Problem::usage(format!(
                "{} has {} partitions, and Kafka takes none away: --partitions {partition_count} cannot be had",
                self.args.topic, look.partition_count
            ))
            .into());
        }
        Ok(Layout { topic: &self.args.topic, entity_type, partitioner, partition_count })
    }

    /// All partitions are there and halted, and nothing of the old layout is unsettled.
    async fn stand_still(&self, by: &TopicAction<'_>, mut look: Look) -> anyhow::Result<Look> {
        look.refuse_other_halts()?;
        if self.args.drain && !look.is_drained() {
            look = drain::drain(self, by, look).await?;
        }
        // before anything is stopped
        look.refuse_undrained(self.args)?;
        let wanted = by.layout.partition_count;
        self.store.halt_topic(by, &format!("the topic is given {wanted} partitions")).await?;
        look = self.look().await?;
        look.refuse_undrained(self.args)?;
        if look.partition_count < wanted {
            self.grow(&by.layout).await?;
            look = self.look().await?;
            look.refuse_undrained(self.args)?;
        }
        look.refuse_other_halts()?;
        Ok(look)
    }

    async fn grow(&self, layout: &Layout<'_>) -> anyhow::Result<()> {
        let topics = Topics::new(&kafka::Client::new(&self.config.kafka, "solewriter")?, GROW_TIMEOUT)?;
        let stays = || {
            format!(
                "{0} stays halted; to go on with as many partitions as it has, type: solewriter repartition {0} \
                 --execute --reason …",
                layout.topic
            )
        };
        topics.grow(layout.topic, layout.partition_count).await.with_context(stays)?;
        let seen = async {
            while look::partition_count(&self.inspector, layout.topic).await? < layout.partition_count {
                tokio::time::sleep(ASK_EVERY).await;
            }
            anyhow::Ok(())
        };
        let late =
            || Problem::unreachable("the broker does not tell of the new partitions; type the same command again");
        tokio::time::timeout(GROW_TIMEOUT, seen).await.map_err(|_| late())?
    }

    /// Where partitions begin that have no row yet: with everything that their logs hold.
    async fn begins(&self, look: &Look, layout: &Layout<'_>) -> anyhow::Result<Vec<(i32, i64)>> {
        let known = |partition: &i32| look.partitions.iter().any(|seen| seen.row.partition == *partition);
        let mut begins = Vec::new();
        let deadline = Instant::now() + GROW_TIMEOUT;
        for partition in (0..layout.partition_count).filter(|partition| !known(partition)) {
            let source = TopicPartition::new(layout.topic, partition);
            let end = loop {
                // a client that has seen the topic before may not know the partition for half a minute
                match backend::log_end(&backend::inspector(self.config)?, &source).await {
                    Err(_) if Instant::now() < deadline => tokio::time::sleep(ASK_EVERY).await,
                    end => break end?,
                }
            };
            begins.push((partition, end.low));
        }
        Ok(begins)
    }
}
