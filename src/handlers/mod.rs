//! Handlers: the business rules of a team, behind one contract.
//!
//! [`rust`] turns plain methods into that contract: they decide in this process,
//! over a state. Types are erased once, at registration; the erased state lives in
//! the writer's cache, so a warm entity is never decoded. Commands in [`sql`] decide
//! in the database, inside the commit.

pub mod rejection;
pub mod rust;
pub mod sql;

mod context;
mod derived_uuid;

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

pub use context::Context;
pub use rejection::Rejection;
use serde_json::value::RawValue;

/// An entity's state with its type erased.
pub trait State: Send {
    /// The state as JSON, as it is stored.
    ///
    /// # Errors
    /// What serde says of a state that JSON cannot hold.
    fn encode(&self) -> Result<String, String>;
    /// For the downcast at the handler.
    fn as_any(&self) -> &dyn Any;
}

/// Why a handler did not apply a command.
#[derive(Debug)]
#[non_exhaustive]
pub enum HandlerError {
    /// The payload is not what the command's type takes: dead `malformed-payload`.
    Malformed(String),
    /// The business rule said no.
    Rejected(Rejection),
    /// The handler failed on its own account (panic, unencodable reply): dead
    /// `handler-failed`.
    Failed(String),
}

/// What a handler left behind when it applied a command.
pub struct Applied {
    /// The entity's next state.
    pub state: Box<dyn State>,
    /// The reply, encoded.
    pub reply: Box<RawValue>,
}

/// Runs one command: (state, payload, context).
pub type Handle = dyn Fn(&dyn State, &[u8], &mut Context<'_>) -> Result<Applied, HandlerError> + Send + Sync;

/// One command type of an entity, with its handler.
pub struct CommandType {
    /// Its name, such as `account.withdraw`.
    pub name: Arc<str>,
    /// What runs it.
    pub handler: Handler,
}

/// What runs a command: the two front ends.
pub enum Handler {
    /// A method, in this process.
    Rust(Box<Handle>),
    /// A function, in the database.
    Sql(sql::Call),
}

impl fmt::Debug for CommandType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandType").field("name", &self.name).finish()
    }
}

impl CommandType {
    /// It runs in the database, at isolation level serializable: in batches of its own.
    pub fn is_serializable(&self) -> bool {
        matches!(&self.handler, Handler::Sql(call) if call.serializable)
    }
}

/// Nothing: commands in SQL keep what they know in a team's own tables.
struct NoState;

impl State for NoState {
    fn encode(&self) -> Result<String, String> {
        Ok("null".to_owned())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// An entity type: its first state, its codec, its command types.
#[derive(Clone)]
pub struct EntityHandlers {
    /// The entity type's name, such as `account`.
    pub entity_type: Arc<str>,
    initial: fn() -> Box<dyn State>,
    decode: fn(&str) -> Result<Box<dyn State>, String>,
    commands: HashMap<Arc<str>, Arc<CommandType>>,
    /// What of it runs in the database.
    pub in_database: sql::InDatabase,
}

impl EntityHandlers {
    /// The handlers of an entity type whose commands run in the database: it has no state here.
    pub fn in_sql(entity_type: Arc<str>, commands: Vec<(Arc<str>, sql::Call)>, in_database: sql::InDatabase) -> Self {
        let command =
            |(name, call): (Arc<str>, _)| (name.clone(), Arc::new(CommandType { name, handler: Handler::Sql(call) }));
        Self {
            entity_type,
            initial: || Box::new(NoState),
            decode: |_| Err("its commands run in the database".to_owned()),
            commands: commands.into_iter().map(command).collect(),
            in_database,
        }
    }

    /// The same handlers, in Rust, which may name these writes.
    pub fn with_writes(&self, in_database: sql::InDatabase) -> Self {
        Self { in_database, ..self.clone() }
    }

    /// The state of an entity to which no command has been applied.
    pub fn initial(&self) -> Box<dyn State> {
        (self.initial)()
    }

    /// A stored state.
    ///
    /// # Errors
    /// What serde says of a state that is not (or no longer) of the entity's type.
    pub fn decode(&self, state: &str) -> Result<Box<dyn State>, String> {
        (self.decode)(state)
    }

    /// The command type of this name.
    pub fn command(&self, name: &str) -> Option<&Arc<CommandType>> {
        self.commands.get(name)
    }

    /// The names of all command types, sorted.
    pub fn command_names(&self) -> Vec<Arc<str>> {
        let mut names: Vec<_> = self.commands.keys().cloned().collect();
        names.sort();
        names
    }
}
