//! What a worker does before it settles: it waits for database, broker and topics, and joins the
//! group.

use std::fmt::Display;
use std::sync::{Arc, Once};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::{RunError, Worker};
use crate::config::{self, Config};
use crate::dead_letter::Mirror;
use crate::declared::{Compiled, Declared, DeclaredError};
use crate::horizon::Horizon;
use crate::kafka::{self, Budget, Consumer, InspectError, Inspector, Notice, Producer, Topics};
use crate::postgres::{self, ReachError, Store};
use crate::runtime::{Limits, Runtime, Topic};
use crate::steps::Parking;
use crate::telemetry::Health;
use crate::writer::{DeadLetterTopic, PublishTo, backoff};

/// How long one question to Kafka may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest wait between two attempts to reach a dependency at the start.
const START_WAIT_MAX: Duration = Duration::from_secs(2);
/// What a topic takes if the broker does not tell: Kafka's default, in bytes.
pub(crate) const MESSAGE_BYTES_MAX: usize = 1_000_000;

type Started = (Arc<Runtime>, tokio::sync::mpsc::UnboundedReceiver<Notice>);

/// Waits for database, broker and topics, in this order, and joins the group.
pub(super) async fn start(
    worker: &Worker,
    config: &Config,
    declared: &Declared,
    health: Arc<Health>,
) -> Result<Started, RunError> {
    let owner = owner();
    let client = kafka::Client::new(&config.kafka, &owner)?;
    let store = Store::new(&config.database, &owner)?;
    retried(ReachError::is_passing, || store.reach()).await?;
    wait_for_schema(&store, config).await?;
    health.set_schema_ok(true);
    health.set_database_ok(true);
    let inspector = Arc::new(Inspector::new(&client, ASK_TIMEOUT)?);
    let compiled = wait_for_functions(declared, &store).await?;
    let admin = Topics::new(&client, ASK_TIMEOUT)?;
    let answers = match config.topics.first() {
        Some(topic) => {
            // a broker that cannot be reached answers nothing
            wait_for_topic(&inspector, &client.bootstrap_servers, &topic.name).await;
            answers_settings(&inspector, &topic.name).await
        }
        None => false,
    };
    let broker = Broker { inspector: &inspector, admin: &admin, answers };
    let topics = topics(worker, &compiled, config, &client, &broker, &store).await?;
    let settings = answers.then_some(admin);
    // after the topics: a client that has asked for metadata knows it at once,
    // a fresh one waits a second
    let cluster_id = wait_for_cluster(&inspector, &client.bootstrap_servers).await;
    let budget = Budget::new(config.worker.in_flight_bytes_max.get());
    let names: Vec<&str> = config.topics.iter().map(|topic| &*topic.name).collect();
    let horizon = Horizon(retried(postgres::Error::is_passing, || store.horizon()).await?.at_ms);
    let batch_bytes_max = topics.iter().map(|topic| topic.least_bytes_max()).min().unwrap_or(MESSAGE_BYTES_MAX);
    let producer = Arc::new(Producer::new(client.clone(), batch_bytes_max)?);
    // last: from here on this process is a member of the group
    let turning = health.clone();
    let (consumer, notices) = Consumer::start(&client, &names, budget.clone(), move || turning.poll_turned())?;
    let runtime = Runtime {
        producer,
        consumer,
        store,
        settings,
        inspector,
        budget,
        unpublished: Arc::default(),
        topics,
        limits: Limits::new(config),
        owner,
        bootstrap_servers: client.bootstrap_servers.clone(),
        cluster_id,
        group_id: config.kafka.group_id.clone(),
        health,
        horizon: watch::Sender::new(horizon),
        horizon_wanted: Notify::new(),
        witnesses: std::sync::Mutex::default(),
        failed: watch::Sender::new(None),
    };
    Ok((Arc::new(runtime), notices))
}

/// Differs for every process, and says which one it is.
fn owner() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}:{}:{:08x}", std::process::id(), fastrand::u32(..))
}

async fn wait_for_schema(store: &Store, config: &Config) -> Result<(), RunError> {
    let schema = &config.database.schema;
    let state = retried(postgres::Error::is_passing, || store.schema_state()).await?;
    state.refusal(schema, "worker").map_or(Ok(()), |refusal| Err(RunError::Schema(refusal)))
}

/// The functions of commands in SQL, which `migrate` has made: nobody runs what he does not know.
async fn wait_for_functions(declared: &Declared, store: &Store) -> Result<Compiled, RunError> {
    let compiled = retried(DeclaredError::is_passing, || declared.compile(store)).await?;
    let absent = retried(postgres::Error::is_passing, || compiled.absent(store)).await?;
    if absent.is_empty() { Ok(compiled) } else { Err(DeclaredError::NotMigrated(absent).into()) }
}

/// Repeats a question to the database until it is answered; what waiting does not mend ends the
/// process.
async fn retried<T, E: Display, F>(is_passing: impl Fn(&E) -> bool, ask: impl Fn() -> F) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let mut waits = backoff(START_WAIT_MAX);
    loop {
        match ask().await {
            Err(error) if is_passing(&error) => tracing::warn!(%error, "waiting for the database"),
            answered => return answered,
        }
        tokio::time::sleep(waits.next().unwrap_or(START_WAIT_MAX)).await;
    }
}

async fn wait_for_cluster(inspector: &Arc<Inspector>, bootstrap_servers: &str) -> String {
    loop {
        let asked = inspector.clone();
        match tokio::task::spawn_blocking(move || asked.cluster_id()).await {
            Ok(Some(id)) => return id,
            _ => tracing::warn!(bootstrap_servers, "waiting for the Kafka cluster: no broker answers"),
        }
    }
}

/// Who is asked for topics.
struct Broker<'a> {
    inspector: &'a Arc<Inspector>,
    admin: &'a Topics,
    /// It tells topics' settings.
    answers: bool,
}

async fn topics(
    worker: &Worker,
    compiled: &Compiled,
    config: &Config,
    client: &kafka::Client,
    broker: &Broker<'_>,
    store: &Store,
) -> Result<Vec<Arc<Topic>>, RunError> {
    let mut topics = Vec::new();
    for topic in &config.topics {
        let partition_count = wait_for_topic(broker.inspector, &client.bootstrap_servers, &topic.name).await;
        let publish_to = PublishTo {
            outcomes: publish_topic(broker, &topic.outcomes_topic(), partition_count).await?,
            events: publish_topic(broker, &topic.events_topic(), partition_count).await?,
            dead_letters: dead_letter_topic(broker, client, topic, partition_count).await?,
        };
        let outcome_bytes_max = outcome_bytes_max(broker, &publish_to).await;
        let Some(handlers) = compiled.handlers(&topic.entity, worker.handlers(&topic.entity)) else { continue };
        let names = handlers.command_names();
        let names: Vec<&str> = names.iter().map(|name| &**name).collect();
        let numbered =
            retried(postgres::Error::is_passing, || store.number_command_types(&topic.name, &topic.entity, &names))
                .await?;
        let number =
            move |name: &str| numbered.iter().find(|row| row.command_type == name).map_or(0, |row| row.type_id);
        topics.push(Arc::new(Topic {
            name: topic.name.as_str().into(),
            handlers,
            type_ids: Arc::new(number),
            partitioner: topic.partitioner,
            start: topic.start,
            parking: Parking {
                on_failure: topic.on_failure,
                waiting_per_key_max: config.worker.waiting_per_key_max.get(),
                waiting_max: config.worker.waiting_max.get(),
            },
            partition_count,
            publish_to,
            outcome_bytes_max,
            unknown_policy: Once::new(),
            unread_outcomes: Once::new(),
        }));
    }
    Ok(topics)
}

/// The command topic is never made here: its partition count is a decision.
async fn wait_for_topic(inspector: &Arc<Inspector>, bootstrap_servers: &str, topic: &str) -> i32 {
    let mut waits = backoff(START_WAIT_MAX);
    loop {
        let (asked, name) = (inspector.clone(), topic.to_owned());
        match tokio::task::spawn_blocking(move || asked.partition_count(&name)).await {
            Ok(Ok(count)) => return count,
            Ok(Err(InspectError::NoTopic)) => {
                let create = kafka::how_to_create(bootstrap_servers, topic);
                tracing::warn!(topic, create, "waiting for the command topic: it does not exist");
            }
            Ok(Err(error)) => tracing::warn!(topic, %error, "waiting for the command topic"),
            Err(error) => tracing::error!(topic, %error, "asking for the command topic"),
        }
        tokio::time::sleep(waits.next().unwrap_or(START_WAIT_MAX)).await;
    }
}

/// A topic to publish to: made if it is missing.
async fn publish_topic(broker: &Broker<'_>, topic: &str, partitions: i32) -> Result<(Arc<str>, i32), RunError> {
    let mut waits = backoff(START_WAIT_MAX);
    loop {
        let (asked, name) = (broker.inspector.clone(), topic.to_owned());
        let error: Box<dyn std::error::Error + Send + Sync> =
            match tokio::task::spawn_blocking(move || asked.partition_count(&name)).await {
                Ok(Ok(count)) => return Ok((topic.into(), count)),
                Ok(Err(InspectError::NoTopic)) => match broker.admin.create(topic, partitions).await {
                    Ok(()) => continue,
                    Err(error) if error.is_refusal() => return Err(error.into()),
                    Err(error) => error.into(),
                },
                Ok(Err(error)) => error.into(),
                Err(error) => error.into(),
            };
        tracing::warn!(topic, %error, "waiting for the topic to publish to");
        tokio::time::sleep(waits.next().unwrap_or(START_WAIT_MAX)).await;
    }
}

/// What a topic takes, as far as the broker tells: bytes.
async fn bytes_max(broker: &Broker<'_>, topic: &str) -> Option<usize> {
    if !broker.answers {
        return None;
    }
    broker.admin.message_bytes_max(topic).await.ok()?
}

async fn outcome_bytes_max(broker: &Broker<'_>, publish_to: &PublishTo) -> usize {
    let mut least = MESSAGE_BYTES_MAX;
    for (topic, _) in [&publish_to.outcomes, &publish_to.events] {
        least = least.min(bytes_max(broker, topic).await.unwrap_or(MESSAGE_BYTES_MAX));
    }
    least
}

/// Where a topic's dead letters are mirrored to, if they are.
async fn dead_letter_topic(
    broker: &Broker<'_>,
    client: &kafka::Client,
    topic: &config::Topic,
    partitions: i32,
) -> Result<Option<DeadLetterTopic>, RunError> {
    let Some(name) = &topic.dead_letter_topic else { return Ok(None) };
    let made = publish_topic(broker, name, partitions).await?;
    let record_bytes_max = bytes_max(broker, &made.0).await.unwrap_or(MESSAGE_BYTES_MAX);
    let mirror = Mirror {
        group_id: client.group_id.as_str().into(),
        record_bytes_max: record_bytes_max.min(client.record_bytes_max()),
    };
    Ok(Some(DeadLetterTopic { topic: made, mirror }))
}

/// Whether the cluster has somebody to ask for a topic's settings.
async fn answers_settings(inspector: &Arc<Inspector>, topic: &str) -> bool {
    let (asked, topic) = (inspector.clone(), topic.to_owned());
    tokio::task::spawn_blocking(move || asked.has_controller(&topic)).await.unwrap_or(true)
}
