//! `try`: one command in SQL, in a transaction that is rolled back.

mod find;
mod report;

use std::sync::Arc;

use anyhow::Context as _;
use jiff::Timestamp;
use uuid::Uuid;

use self::report::Report;
use super::backend;
use super::exit::Exit;
use super::output::Output;
use crate::config::Config;
use crate::dead_letter::DeadCode;
use crate::declared::Compiled;
use crate::handlers::sql::Call;
use crate::handlers::sql::typed::{Relation, TypedCommand};
use crate::handlers::{EntityHandlers, Handler};
use crate::outcome::escaped_detail;
use crate::postgres::{Store, Trial, TrialEnding, Tried};
use crate::record::{Record, TopicPartition};
use crate::runtime::worker_time_ms;
use crate::steps::decide::{Called, called, part_bytes_max};
use crate::steps::receive::receive;
use crate::steps::{Parking, Rules};
use crate::worker::{MESSAGE_BYTES_MAX, Worker};

/// Run one command in SQL and keep nothing of it
///
/// Runs the command as a worker would, in a transaction that is rolled back, and prints its outcome,
/// its events and the rows that it would have inserted or updated. Needs the database and no Kafka;
/// also works before `migrate` has made the command's function. Ends with 0 whatever the outcome is.
/// Of a sequence that a command draws from, the number is gone: that is never rolled back.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  solewriter try account.withdraw --key acct-42 --data '{\"amount\":30}'")]
pub(super) struct Args {
    /// The command's type, as the files declare it
    #[arg(value_name = "TYPE")]
    command_type: String,
    /// The entity's id
    #[arg(long, value_name = "KEY")]
    key: String,
    /// The payload
    #[arg(long, value_name = "JSON")]
    data: String,
    /// The record's time, such as 2026-12-01T09:00:00Z. Default: now
    #[arg(long, value_name = "TIME")]
    time: Option<Timestamp>,
    /// The command's id. Default: a new UUIDv7
    #[arg(long, value_name = "ID")]
    id: Option<Uuid>,
    /// The entity type, if several have a command of this type
    #[arg(long, value_name = "ENTITY")]
    entity: Option<String>,
}

/// The command that is tried, and what it would be decided with.
struct Candidate<'t> {
    command: &'t TypedCommand,
    handlers: Arc<EntityHandlers>,
    id: Uuid,
    time_ms: i64,
}

pub(super) async fn run(args: &Args, output: Output, worker: &Worker, config: &Config) -> anyhow::Result<Exit> {
    let declared = worker.declared(config)?;
    let entity = find::entity(args, worker, declared.declarations())?.clone();
    let store = backend::fitting_store(config).await?;
    let typed = declared.typed(&store).await?;
    let compiled = Compiled::of(&config.database, &typed);
    let of_type = |command: &&TypedCommand| {
        command.declaration.entity == entity && *command.declaration.command_type == *args.command_type
    };
    let command = typed.commands.iter().find(of_type).context("the command was examined and is gone")?;
    let handlers = compiled.handlers(&entity, None).context("the command was compiled and is gone")?;
    let candidate = Candidate {
        command,
        handlers,
        id: args.id.unwrap_or_else(Uuid::now_v7),
        time_ms: args.time.map_or_else(worker_time_ms, Timestamp::as_millisecond),
    };
    let tried = candidate.tried(args, config, &store, &compiled).await?;
    store.close().await;
    let report = Report::new(&candidate, args, tried, &config.database.tables_schema)?;
    output.print(&report, Report::text)?;
    Ok(Exit::Done)
}

impl Candidate<'_> {
    async fn tried(&self, args: &Args, config: &Config, store: &Store, compiled: &Compiled) -> anyhow::Result<Tried> {
        let (call, called) = match self.called(args, config) {
            Ok(called) => called,
            Err((code, why)) => {
                return Ok(Tried { ending: TrialEnding::Dead { code, field: None, why }, changes: Vec::new() });
            }
        };
        let runner = self.handlers.in_database.runner(call.serializable).context("nothing runs the command")?;
        let writes: Vec<&Relation> = self.command.writes();
        let trial = Trial {
            called: &called,
            runner,
            functions: &compiled.functions_of(&self.command.declaration.entity),
            tables_schema: &config.database.tables_schema,
            serializable: call.serializable,
            part_bytes_max: i32::try_from(part_bytes_max(MESSAGE_BYTES_MAX)).unwrap_or(i32::MAX),
            writes: &writes,
        };
        let mut tried = store.try_command(&trial).await.context("the command could not be tried")?;
        if let TrialEnding::Dead { field: Some(n), why, .. } = &mut tried.ending
            && let Some(field) = call.fields.fields().get(*n)
        {
            *why = format!("field {}: {why}", field.name);
        }
        Ok(tried)
    }

    /// What a worker would make of a record with this command.
    fn called(&self, args: &Args, config: &Config) -> Result<(Call, Called), (DeadCode, String)> {
        let id = self.id.to_string();
        let headers = [(&b"ce_id"[..], Some(id.as_bytes())), (b"ce_type", Some(args.command_type.as_bytes()))];
        let (key, data) = (args.key.as_bytes(), args.data.as_bytes());
        let record = Record::copied(0, self.time_ms, Some(key), Some(data), &headers);
        let rules = Rules {
            source: TopicPartition::new("try", 0),
            handlers: self.handlers.clone(),
            partition_count: 1,
            partitioner: crate::config::Partitioner::Murmur2,
            payload_bytes_max: config.worker.payload_bytes_max.get(),
            outcome_bytes_max: MESSAGE_BYTES_MAX,
            parking: Parking::default(),
        };
        let command = receive(record, &rules).map_err(|letter| (letter.code, letter.detail))?;
        let Handler::Sql(call) = &command.command_type.handler else {
            return Err((DeadCode::UnknownType, "its handler is in Rust".to_owned()));
        };
        let called = called(&command, &rules, call).map_err(|(code, why)| (code, escaped_detail(&why)))?;
        Ok((call.clone(), called))
    }
}
