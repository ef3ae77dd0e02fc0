//! `replay`: a range of the log, set against the tables.
//!
//! What the verbs share: how a range is written ([`range`]), how the log's commands are run again ([`again`]), and how
//! long work is shown and stopped ([`watch`]).

mod again;
mod leftovers;
mod plan;
mod range;
mod republish;
mod run;
mod try_handlers;
mod verify;
mod watch;

use clap::Subcommand;

use super::exit::Exit;
use super::output::Output;
use crate::config::Config;
use crate::worker::Worker;

/// Set the log against the tables: what became of it, is it right, publish it again, try other handlers on it
///
/// plan and republish take a range: offsets, times, an entity, a command type. verify, try and run run commands again,
/// in a shadow database; none on the live tables.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  solewriter replay plan accounts.commands --since 2h
  solewriter replay republish accounts.commands --since 1d --to downstream --execute --reason 'they lost a day'
  solewriter replay verify")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Plan(plan::Args),
    Republish(republish::Args),
    Run(run::Args),
    Verify(verify::Args),
    Try(try_handlers::Args),
}

pub(super) async fn run(args: Args, output: Output, worker: &Worker, config: &Config) -> anyhow::Result<Exit> {
    match args.verb {
        Verb::Plan(args) => plan::run(&args, output, config).await,
        Verb::Republish(args) => republish::run(&args, output, config).await,
        Verb::Run(args) => run::run(&args, output, worker, config).await,
        Verb::Try(args) => try_handlers::run(&args, output, worker, config).await,
        Verb::Verify(args) => verify::run(&args, output, worker, config).await,
    }
}
