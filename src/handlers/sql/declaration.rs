//! What the files of `commands` declare, as values.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::diagnostic::Place;
pub use super::expect::Expect;
pub use super::scope::ParameterUse;
use super::statement::{Parameter, Statement};
pub use super::template::{Detail, DetailPiece, Template};

/// Everything that the files of a configuration declare.
#[derive(Clone, Debug, Default)]
pub struct Declarations {
    /// The command types, in order of files and lines.
    pub commands: Vec<Command>,
    /// The steps that handlers in Rust may name.
    pub writes: Vec<Write>,
    /// Scripts that make the tables, for `migrate` and `dev`.
    pub tables: Vec<TablesScript>,
}

impl Command {
    /// The payload's fields that the command uses, each once, in the order of their first use.
    #[must_use]
    pub fn fields(&self) -> Vec<&str> {
        let mut fields = Vec::new();
        for used in &self.uses {
            match &used.parameter {
                Parameter::Field(name) if !fields.contains(&name.as_str()) => fields.push(name.as_str()),
                _ => {}
            }
        }
        fields
    }
}

/// A script that makes tables; it can be run again.
#[derive(Clone, Debug)]
pub struct TablesScript {
    /// Where the file names it.
    pub place: Place,
    /// The script's path, as messages name it.
    pub path: String,
    /// Its text.
    pub sql: String,
}

/// One command type.
#[derive(Clone, Debug)]
pub struct Command {
    /// Where its `type` stands.
    pub place: Place,
    /// Its entity type.
    pub entity: Arc<str>,
    /// Its name, such as `account.withdraw`.
    pub command_type: Arc<str>,
    /// What is run, in order. At least one.
    pub steps: Vec<Step>,
    /// What an applied command answers; `None`: null.
    pub reply: Option<Template>,
    /// What it emits, in order.
    pub events: Vec<Event>,
    /// Rejection codes by the name of the violated constraint.
    pub constraints: BTreeMap<String, String>,
    /// Payload fields that may be missing or null.
    pub optional: Vec<String>,
    /// The payload's JSON Schema.
    pub schema: Option<Arc<serde_json::Value>>,
    /// Runs at isolation level serializable, in batches of its own.
    pub serializable: bool,
    /// It may call functions, or rest on defaults and triggers, whose result differs when it is
    /// run again.
    pub nondeterministic: bool,
    /// Every use of a parameter: in the steps, in the reply and in the events.
    pub uses: Vec<ParameterUse>,
}

/// A step that a handler in Rust may name: `cx.write("ledger", …)`.
#[derive(Clone, Debug)]
pub struct Write {
    /// Where its `name` stands.
    pub place: Place,
    /// The entity type whose handlers may name it.
    pub entity: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// The statement.
    pub statement: Statement,
    /// How many rows it must write.
    pub expect: Expect,
    /// Rejection codes by the name of the violated constraint.
    pub constraints: BTreeMap<String, String>,
    /// Fields that may be missing or null.
    pub optional: Vec<String>,
    /// See [`Command::nondeterministic`].
    pub nondeterministic: bool,
}

/// One statement of a command, and what its row count means.
#[derive(Clone, Debug)]
pub struct Step {
    /// The statement.
    pub statement: Statement,
    /// How many rows it must return or write.
    pub expect: Expect,
    /// What another row count means: the first alternative whose `when` returns a row, or which
    /// has none. The last has none, unless the step [`fails`](Self::fails) or expects every count.
    pub otherwise: Vec<Alternative>,
    /// A count that no alternative explains cannot happen: if it does, the command has failed.
    pub fails: bool,
    /// The name under which the returned row can be used afterwards.
    pub into: Option<String>,
}

/// What a row count that was not expected means.
#[derive(Clone, Debug)]
pub struct Alternative {
    /// A query; the alternative holds if it returns a row.
    pub when: Option<Statement>,
    /// The name under which that row can be used in the detail.
    pub into: Option<String>,
    /// The rejection's code, kebab-case.
    pub reject: String,
    /// Its detail.
    pub detail: Option<Detail>,
}

/// An event that an applied command emits.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its CloudEvents type.
    pub event_type: String,
    /// Its data.
    pub data: Template,
}
