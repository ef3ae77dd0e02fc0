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

/// A shadow that commands are run in.
pub(super) struct Opened {
    /// The database's name.
    pub name: String,
    /// Its tables.
    pub store: Store,
    /// What an earlier process has kept of its cut, if one has begun it.
    pub kept: Option<String>,
}

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

    /// What an earlier process has left of the same, [as it is asked](super::asked), unless it shall begin `anew`:
    /// then that is dropped.
    ///
    /// # Errors
    /// If the database refuses or cannot be reached.
    pub async fn unfinished(&self, config: &Config, asked: &str, anew: bool) -> Result<Option<Opened>, ReplayError> {
        match self.server.unfinished_shadow(asked).await? {
            Some(name) if anew => {
                self.server.drop_shadow(&name).await.map_err(ReplayError::Shadow)?;
                Ok(None)
            }
            Some(name) => {
                let store = Store::of_shadow(&config.database, &name)?;
                let kept = store.cut_said().await.map_err(ReplayError::Shadow)?;
                if kept.is_some() {
                    return Ok(Some(Opened { name, store, kept }));
                }
                store.close().await;
                self.server.drop_shadow(&name).await.map_err(ReplayError::Shadow)?;
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// Makes an empty shadow.
    ///
    /// # Errors
    /// If the role may not create databases, or the database cannot be reached.
    pub async fn create_shadow(&self, config: &Config) -> Result<Opened, ReplayError> {
        let name = format!("{SHADOW_PREFIX}{:016x}", fastrand::u64(..));
        // connects when it is first used
        let store = Store::of_shadow(&config.database, &name)?;
        match self.server.create_shadow(&name).await {
            Ok(()) => Ok(Opened { name, store, kept: None }),
            Err(error) => Err(ReplayError::NoShadow { name, error }),
        }
    }

    /// What was found in a shadow, or went wrong there, if all that was written to it is still there.
    pub async fn if_whole<T>(shadow: &Store, ended: Result<T, ReplayError>) -> Result<T, ReplayError> {
        match (&ended, shadow.is_whole().await) {
            (Ok(_) | Err(ReplayError::Disturbed(..) | ReplayError::Shadow(_)), Ok(false)) => Err(ReplayError::Crashed),
            (Ok(_), Err(error)) => Err(ReplayError::Shadow(error)),
            _ => ended,
        }
    }

    /// What ended too early leaves its shadow, if the same command can go on there; else it is dropped.
    pub async fn leave_or_drop<T>(
        &self,
        name: String,
        can_go_on: bool,
        ended: Result<T, ReplayError>,
    ) -> Result<T, ReplayError> {
        match ended {
            // once whatever it was is over
            Err(error) if error.is_passing() && can_go_on => Err(error.in_shadow(name)),
            ended => {
                self.drop_shadow(&name).await;
                ended
            }
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
