//! Handlers in SQL: commands that files of `commands` declare, run in the database inside the
//! commit. See `docs/sql-commands.md`.
//!
//! [`declaration`] is what the files say; [`statement`] one statement with its `:named` parameters;
//! [`diagnostic`] what is wrong and where.

pub mod arguments;
pub mod declaration;
pub mod diagnostic;
pub mod statement;

mod call;

pub use call::{Call, InDatabase, Write, Writes};
