//! `dead-letters`: what had no effect and why, and running it again or giving it up.

mod act;
mod filter;
mod list;
mod plan;
mod reproduce;
mod requested;
mod show;
mod withdraw;

use clap::Subcommand;

use super::exit::Exit;
use super::output::Output;
use crate::config::Config;
use crate::steps::decide::Action;

/// List dead letters, look at one, run them again, or give them up
///
/// A command that failed on its own account parks its key: later commands of that key wait, in order,
/// until it is redriven or discarded. Only the partition's owner changes dead letters; these verbs
/// request it, and need a worker that runs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  solewriter dead-letters list --state parked
  solewriter dead-letters show 17
  solewriter dead-letters redrive --topic accounts.commands --key acct-42
  solewriter dead-letters redrive --code handler-failed --since 2h --reason 'fixed in 1.4.2' --execute")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The letters, oldest first
    List(list::Args),
    /// One letter with its raw key, headers and value
    Show(show::Args),
    /// Run letters again, under their own command ids: a preview, unless --execute is given
    ///
    /// Of a parked key all letters run, in the order of the log, whichever of them the filter means;
    /// then the key is released. A letter that fails again is parked again, and what is behind it waits.
    /// A letter that parks nothing runs now, after what came behind it. A misrouted one is produced
    /// again, as it is, to the partition of its key.
    Redrive(act::RedriveArgs),
    /// Give letters up: a preview, unless --execute is given
    ///
    /// Each publishes an outcome, dead `discarded`. What waits behind a discarded letter goes on
    /// waiting, until it is redriven or discarded too.
    Discard(act::DiscardArgs),
    /// Take back what was requested and is not done yet: a preview, unless --execute is given
    Withdraw(withdraw::Args),
}

pub(super) async fn run(args: Args, output: Output, config: &Config) -> anyhow::Result<Exit> {
    match args.verb {
        Verb::List(args) => list::run(&args, output, config).await,
        Verb::Show(args) => show::run(&args, output, config).await,
        Verb::Redrive(args) => {
            let edit = args.edit.as_deref().map(act::read_edit).transpose()?;
            let wanted = act::Wanted { action: Action::Redrive, accept_expired: args.accept_expired, edit };
            act::run(wanted, &args.common, output, config).await
        }
        Verb::Discard(args) => {
            let wanted = act::Wanted { action: Action::Discard, accept_expired: false, edit: None };
            act::run(wanted, &args.common, output, config).await
        }
        Verb::Withdraw(args) => withdraw::run(&args, output, config).await,
    }
}
