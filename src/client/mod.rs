//! The client of upstream services: publishes commands and awaits their outcomes.
//!
//! A [`Command`] gets its id when it is made, and keeps it. Publishing it again,
//! after a time-out or an error, is therefore always safe: it has one effect, and
//! every delivery is answered with the same outcome.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use serde::{Deserialize, Serialize};
//! use solewriter::client::{Client, Command, Error, Options, Outcome};
//!
//! #[derive(Serialize)]
//! struct Withdraw { amount: i64 }
//!
//! #[derive(Deserialize)]
//! struct Balance { balance: i64 }
//!
//! # async fn pay() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("localhost:9092", Options::new("accounts.commands")).await?;
//! let command = Command::new("account.withdraw", "acct-42", &Withdraw { amount: 30 })?;
//! // keep command.id() with the order that it pays, to ask again after a crash
//! loop {
//!     match client.send_and_wait(&command, Duration::from_secs(10)).await {
//!         Ok(Outcome::Applied { reply, .. }) => {
//!             let Balance { balance } = serde_json::from_str(reply.get())?;
//!             println!("paid; {balance} left");
//!         }
//!         Ok(Outcome::Rejected { code, .. }) => println!("not paid: {code}"),
//!         Ok(other) => println!("this delivery had no effect: {other:?}"),
//!         // it may or may not have run: asking again has one effect, and the stored outcome
//!         Err(Error::NoOutcome { .. }) => continue,
//!         Err(error) => return Err(error.into()),
//!     }
//!     return Ok(());
//! }
//! # }
//! ```
//!
//! Outcomes are read by one background thread, outside any consumer group, which
//! begins at the topic's end before the first awaited command is published. A
//! client that only publishes starts no reader.

mod command;
mod error;
#[cfg(feature = "cli")]
pub(crate) mod line;
mod listener;
mod options;
mod outcome;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use uuid::Uuid;

pub use self::command::{Command, InvalidCommand};
pub use self::error::Error;
use self::listener::Listener;
pub use self::listener::Watch;
pub use self::options::Options;
pub use self::outcome::{Outcome, OutcomeRecord};
use crate::kafka::{self, CommandProducer, InspectError, Inspector, blocking};

/// What a call of the client returns.
pub type Result<T> = std::result::Result<T, Error>;

/// How long the broker may take to describe topics.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a command was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// The command topic.
    pub topic: Arc<str>,
    /// The partition that the key chose.
    pub partition: i32,
    /// The record's offset there.
    pub offset: i64,
}

/// A client of one command topic. Cheap to clone; clones share the connections.
///
/// Needs a tokio runtime with its timer.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    settings: kafka::Client,
    options: Options,
    topic: Arc<str>,
    producer: CommandProducer,
    /// Nobody listens until somebody waits for an outcome.
    listener: Mutex<Option<Listener>>,
}

impl Client {
    /// Connects, and makes sure that the command topic exists.
    ///
    /// # Errors
    /// [`Error::Settings`], [`Error::NoTopic`], or [`Error::Unreachable`].
    pub async fn connect(bootstrap_servers: &str, options: Options) -> Result<Self> {
        let settings = options.settings(bootstrap_servers)?;
        Self::connect_with(settings, options).await
    }

    /// The same with settings that were read elsewhere.
    pub(crate) async fn connect_with(settings: kafka::Client, options: Options) -> Result<Self> {
        let unreachable = |source| Error::Unreachable { bootstrap_servers: settings.bootstrap_servers.clone(), source };
        let inspector = Inspector::new(&settings, ASK_TIMEOUT).map_err(unreachable)?;
        let topic: Arc<str> = options.topic.as_str().into();
        let asked = topic.clone();
        blocking(move || inspector.partition_count(&asked)).await.map_err(|error| match error {
            InspectError::NoTopic => {
                Error::NoTopic { topic: topic.to_string(), bootstrap_servers: settings.bootstrap_servers.clone() }
            }
            InspectError::Kafka(source) | InspectError::Denied(source) => unreachable(source),
        })?;
        let producer = settings.command_producer(options.partitioner, options.delivery_timeout);
        let producer = CommandProducer::new(&producer).map_err(unreachable)?;
        let listener = Mutex::new(None);
        Ok(Self { shared: Arc::new(Shared { settings, options, topic, producer, listener }) })
    }

    /// The command topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.shared.topic
    }

    /// Publishes a command and waits until every in-sync replica has it.
    ///
    /// # Errors
    /// [`Error::NotDelivered`]: it may nevertheless be in the log. Publish the same command again.
    pub async fn publish(&self, command: &Command) -> Result<Published> {
        self.enqueue(command).await?.delivered().await
    }

    /// Hands a command over, to await its delivery later. Commands of one key reach the log in the
    /// order of these calls, unless a delivery fails.
    ///
    /// # Errors
    /// [`Error::NotDelivered`]: it was refused before it was sent.
    pub async fn enqueue(&self, command: &Command) -> Result<Delivery> {
        let Shared { options, topic, producer, .. } = &*self.shared;
        let id = command.id_text();
        let headers = command.headers(&id, &options.source);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, Some(value.as_bytes()))).collect();
        let (key, value) = (command.key().as_bytes(), Some(command.data().get().as_bytes()));
        let of = Delivering { command_id: command.id(), topic: topic.clone() };
        match producer.send(topic, key, value, &headers, options.delivery_timeout).await {
            Ok(delivery) => Ok(Delivery { of, delivery }),
            Err(error) => Err(of.failed(error)),
        }
    }

    /// Publishes a command and waits for its outcome.
    ///
    /// Calling it again with the same command is safe at any time, also in another process with the
    /// same id and data: there is one effect, and every call gets its outcome. `timeout` counts from
    /// this call.
    ///
    /// # Errors
    /// [`Error::NoOutcome`] after `timeout`; whatever [`Self::publish`] and [`Self::watch`] say.
    pub async fn send_and_wait(&self, command: &Command, timeout: Duration) -> Result<Outcome> {
        let answered = async {
            let mut watch = self.watch(command).await?;
            let published = self.publish(command).await?;
            watch.outcome(&published).await
        };
        match tokio::time::timeout(timeout, answered).await {
            Ok(answer) => Ok(answer?.outcome),
            Err(_) => Err(self.no_outcome(command, timeout)),
        }
    }

    /// Begins to look out for a command's outcome, to be called before it is published. For
    /// pipelines; [`Self::send_and_wait`] does all of it.
    ///
    /// # Errors
    /// [`Error::NotListening`] if the outcomes topic cannot be read.
    pub async fn watch(&self, command: &Command) -> Result<Watch> {
        let mut listener = self.shared.listener.lock().await;
        if let Some(watch) = listener.as_ref().and_then(|listener| listener.watch(command)) {
            return Ok(watch);
        }
        let (settings, topic) = (self.shared.settings.clone(), self.shared.options.outcomes_topic());
        let fresh = blocking(move || Listener::start(&settings, &topic)).await?;
        let watch = fresh.watch(command);
        *listener = Some(fresh);
        watch.ok_or_else(|| self.shared.not_listening("the reader ended at once"))
    }

    pub(crate) fn no_outcome(&self, command: &Command, timeout: Duration) -> Error {
        let outcomes_topic = self.shared.options.outcomes_topic();
        Error::NoOutcome { command_id: command.id(), outcomes_topic, timeout }
    }
}

impl Shared {
    fn not_listening(&self, why: &str) -> Error {
        Error::NotListening { topic: self.options.outcomes_topic(), why: why.to_owned(), source: None }
    }
}

/// A command on its way.
#[must_use = "a delivery that nobody awaits may fail unseen"]
pub struct Delivery {
    of: Delivering,
    delivery: kafka::Delivery,
}

struct Delivering {
    command_id: Uuid,
    topic: Arc<str>,
}

impl Delivering {
    fn failed(&self, source: rdkafka::error::KafkaError) -> Error {
        Error::NotDelivered { command_id: self.command_id, topic: self.topic.to_string(), source }
    }
}

impl Delivery {
    /// Waits until every in-sync replica has the command.
    ///
    /// # Errors
    /// [`Error::NotDelivered`]: it may nevertheless be in the log. Publish the same command again.
    pub async fn delivered(self) -> Result<Published> {
        match self.delivery.finished().await {
            Ok(placed) => Ok(Published { topic: self.of.topic, partition: placed.partition, offset: placed.offset }),
            Err(error) => Err(self.of.failed(error)),
        }
    }
}
