//! `dev`: everything on this machine, with sample traffic, until the books balance.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::exit::{Exit, Problem};
use super::output::Output;
use super::signals;
use crate::config::Config;
use crate::dev::{self, View};
use crate::local::own_schema::{self, DropError};
use crate::telemetry::Health;
use crate::worker::Worker;

/// Run everything on this machine, with sample traffic
///
/// Runs the commands that the configuration names, and sends those of dev.jsonl, which lies beside
/// the configuration or in the directory above; without such commands, a bank that is part of this
/// program. A program with handlers in Rust runs these, with samples of its own.
///
/// An embedded broker, a private Postgres (or schemas of its own in DATABASE_URL, dropped at the
/// end) and two workers; one command in twenty is sent twice, and now and then a worker is stopped
/// and the other takes over. In a run of 20 s or more a third worker is halted while it owns
/// partitions, and wakes up when others have them: the fence refuses what it then writes. A live
/// view on a terminal, else lines. Ends with Ctrl-C, or after --for: finishes what was sent and
/// checks the books. Exit code 0 if they balance and did so all the time, 3 with the first
/// difference. Database and broker of the configuration file are ignored.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  solewriter dev --for 10s
  solewriter new cards && solewriter dev --config cards/config/solewriter.toml
  DATABASE_URL=postgres://localhost/app solewriter dev")]
pub(super) struct Args {
    /// End by itself after this long, such as 10s or 5m
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    length: Option<Duration>,
    /// For the process that outlives this one by a moment
    #[arg(long, hide = true, value_name = "SCHEMA")]
    drop_schema_at_end_of_input: Option<String>,
}

pub(super) async fn run(
    args: Args,
    output: Output,
    worker: Worker,
    load: impl FnOnce() -> Result<Config, crate::config::Error>,
) -> anyhow::Result<Exit> {
    if let Some(schema) = args.drop_schema_at_end_of_input {
        own_schema::drop_at_end_of_input(schema).await.map_err(not_dropped)?;
        return Ok(Exit::Done);
    }
    let shutdown = CancellationToken::new();
    signals::stop_on_signal(shutdown.clone(), Arc::new(Health::new()))?;
    let mut view = match output {
        Output::Table => View::for_people(),
        Output::Json => View::beside_a_program(),
    };
    let verdict = dev::run(worker, load()?, args.length, &mut view, shutdown).await.map_err(with_exit)?;
    view.verdict(&verdict);
    let exit = if verdict.books.is_ok() { Exit::Done } else { Exit::Difference };
    if output == Output::Json {
        let (balance, difference) = match &verdict.books {
            Ok(balance) => (Some(balance), None),
            Err(difference) => (None, Some(difference.to_string())),
        };
        let endings: Vec<_> = verdict.tally.counts().collect();
        let result = serde_json::json!({
            "balanced": balance.is_some(), "difference": difference, "balance": balance, "endings": endings
        });
        output.print(&result, |_| String::new())?;
    }
    Ok(exit)
}

fn with_exit(error: dev::Error) -> anyhow::Error {
    match error {
        dev::Error::NothingToRun(message) => Problem::usage(message).into(),
        error => error.into(),
    }
}

fn not_dropped(error: DropError) -> anyhow::Error {
    match error {
        DropError::NotOurs(_) => Problem::usage(error.to_string()).into(),
        error => error.into(),
    }
}
