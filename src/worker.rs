//! The worker: a builder for handlers, and `run`.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::KafkaError;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config};
use crate::handlers::EntityHandlers;
use crate::handlers::rust::{Entity, EntityBuilder};
use crate::horizon::Horizon;
use crate::kafka::{self, Budget, Consumer, InspectError, Inspector, Notice, Producer, TopicError, Topics};
use crate::postgres::{self, ReachError, SchemaState, Store};
use crate::runtime::{Limits, Runtime, Topic};
use crate::telemetry::Health;
use crate::writer::{PublishTo, backoff};

/// How long one question to Kafka may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest wait between two attempts to reach a dependency at the start.
const START_WAIT_MAX: Duration = Duration::from_secs(2);
/// What a topic takes if the broker does not tell: Kafka's default, in bytes.
const MESSAGE_BYTES_MAX: usize = 1_000_000;

/// A worker: entity types with their handlers.
///
/// ```no_run
/// # use serde::{Deserialize, Serialize};
/// # use solewriter::{Context, Rejection, Worker};
/// # #[derive(Clone, Default, Serialize, Deserialize)] struct Account { balance: i64 }
/// # #[derive(Deserialize)] struct Amount { amount: i64 }
/// # impl Account { fn deposit(&mut self, d: Amount, _: &mut Context) -> Result<i64, Rejection> { self.balance += d.amount; Ok(self.balance) } }
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use solewriter::config::Config;
/// use tokio_util::sync::CancellationToken;
///
/// let worker = Worker::new().entity::<Account>("account", |e| e.on("account.deposit", Account::deposit));
/// worker.run(Config::load(None)?, CancellationToken::new()).await?;
/// # Ok(()) }
/// ```
///
/// Cheap to clone: the handlers are shared, so one process can run it twice.
#[derive(Clone, Default)]
pub struct Worker {
    entities: Vec<Arc<EntityHandlers>>,
    /// What `dev` sends.
    #[cfg(feature = "dev")]
    pub(crate) samples: Vec<crate::dev::SampleTraffic>,
}

/// Running failed. A database or broker that is away is waited for instead.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The configuration cannot be used.
    #[error("the configuration cannot be used")]
    Config(#[from] config::Error),
    /// The database's address cannot be used.
    #[error("the database cannot be used")]
    Connect(#[from] postgres::ConnectError),
    /// A topic names an entity type without handlers.
    #[error("topic {topic} holds commands of entity type {entity:?}, for which this worker has no handlers ({known})")]
    NoHandlers {
        /// The topic.
        topic: String,
        /// Its entity type.
        entity: String,
        /// The entity types that there are.
        known: String,
    },
    /// The schema does not fit this worker.
    #[error("{0}")]
    Schema(String),
    /// The partitions' rows belong to another cluster or consumer group.
    #[error("{0}; give this worker a schema of its own (database.schema), or that group (kafka.group_id)")]
    AnotherGroup(String),
    /// A topic is missing and cannot be made.
    #[error("a topic to publish to is missing")]
    Topic(#[from] TopicError),
    /// The database refuses the connection.
    #[error("{0}")]
    Reach(#[from] ReachError),
    /// The Kafka client refuses a setting.
    #[error("the Kafka client cannot be made")]
    Client(#[from] KafkaError),
    /// The Kafka client cannot go on.
    #[error("the Kafka client reported a fatal error: {0}")]
    Fatal(String),
    /// The database refuses what no retry mends.
    #[error("the database refuses")]
    Database(#[from] postgres::Error),
}

impl Worker {
    /// A worker without handlers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers an entity type with its command types; see
    /// [`handlers::rust`](crate::handlers::rust).
    ///
    /// # Panics
    /// If the entity type is registered twice: a mistake in the program.
    #[must_use]
    pub fn entity<E: Entity>(
        mut self,
        entity_type: &str,
        commands: impl FnOnce(EntityBuilder<E>) -> EntityBuilder<E>,
    ) -> Self {
        assert!(self.handlers(entity_type).is_none(), "entity type {entity_type} is registered twice");
        self.entities.push(Arc::new(commands(EntityBuilder::new(entity_type)).into_handlers()));
        self
    }

    /// The sample traffic of an entity type, for the verb `dev`: `next` makes one
    /// command after another, `holds` says how much of what they add is in a
    /// state. At the end the sum over all states has to be what the applied
    /// commands added. See [`Sample`](crate::dev::Sample).
    ///
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// # use solewriter::{Context, Rejection, Worker};
    /// # #[derive(Clone, Default, Serialize, Deserialize)] struct Jar { beans: i64 }
    /// # impl Jar { fn fill(&mut self, fill: Fill, _: &mut Context) -> Result<i64, Rejection> { self.beans += fill.beans; Ok(self.beans) } }
    /// # #[derive(Serialize, Deserialize)] struct Fill { beans: i64 }
    /// use solewriter::dev::{Sample, Sampler};
    ///
    /// fn fill_a_jar(sampler: &mut Sampler) -> Sample {
    ///     let beans = sampler.number(1..=9);
    ///     Sample::new(format!("jar-{}", sampler.number(1..=50)), "jar.fill", &Fill { beans }).adds(beans)
    /// }
    ///
    /// let worker = Worker::new()
    ///     .entity::<Jar>("jar", |e| e.on("jar.fill", Jar::fill))
    ///     .sample("jar", fill_a_jar, |jar: &Jar| jar.beans);
    /// ```
    ///
    /// # Panics
    /// If the entity type is not registered: a mistake in the program.
    #[cfg(feature = "dev")]
    #[must_use]
    pub fn sample<E: Entity>(
        mut self,
        entity_type: &str,
        next: impl Fn(&mut crate::dev::Sampler) -> crate::dev::Sample + Send + Sync + 'static,
        holds: impl Fn(&E) -> i64 + Send + Sync + 'static,
    ) -> Self {
        assert!(self.handlers(entity_type).is_some(), "sample traffic for {entity_type}, which is not registered");
        self.samples.push(crate::dev::SampleTraffic::new(entity_type, next, holds));
        self
    }

    /// What `dev` calls the two sides of the sum of an entity type's [`sample`](Self::sample)
    /// traffic, such as `"sum of balances"` and `"deposited"`.
    ///
    /// # Panics
    /// If the entity type has no sample traffic: a mistake in the program.
    #[cfg(feature = "dev")]
    #[must_use]
    pub fn sample_sum(mut self, entity_type: &str, held: &str, added: &str) -> Self {
        let sample = self.samples.iter_mut().find(|sample| *sample.entity_type == *entity_type);
        let sample = sample.unwrap_or_else(|| panic!("a sum for {entity_type}, which has no sample traffic"));
        sample.words = crate::dev::Words { held: held.to_owned(), added: added.to_owned() };
        self
    }

    /// What a stored state holds; `None` without sample traffic for the type.
    #[cfg(feature = "dev")]
    pub(crate) fn sample_holds(&self, entity_type: &str, state: &str) -> Option<Result<i64, String>> {
        self.samples.iter().find(|samples| *samples.entity_type == *entity_type).map(|samples| (samples.holds)(state))
    }

    /// The registered entity types.
    pub fn entity_types(&self) -> impl Iterator<Item = &str> {
        self.entities.iter().map(|entity| &*entity.entity_type)
    }

    /// The handlers of an entity type.
    pub fn handlers(&self, entity_type: &str) -> Option<&Arc<EntityHandlers>> {
        self.entities.iter().find(|entity| *entity.entity_type == *entity_type)
    }

    /// The whole command line with these handlers; see `--help`.
    #[cfg(feature = "cli")]
    pub fn main(self) -> std::process::ExitCode {
        crate::cli::main(self)
    }

    /// Runs inside an existing tokio service until `shutdown` is cancelled, then
    /// drains and returns. Installs no subscriber, recorder or signal handler and
    /// never ends the process. Needs the multi-threaded runtime.
    ///
    /// # Errors
    /// See [`RunError`]. A database or broker that is away is waited for.
    pub async fn run(self, config: Config, shutdown: CancellationToken) -> Result<(), RunError> {
        self.run_observed(config, Arc::new(Health::new()), shutdown).await
    }

    /// The same, reporting to `health`.
    ///
    /// # Errors
    /// See [`RunError`].
    pub async fn run_observed(
        self,
        config: Config,
        health: Arc<Health>,
        shutdown: CancellationToken,
    ) -> Result<(), RunError> {
        config.validate_for_run()?;
        self.check_handlers(&config)?;
        let starting = start(&self, &config, health);
        let Some(started) = shutdown.run_until_cancelled(starting).await else { return Ok(()) };
        let (worker, notices) = started?;
        let failed = worker.failed.clone();
        let ended = crate::assignment::run(worker, notices, shutdown).await;
        match failed.borrow().clone() {
            Some(message) => Err(RunError::AnotherGroup(message)),
            None => ended.map_err(RunError::Fatal),
        }
    }

    /// Every topic's entity type has handlers.
    fn check_handlers(&self, config: &Config) -> Result<(), RunError> {
        for topic in &config.topics {
            if self.handlers(&topic.entity).is_none() {
                let known: Vec<&str> = self.entity_types().collect();
                let known =
                    if known.is_empty() { "it has none".into() } else { format!("it has {}", known.join(", ")) };
                let (topic, entity) = (topic.name.clone(), topic.entity.clone());
                return Err(RunError::NoHandlers { topic, entity, known });
            }
        }
        Ok(())
    }
}

type Started = (Arc<Runtime>, tokio::sync::mpsc::UnboundedReceiver<Notice>);

/// Waits for database, broker and topics, in this order, and joins the group.
async fn start(worker: &Worker, config: &Config, health: Arc<Health>) -> Result<Started, RunError> {
    let owner = owner();
    let client = kafka::Client::new(&config.kafka, &owner)?;
    let store = Store::new(&config.database, &owner)?;
    wait_for_database(&store).await?;
    wait_for_schema(&store, config).await?;
    health.set_schema_ok(true);
    health.set_database_ok(true);
    let inspector = Arc::new(Inspector::new(&client, ASK_TIMEOUT)?);
    let topics = topics(worker, config, &client, &store, &inspector).await?;
    // after the topics: a client that has asked for metadata knows it at once,
    // a fresh one waits a second
    let cluster_id = wait_for_cluster(&inspector, &client.bootstrap_servers).await;
    let budget = Budget::new(config.worker.in_flight_bytes_max.get());
    let names: Vec<&str> = config.topics.iter().map(|topic| &*topic.name).collect();
    let horizon = Horizon(retried("the database", || store.horizon()).await?.at_ms);
    let batch_bytes_max = topics.iter().map(|topic| topic.outcome_bytes_max).min().unwrap_or(MESSAGE_BYTES_MAX);
    let producer = Arc::new(Producer::new(client.clone(), batch_bytes_max)?);
    // last: from here on this process is a member of the group
    let turning = health.clone();
    let (consumer, notices) = Consumer::start(&client, &names, budget.clone(), move || turning.poll_turned())?;
    let runtime = Runtime {
        producer,
        consumer,
        store,
        inspector,
        budget,
        unpublished: Arc::default(),
        topics,
        limits: Limits::new(config),
        owner,
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

/// What waiting does not mend ends the process.
async fn wait_for_database(store: &Store) -> Result<(), ReachError> {
    let mut waits = backoff(START_WAIT_MAX);
    while let Err(error) = store.reach().await {
        if !error.is_passing() {
            return Err(error);
        }
        tracing::warn!(%error, "waiting for the database");
        tokio::time::sleep(waits.next().unwrap_or(START_WAIT_MAX)).await;
    }
    Ok(())
}

async fn wait_for_schema(store: &Store, config: &Config) -> Result<(), RunError> {
    let schema = &config.database.schema;
    let state = retried("the database", || store.schema_state()).await?;
    let Some(misfit) = state.misfit("worker") else { return Ok(()) };
    let cure = if matches!(state, SchemaState::TooNew { .. }) { ": upgrade it" } else { "; type: solewriter migrate" };
    let message = format!("schema {schema:?} {misfit}{cure}");
    Err(RunError::Schema(message))
}

/// Repeats a question to the database until it is answered.
async fn retried<T, F>(what: &str, ask: impl Fn() -> F) -> postgres::Result<T>
where
    F: Future<Output = postgres::Result<T>>,
{
    let mut waits = backoff(START_WAIT_MAX);
    loop {
        match ask().await {
            Err(error @ postgres::Error::Unavailable { .. }) if !error.is_lasting() => {
                tracing::warn!(%error, "waiting for {what}");
            }
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

async fn topics(
    worker: &Worker,
    config: &Config,
    client: &kafka::Client,
    store: &Store,
    inspector: &Arc<Inspector>,
) -> Result<Vec<Arc<Topic>>, RunError> {
    let admin = Topics::new(client, ASK_TIMEOUT)?;
    let mut topics = Vec::new();
    for topic in &config.topics {
        let partition_count = wait_for_topic(inspector, &client.bootstrap_servers, &topic.name).await;
        let publish_to = PublishTo {
            outcomes: publish_topic(&admin, inspector, &topic.outcomes_topic(), partition_count).await?,
            events: publish_topic(&admin, inspector, &topic.events_topic(), partition_count).await?,
        };
        let outcome_bytes_max = outcome_bytes_max(&admin, inspector, &publish_to).await;
        let Some(handlers) = worker.handlers(&topic.entity) else { continue };
        let names = handlers.command_names();
        let names: Vec<&str> = names.iter().map(|name| &**name).collect();
        let numbered =
            retried("the database", || store.number_command_types(&topic.name, &topic.entity, &names)).await?;
        let number =
            move |name: &str| numbered.iter().find(|row| row.command_type == name).map_or(0, |row| row.type_id);
        topics.push(Arc::new(Topic {
            name: topic.name.as_str().into(),
            handlers: handlers.clone(),
            type_ids: Arc::new(number),
            partitioner: topic.partitioner,
            start: topic.start,
            on_failure: topic.on_failure,
            partition_count,
            publish_to,
            outcome_bytes_max,
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
async fn publish_topic(
    admin: &Topics,
    inspector: &Arc<Inspector>,
    topic: &str,
    partitions: i32,
) -> Result<(Arc<str>, i32), RunError> {
    let mut waits = backoff(START_WAIT_MAX);
    loop {
        let (asked, name) = (inspector.clone(), topic.to_owned());
        let error: Box<dyn std::error::Error + Send + Sync> =
            match tokio::task::spawn_blocking(move || asked.partition_count(&name)).await {
                Ok(Ok(count)) => return Ok((topic.into(), count)),
                Ok(Err(InspectError::NoTopic)) => match admin.create(topic, partitions).await {
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

async fn outcome_bytes_max(admin: &Topics, inspector: &Arc<Inspector>, publish_to: &PublishTo) -> usize {
    let mut least = MESSAGE_BYTES_MAX;
    let (asked, name) = (inspector.clone(), publish_to.outcomes.0.clone());
    if let Ok(false) = tokio::task::spawn_blocking(move || asked.has_controller(&name)).await {
        return least;
    }
    for (topic, _) in [&publish_to.outcomes, &publish_to.events] {
        let setting = admin.setting(topic, "max.message.bytes").await;
        if let Some(bytes) = setting.and_then(|value| value.parse().ok()) {
            least = least.min(bytes);
        }
    }
    least
}
