//! The database while commands are run again: what is live, which is only read, and beside it a shadow.

use std::time::Duration;

use super::ReplayError;
use super::shadow::Shadow;
use crate::config::Config;
use crate::kafka::{Client, InspectError, Inspector, blocking};
use crate::postgres::{SHADOW_PREFIX, Store};
use crate::worker::Worker;

/// How long the broker may take for a first answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// Its two ends; whoever has one closes it.
pub(super) struct Session {
    /// In sessions that refuse to write.
    pub live: Store,
    /// Where shadows are made and dropped.
    pub server: Store,
}

impl Session {
    /// Reaches the database, once everything is in order that can be seen without it.
    ///
    /// # Errors
    /// See [`ReplayError`].
    pub async fn open(worker: &Worker, config: &Config, application_name: &str) -> Result<Self, ReplayError> {
        config.validate_for_run()?;
        Shadow::check(worker, config)?;
        let live = Store::read_only(&config.database, application_name)?;
        live.reach().await?;
        if let Some(refusal) = live.schema_state().await?.refusal(&config.database.schema, "program") {
            return Err(ReplayError::Schema(refusal));
        }
        ask_broker(config).await?;
        Ok(Self { live, server: Store::new(&config.database, application_name)? })
    }

    /// Makes an empty shadow: its name, and its tables-to-be.
    ///
    /// # Errors
    /// If the role may not create databases, or the database cannot be reached.
    pub async fn create_shadow(&self, config: &Config) -> Result<(String, Store), ReplayError> {
        let name = format!("{SHADOW_PREFIX}{:016x}", fastrand::u64(..));
        // connects when it is first used
        let shadow = Store::of_shadow(&config.database, &name)?;
        match self.server.create_shadow(&name).await {
            Ok(()) => Ok((name, shadow)),
            Err(error) => Err(ReplayError::NoShadow { name, error }),
        }
    }

    /// Drops a shadow at the end.
    pub async fn drop_shadow(&self, name: &str) {
        if let Err(error) = self.server.drop_shadow(name).await {
            // what was found is worth more
            tracing::warn!(%error, "the shadow is left; type: drop database {name}");
        }
    }

    pub async fn close(self) {
        self.live.close().await;
        self.server.close().await;
    }
}

/// Before anything is made: the broker answers, and has the topics.
async fn ask_broker(config: &Config) -> Result<(), ReplayError> {
    let inspector = Inspector::new(&Client::new(&config.kafka, "solewriter replay")?, ASK_TIMEOUT)?;
    let topics: Vec<String> = config.topics.iter().map(|topic| topic.name.clone()).collect();
    let asked = blocking(move || {
        let count = |topic: &String| inspector.partition_count(topic).map_err(|error| (topic.clone(), error));
        topics.iter().try_for_each(|topic| count(topic).map(drop))
    });
    let servers = config.kafka.require_bootstrap_servers()?.to_owned();
    asked.await.map_err(|(topic, error)| match error {
        InspectError::Kafka(_) => ReplayError::NoBroker { servers, error },
        error => ReplayError::Inspect(topic, error),
    })
}
