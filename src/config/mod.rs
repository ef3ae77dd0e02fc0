//! What a worker is told: one section per file, each with its defaults and its checks.
//!
//! [`Config::load`] lays the sources over each other, the strongest first: values set in code
//! ([`Sources::set`], the command line's flags), `SOLEWRITER__SECTION__KEY`, the file, then
//! `DATABASE_URL` and `KAFKA_BOOTSTRAP_SERVERS`, then the defaults. Every message names the key and
//! the place it came from. No `Debug`, `Serialize` or error of this module shows a secret.

mod database;
mod database_url;
mod deduplication;
mod duration;
mod environment;
mod error;
mod http;
mod kafka;
mod kafka_properties;
mod keys;
mod layers;
mod origin;
mod reference;
mod refused_properties;
mod show;
mod sources;
mod start;
mod topic;
mod topics;
mod worker;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::database::Database;
pub use self::database_url::{DatabaseUrl, DatabaseUrlError};
pub use self::deduplication::Deduplication;
pub use self::error::Error;
pub use self::http::Http;
pub use self::kafka::Kafka;
pub use self::kafka_properties::KafkaProperties;
pub(crate) use self::keys::nearest;
pub use self::origin::{Origin, Origins};
pub use self::reference::reference_file;
pub use self::sources::{DEFAULT_FILE, Sources};
pub use self::start::Start;
pub use self::topic::{OnFailure, Partitioner, Topic};
pub use self::worker::Worker;

/// Everything that a worker is told.
///
/// Serializing hides secrets, so what it writes is for eyes and not for loading again.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Files that declare commands in SQL (docs/sql-commands.md), as paths or patterns such as
    /// "commands/*.toml", relative to this file.
    pub commands: Vec<String>,
    /// The Postgres that holds entities, idempotency table and cursors.
    pub database: Database,
    /// The Kafka cluster that commands come from and outcomes go to.
    pub kafka: Kafka,
    /// One command topic each. At least one is needed to run.
    pub topics: Vec<Topic>,
    /// Limits of one worker process.
    pub worker: Worker,
    /// How long a command id is remembered.
    pub deduplication: Deduplication,
    /// Health and metrics.
    pub http: Http,
    /// Where each value came from; empty for a configuration that was built in code.
    #[serde(skip)]
    pub origins: Origins,
    /// The directory of the file, to which paths in it are relative; empty, the working directory,
    /// if there was no file.
    #[serde(skip)]
    pub directory: PathBuf,
}

impl Config {
    /// Loads `file`, or else `SOLEWRITER_CONFIG`, or else `config/solewriter.toml` if there is one,
    /// and what this process's environment lays over it.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with a source: see [`Error`].
    pub fn load(file: Option<PathBuf>) -> Result<Self, Error> {
        Self::from_sources(&Sources::of_process(file)?)
    }

    /// Loads from sources that the caller chose; reads no environment of its own.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with a source: see [`Error`].
    pub fn from_sources(sources: &Sources) -> Result<Self, Error> {
        let layers::Layers { table, origins, directory } = layers::collect(sources)?;
        keys::check(&table, &origins)?;
        let mut config: Self =
            serde_path_to_error::deserialize(table).map_err(|error| Error::malformed(&error, &origins))?;
        config.origins = origins;
        config.directory = directory;
        config.topics.iter_mut().for_each(Topic::resolve);
        config.validate()?;
        Ok(config)
    }

    /// Checks what the types cannot say; loading has done so already, code that builds a
    /// configuration itself calls it.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for the first value that makes no sense.
    pub fn validate(&self) -> Result<(), Error> {
        self.database
            .validate()
            .and_then(|()| self.kafka.validate())
            .and_then(|()| topics::validate(&self.topics))
            .and_then(|()| self.worker.validate())
            .and_then(|()| self.deduplication.validate())
            .map_err(|invalid| invalid.found_in(&self.origins))
    }

    /// Checks what only `run` needs: a database, a cluster and at least one topic.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] with the ways to set what is not there, or what [`validate`] finds.
    ///
    /// [`validate`]: Self::validate
    pub fn validate_for_run(&self) -> Result<(), Error> {
        self.validate()?;
        self.database.require_url()?;
        self.kafka.require_bootstrap_servers()?;
        self.require_topics()
    }

    /// Whether it names a topic.
    ///
    /// # Errors
    /// [`Error::Missing`] if it does not.
    pub fn require_topics(&self) -> Result<(), Error> {
        match self.topics.is_empty() {
            true => Err(Error::Missing {
                key: "topics",
                cure: "add a [[topics]] section with the name of the command topic and its entity type",
            }),
            false => Ok(()),
        }
    }

    /// The JSON Schema of the file, for editors and for CI.
    #[must_use]
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }
}

#[cfg(test)]
mod tests;
