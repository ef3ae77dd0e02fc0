//! One SQL statement with `:named` parameters.

use super::diagnostic::Place;

/// A named parameter of a statement, a template or a detail.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Parameter {
    /// `:entity_id`: the record's key, text.
    EntityId,
    /// `:command_id`: uuid.
    CommandId,
    /// `:command_time`: the record's time, timestamptz.
    CommandTime,
    /// `:uuid1`, `:uuid2`, …: version 5 of the command id, as [`crate::Context::new_uuid`] makes it.
    Uuid(u16),
    /// `:amount`: a field of the payload, typed by the database.
    Field(String),
    /// `:account.balance`: a column of a row that an earlier step took with `into`.
    Row {
        /// The row's name.
        row: String,
        /// The column.
        column: String,
    },
}

/// A statement, taken apart at its parameters.
#[derive(Clone, Debug)]
pub struct Statement {
    /// As it is written, without what surrounds it in the file.
    pub text: String,
    /// Where its first character stands.
    pub place: Place,
    /// The text, in order.
    pub pieces: Vec<Piece>,
    /// Every identifier and keyword, in order; not what is in strings and comments.
    pub words: Vec<Word>,
}

/// A piece of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// SQL as it is.
    Sql(String),
    /// A parameter, and the byte of the statement's text at which its colon stands.
    Parameter(Parameter, usize),
}

/// An identifier or keyword of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Lower-case, unless it was quoted; without the quotes.
    pub text: String,
    /// The byte of the statement's text at which it begins.
    pub at: usize,
    /// It was written in double quotes: no keyword.
    pub quoted: bool,
    /// `(` follows: a function, if it is no keyword.
    pub called: bool,
    /// The word before it, if only a `.` is between them.
    pub qualifier: Option<String>,
}

impl Statement {
    /// Placeholder.
    pub fn is_select_only(&self) -> bool {
        false
    }
}
