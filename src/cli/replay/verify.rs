//! `replay verify`: is the database what its log says?

use std::num::NonZeroU32;

use super::leftovers;
use super::watch::Watch;
use crate::cli::exit::Exit;
use crate::cli::output::{self, Output};
use crate::config::Config;
use crate::replay::checkpoint::CheckpointName;
use crate::replay::progress::Progress;
use crate::replay::verify::{Options, verify};
use crate::worker::Worker;

/// Run the log's commands again in a shadow database, and compare what they leave with the live tables
///
/// Outcomes, replies, events, versions, states and the rows of tables that commands write must come out alike, from
/// the beginning of the log, or a checkpoint, to where the cursors stand now. The live database is only read, and
/// nothing is published; the shadow is a database of its own on the same server (the role needs CREATEDB) and is
/// dropped at the end. Ctrl-C stops it, and the same command goes on, also after a kill -9. Exit code 0: equal, 3: different.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  solewriter replay verify
  solewriter replay verify --rate 20000 -o json
  solewriter replay verify --from before_1_4_2   # a checkpoint
  solewriter replay verify --keep        # and look into the shadow with psql")]
pub(super) struct Args {
    /// Begin from what this checkpoint holds, instead of from the beginning of the log
    #[arg(long, value_name = "CHECKPOINT")]
    from: Option<CheckpointName>,
    /// Records a second at most, over all partitions, so that live writers keep their latency
    #[arg(long, value_name = "RECORDS")]
    rate: Option<NonZeroU32>,
    /// Leave the shadow database, and say its name
    #[arg(long)]
    keep: bool,
    /// Begin anew where the same command was stopped or killed before, instead of going on
    #[arg(long)]
    anew: bool,
}

pub(super) async fn run(args: &Args, output: Output, worker: &Worker, config: &Config) -> anyhow::Result<Exit> {
    let progress = Progress::default();
    let watch = Watch::begin(&progress, "offsets")?;
    let options = Options {
        from: args.from.clone(),
        rate: args.rate,
        keep: args.keep,
        go_on: true,
        anew: args.anew,
        ..Options::default()
    };
    let verified = verify(worker, config, &options, &progress).await;
    drop(watch);
    let report = verified?;
    match output {
        Output::Table => output::print(&report.text())?,
        Output::Json => output::print(&serde_json::to_string(&report)?)?,
    }
    leftovers::tell(config, report.shadow.as_deref()).await;
    Ok(if report.equal { Exit::Done } else { Exit::Difference })
}
