//! `checkpoint`: a consistent cut of the tables that a rebuild can start from.

mod report;

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressDrawTarget};
use jiff::Timestamp;

use self::report::{Checkpoints, Dropped, Made, Shown};
use super::exit::{Exit, Problem};
use super::output::Output;
use super::{backend, operator, signals};
use crate::config::Config;
use crate::handlers::sql::typed::Relation;
use crate::postgres::CheckpointName;
use crate::postgres::{CheckpointError, NewCheckpoint, Store};
use crate::replay::progress::Progress;
use crate::worker::Worker;

/// How often a terminal shows that the work goes on.
const TICK: std::time::Duration = std::time::Duration::from_millis(200);

/// Keep a consistent cut of the tables, list those that are kept, or drop one
///
/// A checkpoint is a copy, in a schema of its own, of cursors, entities, dead letters that can still run and the
/// tables of commands in SQL, all as of one instant. Workers go on while it is made. It takes about the space
/// of what it copies.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  solewriter checkpoint create before_1_4_2 --reason 'the new interest rule'
  solewriter checkpoint list
  solewriter checkpoint drop before_1_4_2 --reason 'the rule has proved itself'")]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Create(CreateArgs),
    /// The checkpoints, with their cursors
    List,
    Drop(DropArgs),
}

/// Make a checkpoint
///
/// One snapshot is held until everything is copied; meanwhile nothing newer is vacuumed. Ctrl-C leaves
/// nothing behind; after a kill -9 `list` shows an unfinished checkpoint, and `drop` removes it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  solewriter checkpoint create before_1_4_2 --reason 'the new interest rule'")]
struct CreateArgs {
    /// 1 to 24 lower-case letters, digits and underscores. Default: the time, such as 20260131t073000
    #[arg(value_name = "NAME", conflicts_with = "named")]
    name: Option<CheckpointName>,
    /// The same, for those who look for an option
    #[arg(long = "name", value_name = "NAME", hide = true)]
    named: Option<CheckpointName>,
    /// Why, for the list and the audit
    #[arg(long, value_name = "TEXT", value_parser = operator::reason, default_value = "none given")]
    reason: String,
    /// Say what would be kept, and make nothing
    #[arg(long)]
    dry_run: bool,
}

/// Drop a checkpoint with all that it holds
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  solewriter checkpoint drop before_1_4_2 --dry-run
  solewriter checkpoint drop before_1_4_2 --reason 'the rule has proved itself'")]
struct DropArgs {
    /// Its name
    name: CheckpointName,
    #[command(flatten)]
    why: operator::Why,
}

pub(super) async fn run(args: Args, output: Output, worker: &Worker, config: &Config) -> anyhow::Result<Exit> {
    match args.verb {
        Verb::Create(args) => create(&args, output, worker, config).await,
        Verb::List => {
            let listed = backend::fitting_store(config).await?.checkpoints().await?;
            let checkpoints = Checkpoints { checkpoints: listed.into_iter().map(Shown::from).collect() };
            output.print(&checkpoints, Checkpoints::text)?;
            Ok(Exit::Done)
        }
        Verb::Drop(args) => drop(&args, output, config).await,
    }
}

async fn create(args: &CreateArgs, output: Output, worker: &Worker, config: &Config) -> anyhow::Result<Exit> {
    let now = || Timestamp::now().strftime("%Y%m%dt%H%M%S").to_string();
    let name = args.name.as_ref().or(args.named.as_ref());
    let name = name.cloned().map_or_else(|| now().parse(), Ok)?;
    // the tables of commands in SQL are known by what it names
    config.require_topics()?;
    let store = backend::fitting_store(config).await?;
    let typed = worker.declared(config)?.typed_if_any(&store).await?;
    let (written, read) = (typed.written(), typed.read());
    if args.dry_run {
        let would = Made { made: false, name: name.to_string(), tables: names(written, read), checkpoint: None };
        output.print(&would, Made::text)?;
        return Ok(Exit::Done);
    }
    let tables = names(written.clone(), read.clone());
    let new = NewCheckpoint { name: &name, actor: &backend::actor(), reason: &args.reason, written, read };
    let progress = Progress::default();
    signals::stop_work(&progress)?;
    // hidden unless stderr is a terminal
    let spinner = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_message("copying");
    spinner.enable_steady_tick(TICK);
    let made = store.create_checkpoint(&new, progress.stop_token()).await;
    spinner.finish_and_clear();
    let made = Made { made: true, name: name.to_string(), tables, checkpoint: Some(told(made)?.into()) };
    output.print(&made, Made::text)?;
    Ok(Exit::Done)
}

async fn drop(args: &DropArgs, output: Output, config: &Config) -> anyhow::Result<Exit> {
    let store: Store = backend::fitting_store(config).await?;
    let (dropped, row) = match args.why.reason() {
        Some(reason) => (true, told(store.drop_checkpoint(&args.name, &backend::actor(), reason).await)?),
        None => (false, told(store.any_checkpoint(&args.name).await)?),
    };
    output.print(&Dropped { dropped, checkpoint: row.into() }, Dropped::text)?;
    Ok(Exit::Done)
}

/// A name that cannot be meant is wrong usage.
fn told<T>(result: Result<T, CheckpointError>) -> anyhow::Result<T> {
    result.map_err(|error| match error {
        CheckpointError::Exists(_) | CheckpointError::Missing(_) | CheckpointError::NameTooLong(_) => {
            Problem::usage(error.to_string()).into()
        }
        error => error.into(),
    })
}

fn names(written: Vec<Relation>, read: Vec<Relation>) -> Vec<String> {
    let all = once(written.iter().chain(&read));
    all.into_iter().map(|Relation { schema, name }| format!("{schema}.{name}")).collect()
}

fn once<'r>(relations: impl Iterator<Item = &'r Relation>) -> Vec<Relation> {
    let mut relations: Vec<_> = relations.cloned().collect();
    relations.sort();
    relations.dedup();
    relations
}
