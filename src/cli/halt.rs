//! `halt`: stop partitions on purpose.

use super::exit::Exit;
use super::operator::{Changes, Target};
use super::output::Output;
use super::{backend, operator};
use crate::config::Config;

/// Halt a partition, or all partitions of a topic
///
/// The owner stops settling at once and stays ready; nothing is skipped, and `resume` goes on where
/// it stopped. The reason is kept in the audit.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  solewriter halt accounts.commands:3 --reason 'wrong interest rate is being applied'
  solewriter halt accounts.commands --dry-run")]
pub(super) struct Args {
    /// The command topic, or one partition of it
    #[arg(value_name = "TOPIC[:PARTITION]")]
    target: Target,
    #[command(flatten)]
    why: operator::Why,
}

pub(super) async fn run(args: &Args, output: Output, config: &Config) -> anyhow::Result<Exit> {
    let partitions = backend::halt(config, &args.target, args.why.reason()).await?;
    output.print(&Changes { partitions }, Changes::table)?;
    Ok(Exit::Done)
}
