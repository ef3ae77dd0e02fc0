//! Handlers in SQL: commands that files of `commands` declare, run in the database inside the
//! commit. See `docs/sql-commands.md`.
//!
//! [`declaration`] is what the files say; [`statement`] one statement with its `:named` parameters;
//! [`template`] what replies, events and details are made of; [`diagnostic`] what is wrong and where.
//! [`arguments`] turns a payload into what the statements are given, each value judged by the type of
//! its [`field`].

pub mod arguments;
pub mod declaration;
pub mod diagnostic;
pub mod expect;
pub mod field;
pub mod parameter;
pub mod scope;
pub mod statement;
pub mod template;

mod files;
mod json_text;
mod load;
mod numeric;
mod read_command;
mod read_step;
mod read_write;
mod reader;
mod schema;
mod tokens;
mod words;
