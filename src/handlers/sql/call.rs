//! What the data path knows of commands in SQL: which function, and how a payload becomes its
//! arguments.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use super::arguments::Fields;
use crate::handlers::derived_uuid::nth_uuid;

/// A function in the database that runs a command, or a write.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its number among the entity type's functions, from 1.
    pub function: i16,
    /// What it takes of the payload.
    pub fields: Arc<Fields>,
    /// How many UUIDs it takes: `:uuid1` to `:uuidN`.
    pub uuids: u16,
    /// It runs at isolation level serializable.
    pub serializable: bool,
}

impl Call {
    /// The function's arguments: a JSON array of the fields' texts, then the UUIDs.
    ///
    /// # Errors
    /// What is wrong with the payload; names the field.
    pub fn arguments(&self, data: &[u8], command_id: &Uuid) -> Result<String, String> {
        let mut arguments = self.fields.arguments(data)?;
        for n in 1..=self.uuids {
            let uuid = nth_uuid(command_id, n.into());
            // behind the last text of the array, which is never empty without fields
            let comma = if arguments.len() > "[]".len() { "," } else { "" };
            arguments.truncate(arguments.len() - 1);
            arguments += &format!("{comma}\"{uuid}\"]");
        }
        Ok(arguments)
    }
}

/// A write that a handler in Rust asked for: run inside the commit, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// See [`Call::function`].
    pub function: i16,
    /// A JSON array of texts.
    pub arguments: String,
}

/// The writes that an entity type's handlers may name.
pub type Writes = HashMap<Arc<str>, Call>;

/// What of an entity type runs in the database.
#[derive(Clone, Debug, Default)]
pub struct InDatabase {
    /// The function that runs the entity type's numbered functions in a batch's order.
    pub runner: Option<Arc<str>>,
    /// The same for batches at isolation level serializable.
    pub serializable_runner: Option<Arc<str>>,
    /// The writes that handlers in Rust may name.
    pub writes: Writes,
    /// Its functions, with the SHA-256 of each one's body.
    pub functions: Arc<[(String, Vec<u8>)]>,
}

impl InDatabase {
    /// Whether commands of this entity type run statements of the team's.
    pub fn writes_tables(&self) -> bool {
        self.runner.is_some() || self.serializable_runner.is_some()
    }

    /// The runner of a batch.
    pub fn runner(&self, serializable: bool) -> Option<&Arc<str>> {
        if serializable { self.serializable_runner.as_ref() } else { self.runner.as_ref() }
    }
}
