//! The seam between the verbs and what they speak of: every look at Kafka or Postgres that a verb
//! takes is one function here.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::check::Check;
use super::exit::{Problem, message};
use super::migrate::Migrated;
use super::operator::{Change, SkipTo, Target};
use super::resume::Choices;
use super::status::{Halt, PartitionStatus};
use crate::config::Config;
use crate::declared::{Compiled, Declared};
use crate::halt::HaltCode;
use crate::handlers::sql::diagnostic::Diagnostics;
use crate::kafka::{self, Inspector, LogEnd};
use crate::postgres::{self, Layout, OperatorAction, Resume, SchemaState, Store};
use crate::record::TopicPartition;
use crate::runtime::worker_time_ms;
use crate::telemetry::{Health, PartitionState};
use crate::worker::Worker;

/// How long a one-shot verb waits for Kafka.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs the worker until `shutdown`, drains, and returns; waits for dependencies that are not there.
pub(super) async fn run(
    worker: Worker,
    config: Config,
    health: Arc<Health>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    Ok(worker.run_observed(config, health, shutdown).await?)
}

/// The statements that `migrate` would run on an empty database.
pub(super) fn migration_sql(config: &Config) -> anyhow::Result<String> {
    Ok(postgres::script(&config.database.schema, config.deduplication.window_ms()))
}

/// Creates or upgrades the schema.
pub(super) async fn migrate(worker: &Worker, config: &Config) -> anyhow::Result<Migrated> {
    let declared = worker.declared(config)?;
    let store = Store::new(&config.database, "solewriter migrate")?;
    store.reach().await?;
    let done = store.migrate(config.deduplication.window_ms()).await.context("the schema was not migrated")?;
    let tables = declared.make_tables(&store).await?;
    let functions = declared.compile(&store).await?.make(&store).await.context("functions were not made")?;
    let schema = config.database.schema.clone();
    let made_schemas = done.made_schema.then(|| schema.clone()).into_iter().chain(tables.schema).collect();
    let (version, applied) = (done.version, done.applied);
    Ok(Migrated { schema, version, made_schemas, applied, scripts: tables.scripts, functions })
}

/// Looks at every dependency, topic, partition count, permission and handler. A dependency that
/// cannot be reached is a failed check, not an error.
pub(super) async fn check(worker: &Worker, config: &Config) -> anyhow::Result<Vec<Check>> {
    let (declared, Diagnostics(mistakes)) = Declared::read(config, &worker.entity_types().collect::<Vec<_>>());
    let mut checks: Vec<_> = mistakes.iter().map(super::check_sql::failed).collect();
    // entity types that are declared in files which cannot be read are not without handlers
    if mistakes.is_empty() {
        checks.extend(super::check_config::handlers(worker, config, declared.declarations()));
    }
    let (database, known) = super::check_database::checks(config).await?;
    let reached = database.iter().all(|check| check.name != super::check_database::DATABASE || !check.has_failed());
    checks.extend(database);
    let mut compiled = Compiled::default();
    if reached {
        let (said, functions) = super::check_sql::checks(&declared, &mistakes, config).await?;
        checks.extend(said);
        compiled = functions;
    }
    let handlers = |entity: &str| compiled.handlers(entity, worker.handlers(entity));
    checks.extend(super::check_kafka::checks(handlers, config, &known).await?);
    Ok(checks)
}

/// Every partition of the configured topics, in order.
pub(super) async fn status(config: &Config) -> anyhow::Result<Vec<PartitionStatus>> {
    let store = fitting_store(config).await?;
    let rows = store.status().await?;
    let inspector = inspector(config)?;
    let members = members(&inspector, &config.kafka.group_id).await;
    let mut partitions = Vec::with_capacity(rows.len());
    for row in rows {
        let log = log(&inspector, TopicPartition::new(&*row.topic, row.partition), row.next_offset).await;
        if let Err(error) = &log {
            tracing::warn!(topic = row.topic, partition = row.partition, error = message(error), "the log is unknown");
        }
        let owned = members.as_ref().is_none_or(|members| members.contains(&row.owner));
        partitions.push(shown(row, log.ok(), owned));
    }
    Ok(partitions)
}

/// The client ids of the group's members, if Kafka tells.
async fn members(inspector: &Arc<Inspector>, group_id: &str) -> Option<HashSet<String>> {
    let (inspector, group_id) = (inspector.clone(), group_id.to_owned());
    let asked = tokio::task::spawn_blocking(move || inspector.members(&group_id)).await;
    let asked = asked.map_err(anyhow::Error::from).and_then(|members| Ok(members?));
    asked.unwrap_or_else(|error| {
        tracing::warn!(%error, "the members of the consumer group are unknown");
        None
    })
}

/// What `status` asks of a log.
struct Log {
    end_offset: i64,
    /// The time of the first record at or after the cursor, milliseconds since 1970.
    oldest_ms: Option<i64>,
}

async fn log(inspector: &Arc<Inspector>, source: TopicPartition, next_offset: i64) -> anyhow::Result<Log> {
    let inspector = inspector.clone();
    tokio::task::spawn_blocking(move || {
        let end_offset = inspector.log_end(&source)?.high;
        let oldest_ms = match end_offset > next_offset {
            // whoever may not read the topic still sees how far it is behind
            true => inspector.first_time_from(&source, next_offset).unwrap_or_else(|error| {
                tracing::warn!(%source, %error, "the age of the lag is unknown");
                None
            }),
            false => None,
        };
        Ok(Log { end_offset, oldest_ms })
    })
    .await?
}

fn shown(row: postgres::PartitionStatus, log: Option<Log>, owned: bool) -> PartitionStatus {
    let lag_records = log.as_ref().map(|log| (log.end_offset - row.next_offset).max(0));
    let since_ms = |at: i64| (worker_time_ms() - at).max(0) as f64 / 1000.0;
    // a lag of unknown age: behind an open transaction, or not to be read
    let lag_seconds = log.as_ref().and_then(|log| match log.oldest_ms {
        None if log.end_offset > row.next_offset => None,
        oldest_ms => Some(oldest_ms.map_or(0.0, since_ms)),
    });
    let halt = Halt::of(&row);
    PartitionStatus {
        topic: row.topic,
        partition: row.partition,
        state: match (&halt, owned) {
            (Some(_), _) => PartitionState::Halted,
            (None, true) => PartitionState::Running,
            (None, false) => PartitionState::Claiming,
        },
        owner: Some(row.owner),
        fencing_token: row.fencing_token,
        next_offset: row.next_offset,
        published_offset: row.published_offset,
        end_offset: log.map(|log| log.end_offset),
        lag_records,
        lag_seconds,
        parked_keys: row.parked_keys,
        halt,
    }
}

/// Halts partitions with code `operator` and audits it; without a reason, says what it would do.
pub(super) async fn halt(config: &Config, target: &Target, reason: Option<&str>) -> anyhow::Result<Vec<Change>> {
    let store = fitting_store(config).await?;
    let actor = actor();
    let mut changes = Vec::new();
    for row in targeted(&store, target).await? {
        let source = TopicPartition::new(&*row.topic, row.partition);
        let changed = match reason {
            Some(reason) => store.operator_halt(&OperatorAction { source: &source, actor: &actor, reason }).await?,
            None => false,
        };
        let detail = match (changed, &row.halted_code) {
            (true, _) => "halted".to_owned(),
            (false, Some(code)) => format!("is halted already: {code}"),
            (false, None) if reason.is_none() => {
                format!("would be halted at offset {}; the partitions that are not named go on", row.next_offset)
            }
            (false, None) => "was halted meanwhile".to_owned(),
        };
        changes.push(Change { topic: row.topic, partition: row.partition, changed, detail });
    }
    Ok(changes)
}

/// Lifts halts whose question the choices answer, and audits it; without a reason, says what it would
/// do.
pub(super) async fn resume(
    config: &Config,
    target: &Target,
    reason: Option<&str>,
    choices: &Choices,
) -> anyhow::Result<Vec<Change>> {
    let store = fitting_store(config).await?;
    let inspector = inspector(config)?;
    let actor = actor();
    let mut changes = Vec::new();
    for row in targeted(&store, target).await? {
        let source = TopicPartition::new(&*row.topic, row.partition);
        let (changed, detail) = match &row.halted_code {
            None => (false, "is not halted".to_owned()),
            Some(code) => {
                let resume = chosen(choices, &inspector, &source).await?;
                if !resume.resolves(code) {
                    return Err(unanswered(code, &source).into());
                }
                let layout = layout(config, &inspector, &source).await?;
                if resume == Resume::AcceptPartitions {
                    super::repartition::refuse_misplaced(&store, &layout).await?;
                }
                match reason {
                    None => (false, format!("would be resumed: {resume} resolves {code}; {}", way_on(resume, &row))),
                    Some(reason) => {
                        let action = OperatorAction { source: &source, actor: &actor, reason };
                        match store.operator_resume(&action, code, resume, &layout).await? {
                            true => (true, format!("resumed: {resume} resolves {code}; {}", way_on(resume, &row))),
                            false => (false, "was changed meanwhile: look again".to_owned()),
                        }
                    }
                }
            }
        };
        changes.push(Change { topic: row.topic, partition: row.partition, changed, detail });
    }
    Ok(changes)
}

/// Where a partition would go on, and what that means.
fn way_on(resume: Resume, row: &postgres::PartitionStatus) -> String {
    let next = row.next_offset;
    match resume {
        Resume::SkipTo(to) if to > next => {
            format!("it goes on at offset {to}, and records {next} to {} are never settled", to - 1)
        }
        Resume::SkipTo(to) | Resume::AcceptNewLog(to) => {
            format!("it goes on at offset {to}, and what is settled already is answered from the tables")
        }
        _ => format!("it goes on at offset {next}"),
    }
}

/// How the topic's keys are placed now.
async fn layout<'c>(
    config: &'c Config,
    inspector: &Arc<Inspector>,
    source: &TopicPartition,
) -> anyhow::Result<Layout<'c>> {
    let topic = config.topics.iter().find(|topic| *topic.name == *source.topic);
    let topic = topic.ok_or_else(|| Problem::usage(format!("topic {} is not in the configuration", source.topic)))?;
    let (inspector, name) = (inspector.clone(), topic.name.clone());
    let asked = tokio::task::spawn_blocking(move || inspector.partition_count(&name)).await?;
    let partition_count = asked.map_err(|error| Problem::unreachable(format!("{source}: {error}")))?;
    Ok(Layout { topic: &topic.name, entity_type: &topic.entity, partitioner: topic.partitioner, partition_count })
}

fn unanswered(code: &str, source: &TopicPartition) -> Problem {
    match HaltCode::parse(code) {
        Some(known) => Problem::usage(format!(
            "{source} is halted with {code}, which asks for an explicit choice; type: {}",
            known.resolve(source)
        )),
        None => Problem::usage(format!("{source} is halted with {code}, which this version does not know: upgrade it")),
    }
}

/// The one choice that was made.
async fn chosen(choices: &Choices, inspector: &Arc<Inspector>, source: &TopicPartition) -> anyhow::Result<Resume> {
    let mut made = Vec::new();
    if let Some(skip_to) = choices.skip_to {
        made.push(Resume::SkipTo(match skip_to {
            SkipTo::Offset(offset) => {
                let high = log_end(inspector, source).await?.high;
                if offset > high {
                    return Err(Problem::usage(format!("{source} ends at {high}: offset {offset} is beyond it")).into());
                }
                offset
            }
            SkipTo::Earliest => log_end(inspector, source).await?.low,
            SkipTo::Latest => log_end(inspector, source).await?.high,
        }));
    }
    if choices.accept_new_log {
        made.push(Resume::AcceptNewLog(log_end(inspector, source).await?.low));
    }
    let flags = [
        (choices.accept_partitions, Resume::AcceptPartitions),
        (choices.accept_database, Resume::AcceptDatabase),
        (choices.accept_expired, Resume::AcceptExpired),
        (choices.accept_compacted, Resume::AcceptCompacted),
    ];
    made.extend(flags.into_iter().filter(|(given, _)| *given).map(|(_, resume)| resume));
    match made.as_slice() {
        [] => Ok(Resume::Plain),
        [one] => Ok(*one),
        _ => Err(Problem::usage("one choice at a time: each --accept-… and --skip-to answers another halt").into()),
    }
}

async fn targeted(store: &Store, target: &Target) -> anyhow::Result<Vec<postgres::PartitionStatus>> {
    let mut rows = store.status().await?;
    rows.retain(|row| row.topic == target.topic && target.partition.is_none_or(|p| p == row.partition));
    if rows.is_empty() {
        return Err(Problem::usage(format!("{target} has never been claimed; see: solewriter status")).into());
    }
    Ok(rows)
}

pub(super) fn actor() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "unknown".into());
    format!("{user}@{}", rustix::system::uname().nodename().to_string_lossy())
}

/// The database, if its schema is one that this version can speak of.
pub(super) async fn fitting_store(config: &Config) -> anyhow::Result<Store> {
    let store = Store::new(&config.database, "solewriter")?;
    store.reach().await?;
    let state = store.schema_state().await?;
    let Some(refusal) = state.refusal(&config.database.schema, "program") else { return Ok(store) };
    let restored = if state == SchemaState::Missing { " (if it is being restored, wait)" } else { "" };
    Err(Problem::usage(refusal + restored).into())
}

pub(super) fn inspector(config: &Config) -> anyhow::Result<Arc<Inspector>> {
    let client = kafka::Client::new(&config.kafka, "solewriter")?;
    Ok(Arc::new(Inspector::new(&client, ASK_TIMEOUT)?))
}

pub(super) async fn log_end(inspector: &Arc<Inspector>, source: &TopicPartition) -> anyhow::Result<LogEnd> {
    let (inspector, asked) = (inspector.clone(), source.clone());
    let end = tokio::task::spawn_blocking(move || inspector.log_end(&asked)).await?;
    end.map_err(|error| Problem::unreachable(format!("{source}: {error}")).into())
}
