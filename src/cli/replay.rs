//! `replay`: a range of the log, set against the tables.
//!
//! What the verbs share: how a range is written ([`range`]), and how long work is shown and stopped ([`watch`]).

mod plan;
mod range;
mod republish;
mod watch;

use clap::Subcommand;

use super::exit::Exit;
use super::output::Output;
use crate::config::Config;

/// Read a range of the log again: what became of it, and publish it again
///
/// A range is offsets, times, an entity, a command type. No command is run again by these verbs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  solewriter replay plan accounts.commands --since 2h
  solewriter replay republish accounts.commands --since 1d --to downstream --execute --reason 'they lost a day'")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Plan(plan::Args),
    Republish(republish::Args),
}

pub(super) async fn run(args: Args, output: Output, config: &Config) -> anyhow::Result<Exit> {
    match args.verb {
        Verb::Plan(args) => plan::run(&args, output, config).await,
        Verb::Republish(args) => republish::run(&args, output, config).await,
    }
}
