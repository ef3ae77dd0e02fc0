//! `replay verify`: is the database what its log says?

use super::again::AgainArgs;
use crate::cli::exit::Exit;
use crate::cli::output::{self, Output};
use crate::config::Config;
use crate::replay::verify::Options;
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
    #[command(flatten)]
    again: AgainArgs,
    /// Leave the shadow database, and say its name
    #[arg(long)]
    keep: bool,
}

pub(super) async fn run(args: &Args, output: Output, worker: &Worker, config: &Config) -> anyhow::Result<Exit> {
    let more = Options { keep: args.keep, ..Options::default() };
    let report = args.again.run(worker, config, more).await?;
    match output {
        Output::Table => output::print(&report.text())?,
        Output::Json => output::print(&serde_json::to_string(&report)?)?,
    }
    Ok(if report.equal { Exit::Done } else { Exit::Difference })
}
