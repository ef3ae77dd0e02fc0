//! `resume`: let halted partitions go on, with the choice that their halt asks for.

use super::exit::{Exit, Problem};
use super::operator::{Changes, SkipTo, Target};
use super::output::Output;
use super::{backend, operator};
use crate::config::Config;

/// Let a halted partition go on, or all of a topic
///
/// A halt that asks a question is lifted only by the choice that answers it; `solewriter status`
/// names it. The reason is kept in the audit.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  solewriter resume accounts.commands:3 --reason 'interest rate corrected'
  solewriter resume accounts.commands:3 --skip-to 8500 --dry-run
  solewriter resume accounts.commands:3 --skip-to 8500 --reason 'INC-1042: log lost up to 8499'")]
pub(super) struct Args {
    /// The command topic, or one partition of it
    #[arg(value_name = "TOPIC[:PARTITION]")]
    target: Target,
    #[command(flatten)]
    why: operator::Why,
    #[command(flatten)]
    choices: Choices,
}

/// The explicit choices. Without one only a halt that asks no question is lifted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args)]
pub(super) struct Choices {
    /// Go on at this offset; records before it are given up
    #[arg(long, value_name = "OFFSET|earliest|latest")]
    pub(super) skip_to: Option<SkipTo>,
    /// The topic was recreated, truncated or restored: what it holds now is the log
    #[arg(long)]
    pub(super) accept_new_log: bool,
    /// The partition count has changed, and nothing lives on a partition that its key has left: else
    /// type `solewriter repartition`
    #[arg(long)]
    pub(super) accept_partitions: bool,
    /// The database was restored: what it holds now is the truth, and commands run again
    #[arg(long)]
    pub(super) accept_database: bool,
    /// The backlog is older than the horizon: commands older than that may be refused as expired
    #[arg(long)]
    pub(super) accept_expired: bool,
    /// The topic was compacted, and is not any more: commands that this removed are given up
    #[arg(long)]
    pub(super) accept_compacted: bool,
}

pub(super) async fn run(args: &Args, output: Output, config: &Config) -> anyhow::Result<Exit> {
    args.validate()?;
    let partitions = backend::resume(config, &args.target, args.why.reason(), &args.choices).await?;
    output.print(&Changes { partitions }, Changes::table)?;
    Ok(Exit::Done)
}

impl Args {
    /// An offset means something in one partition only.
    fn validate(&self) -> Result<(), Problem> {
        match (self.choices.skip_to, self.target.partition) {
            (Some(SkipTo::Offset(offset)), None) => Err(Problem::usage(format!(
                "--skip-to {offset} needs one partition: name it as {}:PARTITION",
                self.target
            ))),
            _ => Ok(()),
        }
    }
}
