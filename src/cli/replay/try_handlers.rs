//! `replay try`: would the handlers of this program have ended yesterday's commands otherwise?

use std::time::Duration;

use super::again::AgainArgs;
use crate::cli::exit::Exit;
use crate::cli::operator::ago_ms;
use crate::cli::output::{self, Output};
use crate::config::Config;
use crate::replay::range;
use crate::replay::verify::Options;
use crate::worker::Worker;

/// Run the log's commands again with this program's handlers, and say which of them end otherwise than they did
///
/// Before a changed rule is deployed: build the new program, and run its `replay try` with the configuration of the
/// one that runs; or, if commands in SQL have changed, with a configuration that names the new files. Every command is
/// run, from the beginning of the log or a checkpoint, in a shadow database; those that end otherwise, applied instead
/// of rejected, or with another code, are counted by type and code, with examples. What was dead is not tried. Exit code 0: all end as they did, 3: some end otherwise.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  ./new-bank replay try --config config/solewriter.toml
  ./new-bank replay try --since 7d -o json
  solewriter replay try --config config/tomorrow.toml --from last_week")]
pub(super) struct Args {
    /// Count only commands whose records are as new as this, such as 7d
    #[arg(long, value_name = "DURATION", value_parser = range::duration)]
    since: Option<Duration>,
    #[command(flatten)]
    again: AgainArgs,
}

pub(super) async fn run(args: &Args, output: Output, worker: &Worker, config: &Config) -> anyhow::Result<Exit> {
    let more = Options { changes_since_ms: args.since.map(ago_ms), ..Options::default() };
    let report = args.again.run(worker, config, more).await?;
    match output {
        Output::Table => output::print(&report.changes_text())?,
        Output::Json => output::print(&serde_json::to_string(&serde_json::json!({
            "commands": report.commands(),
            "forgotten": report.partitions.iter().map(|partition| partition.forgotten).sum::<u64>(),
            "changes": report.changes,
            "entities_differing": report.entities_differing,
            "tables": report.tables,
            "unproven": report.unproven,
        }))?)?,
    }
    Ok(if report.is_unchanged() { Exit::Done } else { Exit::Difference })
}
