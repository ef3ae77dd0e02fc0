//! A shadow made ready to run commands: solewriter's schema, the team's tables as their scripts make them, and the
//! functions of commands in SQL, all in a database of its own.

use std::sync::Arc;

use crate::config::{Config, Topic};
use crate::declared::{Compiled, Declared, DeclaredError};
use crate::handlers::EntityHandlers;
use crate::handlers::sql::diagnostic::Diagnostics;
use crate::handlers::sql::typed::{Relation, Typed};
use crate::postgres::{self, MigrateError, Store};
use crate::worker::Worker;

/// A shadow cannot be made ready.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShadowError {
    /// The declarations of commands in SQL cannot be used anywhere.
    #[error("the commands in SQL cannot be used")]
    Mistakes(#[from] Diagnostics),
    /// It has no tables of ours.
    #[error("the shadow database cannot be migrated")]
    Migrate(#[from] MigrateError),
    /// Nobody says how the tables of commands in SQL are made.
    #[error(
        "commands in SQL need tables that no script makes: a shadow database has only what the scripts of tables = … \
         (beside commands = …) make; name them there"
    )]
    NoScripts(#[source] Diagnostics),
    /// The scripts do not run there, or the commands do not fit what they make.
    #[error(
        "the commands in SQL cannot be used with the tables that the scripts of tables = … make in a shadow database"
    )]
    Declared(#[source] DeclaredError),
    /// A topic's entity type has no handlers here.
    #[error(
        "topic {topic} holds commands of entity type {entity:?}, for which this program has no handlers: run the team's own binary"
    )]
    NoHandlers {
        /// The topic.
        topic: String,
        /// Its entity type.
        entity: String,
    },
    /// It refuses or cannot be reached.
    #[error("the shadow database refuses")]
    Database(#[from] postgres::Error),
}

/// A shadow in which commands can run.
#[derive(Clone)]
pub struct Shadow {
    /// Its tables.
    pub store: Store,
    worker: Worker,
    compiled: Compiled,
    /// The tables that commands name as what they write, each once, in order of their names.
    pub written: Vec<Relation>,
    /// The team's tables that they only read, likewise.
    pub read: Vec<Relation>,
    /// The command types, and the writes of handlers in Rust, that say themselves that they do not end alike twice.
    pub nondeterministic: Vec<String>,
}

impl Shadow {
    /// Finds what needs no database: every topic has handlers, and the declarations are in order.
    ///
    /// # Errors
    /// See [`ShadowError`].
    pub fn check(worker: &Worker, config: &Config) -> Result<(), ShadowError> {
        declared(worker, config).map(drop)
    }

    /// Makes everything that the commands of `config` need in an empty database. Ids of any age can be settled there.
    /// The team's tables are as their scripts leave them.
    ///
    /// # Errors
    /// See [`ShadowError`].
    pub async fn make(store: Store, worker: &Worker, config: &Config) -> Result<Self, ShadowError> {
        let declared = declared(worker, config)?;
        store.migrate(config.deduplication.window_ms()).await?;
        store.prepare_shadow().await?;
        declared.make_tables(&store).await.map_err(ShadowError::Declared)?;
        Self::with(declared, store, worker, config).await
    }

    /// One that [`Self::make`] has made ready before, in this process or another.
    ///
    /// # Errors
    /// See [`ShadowError`].
    pub async fn open(store: Store, worker: &Worker, config: &Config) -> Result<Self, ShadowError> {
        Self::with(declared(worker, config)?, store, worker, config).await
    }

    async fn with(declared: Declared, store: Store, worker: &Worker, config: &Config) -> Result<Self, ShadowError> {
        let typed = typed(&declared, &store).await?;
        let compiled = Compiled::of(&config.database, &typed);
        compiled.make(&store).await?;
        let (written, mut read) = (typed.written(), typed.read());
        let is_theirs = |table: &Relation| !matches!(&*table.schema, "pg_catalog" | "information_schema");
        read.retain(|table| is_theirs(table) && !written.contains(table));
        let commands = typed.commands.iter().map(|command| &command.declaration);
        let commands =
            commands.filter(|command| command.nondeterministic).map(|command| command.command_type.to_string());
        let writes = typed.writes.iter().map(|write| &write.declaration);
        let writes = writes.filter(|write| write.nondeterministic).map(|write| write.name.to_string());
        let nondeterministic = commands.chain(writes).collect();
        Ok(Self { store, worker: worker.clone(), compiled, written, read, nondeterministic })
    }

    /// The handlers of a topic: in Rust, with the writes that they may name, or in SQL.
    ///
    /// # Errors
    /// If there are none.
    pub fn handlers(&self, topic: &Topic) -> Result<Arc<EntityHandlers>, ShadowError> {
        let handlers = self.compiled.handlers(&topic.entity, self.worker.handlers(&topic.entity));
        handlers.ok_or_else(|| no_handlers(topic))
    }
}

fn declared(worker: &Worker, config: &Config) -> Result<Declared, ShadowError> {
    let declared = worker.declared(config)?;
    for topic in &config.topics {
        let in_sql = declared.entity_types().any(|entity| **entity == *topic.entity);
        if worker.handlers(&topic.entity).is_none() && !in_sql {
            return Err(no_handlers(topic));
        }
    }
    Ok(declared)
}

fn no_handlers(topic: &Topic) -> ShadowError {
    ShadowError::NoHandlers { topic: topic.name.clone(), entity: topic.entity.clone() }
}

/// Examines the statements against the tables that the scripts have made.
async fn typed(declared: &Declared, store: &Store) -> Result<Typed, ShadowError> {
    match declared.typed_if_any(store).await {
        Err(DeclaredError::Mistakes(mistakes)) if declared.declarations().tables.is_empty() => {
            Err(ShadowError::NoScripts(mistakes))
        }
        typed => typed.map_err(ShadowError::Declared),
    }
}
