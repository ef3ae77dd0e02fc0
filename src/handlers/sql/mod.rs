//! Handlers in SQL: commands that files of `commands` declare, run in the database inside the
//! commit. See `docs/sql-commands.md`.
//!
//! [`declaration`] is what the files say; [`statement`] one statement with its `:named` parameters;
//! [`diagnostic`] what is wrong and where; [`typed`] what the database says of the declarations.

pub mod declaration;
pub mod diagnostic;
pub mod parameter;
pub mod statement;
pub mod typed;

mod tokens;
mod words;
