//! What a declaration must keep to beyond being SQL: facts in, diagnostics out. Nothing here asks
//! the database; [`examine`](super::examine) has asked it before.
//!
//! `refused` says what the database refused; `reproducible`: a command that is run again does
//! the same; `required`: an insert gives a value to columns that take no null; `schemas`: no schema is named; `constraints`: a rejection's constraint exists;
//! `rows`: a row has the columns that are asked of it; `serializable`: whoever writes what a
//! serializable command reads is serializable; `entities`: commands have a topic and one owner;
//! `doubtful` is no rule: what is hardly meant.

use std::collections::{BTreeMap, BTreeSet};

use super::declaration::{Command, Write};
use super::diagnostic::Place;
use super::statement::Statement;
use super::typed::{Relation, TypedStatement};
use crate::postgres::{Operation, WrittenTable};

mod clock;
pub(super) mod constraints;
pub(super) mod doubtful;
pub mod entities;
pub(super) mod refused;
pub(super) mod reproducible;
pub(super) mod required;
pub(super) mod rows;
pub(super) mod schemas;
pub(super) mod serializable;

/// What the catalog says, as far as the declarations need it.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    /// The schema that statements find their tables in.
    pub(super) tables_schema: String,
    /// All schemas.
    pub(super) schemas: BTreeSet<String>,
    /// The tables that statements find.
    pub(super) tables: BTreeSet<String>,
    /// Their columns.
    pub(super) columns: BTreeSet<String>,
    /// The functions that statements find.
    pub(super) functions: BTreeSet<String>,
    /// Those of the functions that anything calls which are VOLATILE.
    pub(super) volatile: BTreeSet<String>,
    /// The tables that any statement writes.
    pub(super) written: BTreeMap<Relation, WrittenTable>,
}

/// A command or a write.
#[derive(Clone, Copy, Debug)]
pub(super) enum Declared<'d> {
    Command(&'d Command),
    Write(&'d Write),
}

/// A statement that the database takes, with what it says.
#[derive(Debug)]
pub(super) struct Examined<'d> {
    pub(super) statement: &'d Statement,
    pub(super) typed: TypedStatement,
    /// How the tables are written.
    pub(super) how: Vec<(Relation, Operation)>,
    /// The expressions of its plan.
    pub(super) expressions: Vec<String>,
    /// The columns, by number, that it fills with null in every row that it inserts.
    pub(super) left_null: Vec<(Relation, usize)>,
}

impl<'d> Declared<'d> {
    /// As messages name it.
    pub(super) fn name(self) -> String {
        match self {
            Self::Command(command) => command.command_type.to_string(),
            Self::Write(write) => format!("write {}", write.name),
        }
    }

    pub(super) fn place(self) -> &'d Place {
        match self {
            Self::Command(command) => &command.place,
            Self::Write(write) => &write.place,
        }
    }

    pub(super) fn nondeterministic(self) -> bool {
        match self {
            Self::Command(command) => command.nondeterministic,
            Self::Write(write) => write.nondeterministic,
        }
    }

    pub(super) fn serializable(self) -> bool {
        matches!(self, Self::Command(command) if command.serializable)
    }

    pub(super) fn constraints(self) -> &'d BTreeMap<String, String> {
        match self {
            Self::Command(command) => &command.constraints,
            Self::Write(write) => &write.constraints,
        }
    }

    /// Where the declaration mentions `needle`; where it begins, if that cannot be told.
    pub(super) fn place_of(self, needle: &str) -> Place {
        let place = self.place();
        let rest = place.file.text.get(place.at..).unwrap_or_default();
        let own = rest.find("\n[[command]]").into_iter().chain(rest.find("\n[[write]]")).min().unwrap_or(rest.len());
        let found = rest[..own].find(needle).unwrap_or(0);
        Place { file: place.file.clone(), at: place.at + found }
    }
}

/// Names for a message, with commas between them.
pub(super) fn listed<T: ToString>(names: impl IntoIterator<Item = T>) -> String {
    names.into_iter().map(|name| name.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod support;
