//! The worker: a builder for handlers, and `run`.

mod start;

use std::sync::Arc;

use rdkafka::error::KafkaError;
use tokio_util::sync::CancellationToken;

pub(crate) use self::start::MESSAGE_BYTES_MAX;
use self::start::start;
use crate::config::{self, Config};
use crate::declared::{Declared, DeclaredError};
use crate::handlers::EntityHandlers;
use crate::handlers::rust::{Entity, EntityBuilder};
use crate::handlers::sql::diagnostic::Diagnostics;
use crate::kafka::TopicError;
use crate::postgres::{self, ReachError};
use crate::telemetry::Health;

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
    /// What `dev` has read already: its workers come and go, and all of them run the same.
    #[cfg(feature = "dev")]
    pub(crate) declared: Option<Declared>,
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
    /// Commands in SQL cannot be used as they are declared.
    #[error("{0}")]
    Declared(#[from] DeclaredError),
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
        let declared = self.declared(&config).map_err(DeclaredError::from)?;
        self.check_handlers(&config, &declared)?;
        let starting = start(&self, &config, &declared, health);
        let Some(started) = shutdown.run_until_cancelled(starting).await else { return Ok(()) };
        let (worker, notices) = started?;
        let failed = worker.failed.clone();
        let ended = crate::assignment::run(worker, notices, shutdown).await;
        match failed.borrow().clone() {
            Some(message) => Err(RunError::AnotherGroup(message)),
            None => ended.map_err(RunError::Fatal),
        }
    }

    /// What the configuration's files of commands declare.
    pub(crate) fn declared(&self, config: &Config) -> Result<Declared, Diagnostics> {
        #[cfg(feature = "dev")]
        if let Some(declared) = &self.declared {
            return Ok(declared.clone());
        }
        Declared::load(config, &self.entity_types().collect::<Vec<_>>())
    }

    /// Every topic's entity type has handlers.
    fn check_handlers(&self, config: &Config, declared: &Declared) -> Result<(), RunError> {
        for topic in &config.topics {
            let in_sql = declared.entity_types().any(|entity| **entity == *topic.entity);
            if self.handlers(&topic.entity).is_none() && !in_sql {
                let mut known: Vec<&str> = self.entity_types().collect();
                known.extend(declared.entity_types().map(|entity| &**entity));
                known.dedup();
                let known =
                    if known.is_empty() { "it has none".into() } else { format!("it has {}", known.join(", ")) };
                let (topic, entity) = (topic.name.clone(), topic.entity.clone());
                return Err(RunError::NoHandlers { topic, entity, known });
            }
        }
        Ok(())
    }
}
