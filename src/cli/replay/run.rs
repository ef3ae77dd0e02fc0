//! `replay run`: resolves a `database-behind` halt knowingly.

use std::io::Write as _;
use std::num::NonZeroU32;

use super::leftovers;
use super::watch::Watch;
use anyhow::Context as _;

use crate::cli::backend;
use crate::cli::exit::{Exit, Problem};
use crate::cli::operator::{self, Target};
use crate::cli::output::Output;
use crate::config::Config;
use crate::replay::progress::Progress;
use crate::replay::run::{Found, Options, Report, Settled, dry_run, resume, settled};
use crate::worker::Worker;

/// After a restore of the database: run again what it has forgotten, and compare it with what was published
///
/// For partitions that are halted with database-behind. The commands from the database's cursor to the last offset
/// that was settled run in a shadow database (the role needs CREATEDB), on a copy of what is live, with the handlers
/// and the configuration of this program: type it where the workers' own are. Their outcomes are set against those on
/// the outcomes topic. A dry run, unless --execute is given; then the partitions are resumed if everything ends as it
/// was published, and a worker settles and publishes it again. Ctrl-C stops it, and the same dry run goes on, also after
/// a kill -9. Exit code 0: all alike, 3: something differs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  solewriter replay run
  solewriter replay run accounts.commands:3 -o json
  solewriter replay run --execute --reason 'restored the backup of 02:00'")]
pub(super) struct Args {
    /// Topics or partitions. Default: every partition that is halted with database-behind
    #[arg(value_name = "TOPIC[:PARTITION]")]
    places: Vec<Target>,
    /// Records a second at most, over all partitions, so that live writers keep their latency
    #[arg(long, value_name = "RECORDS")]
    rate: Option<NonZeroU32>,
    /// Begin anew where the same dry run was stopped or killed before, instead of going on
    #[arg(long)]
    anew: bool,
    /// Resume the partitions if all is alike, and wait until it is settled: without this nothing is changed
    #[arg(long)]
    execute: bool,
    /// Also if something differs: downstream hears two outcomes of one command then
    #[arg(long, requires = "execute")]
    accept_differences: bool,
    /// Why, for the audit; needed to execute
    #[arg(long, value_name = "TEXT", value_parser = operator::reason)]
    reason: Option<String>,
}

pub(super) async fn run(args: &Args, output: Output, worker: &Worker, config: &Config) -> anyhow::Result<Exit> {
    if args.execute && args.reason.is_none() {
        return Err(operator::no_reason());
    }
    let progress = Progress::default();
    let watch = Watch::begin(&progress, "records")?;
    let places = args.places.iter().map(|target| (target.topic.clone(), target.partition)).collect();
    // what is resumed was compared with the tables as they are now, not as somebody has found them before
    let options = Options { places, rate: args.rate, go_on: !args.execute, anew: args.anew };
    let found = dry_run(worker, config, &options, &progress).await;
    drop(watch);
    let mut found = found?;
    // each has a copy of what was live
    leftovers::tell(config, None).await;
    let may_execute = found.report.alike || args.accept_differences;
    let ended = match &args.reason {
        Some(reason) if args.execute && may_execute => execute(config, &mut found, reason).await,
        _ => Ok(()),
    };
    output.print(&found.report, Report::text)?;
    ended?;
    match found.report.alike || found.report.executed {
        true => Ok(Exit::Done),
        false if args.execute => Err(Problem::difference(
            "nothing is changed: find out why it differs (another version of the handlers?), or add --accept-differences",
        )
        .into()),
        false => Ok(Exit::Difference),
    }
}

/// Resumes them, and waits for a worker.
async fn execute(config: &Config, found: &mut Found, reason: &str) -> anyhow::Result<()> {
    let store = backend::fitting_store(config).await?;
    let changed = resume(&store, config, found, &backend::actor(), reason).await;
    let changed = changed.context("it is not sure which of the partitions are resumed; see: solewriter status")?;
    found.report.executed = changed.len() < found.seen.len();
    if let Some(source) = changed.first() {
        let others = if found.report.executed { ", and the others are resumed" } else { "" };
        let why = format!("{source} was changed meanwhile and is left as it is{others}: type the same command again");
        return Err(Problem::failed(why).into());
    }
    // stderr may be closed: the result does not depend on it
    let _ = writeln!(
        std::io::stderr(),
        "resumed; waiting until a worker (solewriter run) has settled and published it again"
    );
    let progress = Progress::default();
    let watch = Watch::begin(&progress, "offsets")?;
    let waited = settled(&store, found, &progress).await;
    drop(watch);
    store.close().await;
    match waited? {
        Settled::All => {
            found.report.settled = true;
            Ok(())
        }
        Settled::Stopped => Err(Problem::failed(
            "stopped waiting: the partitions are resumed, and a worker settles them; see: solewriter status",
        )
        .into()),
        Settled::Halted(source, code, detail) => {
            Err(Problem::failed(format!("{source} is resumed, and has halted again with {code}: {detail}")).into())
        }
    }
}
