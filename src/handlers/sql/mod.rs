//! Handlers in SQL: commands that files of `commands` declare, run in the database inside the
//! commit. See `docs/sql-commands.md`.
//!
//! [`declaration`] is what the files say; [`statement`] one statement with its `:named` parameters;
//! [`template`] what replies, events and details are made of; [`diagnostic`] what is wrong and
//! where; [`arguments`] turns a payload into what a function is given, each value judged by the type
//! of its [`field`]. [`examine`] asks the database about all of it and keeps to the [`rules`];
//! [`typed`] is what comes out, and [`compile`] makes functions of that. The data path knows a
//! command in SQL as a [`Call`]: a function's number and its arguments.

pub mod arguments;
mod call;
pub mod compile;
pub mod declaration;
pub mod diagnostic;
pub mod examine;
pub mod expect;
pub mod field;
mod files;
mod json_text;
mod kind;
mod load;
mod numeric;
pub mod parameter;
mod read_command;
mod read_step;
mod read_write;
mod reader;
pub mod rules;
mod schema;
pub mod scope;
pub mod statement;
pub mod template;
mod tokens;
pub mod typed;
mod wider;
mod words;

pub use call::{Call, InDatabase, Write, Writes};
