//! What the files of `commands` declare, as values: read, and checked as far as that needs no
//! database.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::diagnostic::Place;
use super::statement::{Parameter, Statement};

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
    /// has none. Not empty, and the last has none, unless every count is expected.
    pub otherwise: Vec<Alternative>,
    /// The name under which the returned row can be used afterwards.
    pub into: Option<String>,
}

/// A row count that a step expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expect {
    /// At least so many rows.
    pub least: u32,
    /// At most so many rows; `None`: any number.
    pub most: Option<u32>,
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

/// A JSON value with parameters in it. Objects keep the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub enum Template {
    /// JSON as it is.
    Literal(serde_json::Value),
    /// A parameter's value: the whole string was `":name"`.
    Parameter(Parameter),
    /// An array.
    Array(Vec<Template>),
    /// An object.
    Object(Vec<(String, Template)>),
}

/// A text with `{name}` parameters in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detail {
    /// In order.
    pub pieces: Vec<DetailPiece>,
    /// Where the text stands.
    pub place: Place,
}

/// A piece of a [`Detail`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DetailPiece {
    /// Text as it is.
    Text(String),
    /// A parameter's value as text.
    Parameter(Parameter),
}
