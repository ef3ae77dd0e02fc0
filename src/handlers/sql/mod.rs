//! Handlers in SQL: commands that files of `commands` declare, run in the database inside the
//! commit. See `docs/sql-commands.md`.
//!
//! [`declaration`] is what the files say; [`statement`] one statement with its `:named` parameters;
//! [`diagnostic`] what is wrong and where; [`examine`] asks the database about all of it and keeps
//! to the [`rules`]; [`typed`] is what comes out, the base of what is run.

pub mod declaration;
pub mod diagnostic;
pub mod examine;
pub mod parameter;
pub mod rules;
pub mod statement;
pub mod typed;

mod tokens;
mod words;
