//! Declarations with what the database says of them: the types that their parameters and rows
//! have, the tables that they read and write. Made by examining them, the base of what is run.

use serde::{Deserialize, Serialize};

use super::declaration::{Alternative, Command, Step, Write};

/// Everything that is declared, typed: each declaration was in order.
#[derive(Clone, Debug, Default)]
pub struct Typed {
    /// The command types, in the order of the declarations.
    pub commands: Vec<TypedCommand>,
    /// The steps that handlers in Rust may name, in the order of the declarations.
    pub writes: Vec<TypedWrite>,
}

/// A command type, typed.
#[derive(Clone, Debug)]
pub struct TypedCommand {
    /// What the file says.
    pub declaration: Command,
    /// The fields of the payload that anything uses, each once, in order of their first use.
    pub fields: Vec<Field>,
    /// As many as the declaration has, in the same order.
    pub steps: Vec<TypedStep>,
}

/// A write for handlers in Rust, typed.
#[derive(Clone, Debug)]
pub struct TypedWrite {
    /// What the file says.
    pub declaration: Write,
    /// The fields that the statement uses, each once, in order of their first use.
    pub fields: Vec<Field>,
    /// The statement.
    pub statement: TypedStatement,
}

/// A step of a command, typed.
#[derive(Clone, Debug)]
pub struct TypedStep {
    /// What the file says.
    pub declaration: Step,
    /// The statement. If the step has an `into`, its columns are the row's, no name twice.
    pub statement: TypedStatement,
    /// As many as the declaration has, in the same order.
    pub otherwise: Vec<TypedAlternative>,
}

/// What a row count that was not expected means, typed.
#[derive(Clone, Debug)]
pub struct TypedAlternative {
    /// What the file says.
    pub declaration: Alternative,
    /// The query, if there is one.
    pub when: Option<TypedStatement>,
}

/// What the database says of one statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypedStatement {
    /// What it returns: the select list, or `returning`. Empty if it returns no rows.
    pub columns: Vec<Column>,
    /// The tables that it reads, those behind views too; a partition counts as its root.
    pub reads: Vec<Relation>,
    /// The tables that it writes; a partition counts as its root.
    pub writes: Vec<Relation>,
}

/// A field of a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its type, as it can be written behind `::`. `json`: no statement uses it, any value will do.
    pub data_type: String,
    /// The type below it, if it is a domain; otherwise the same.
    pub base_type: String,
}

/// A column that a statement returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name, as the database says it: not quoted.
    pub name: String,
    /// Its type, as it can be written behind `::`; without a length.
    pub data_type: String,
}

/// A table, or a view that triggers write.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Relation {
    /// Its schema.
    pub schema: String,
    /// Its name: not quoted.
    pub name: String,
}

impl Typed {
    /// The tables that commands and writes read, each once, in order of their names.
    pub fn read(&self) -> Vec<Relation> {
        let commands = self.commands.iter().flat_map(|command| command.reads());
        let writes = self.writes.iter().flat_map(|write| &write.statement.reads);
        once(commands.chain(writes)).into_iter().cloned().collect()
    }

    /// The tables that they write, each once, in order of their names.
    pub fn written(&self) -> Vec<Relation> {
        let commands = self.commands.iter().flat_map(|command| command.writes());
        let writes = self.writes.iter().flat_map(|write| &write.statement.writes);
        once(commands.chain(writes)).into_iter().cloned().collect()
    }
}

impl TypedCommand {
    /// Every statement: each step's, and behind it those of its alternatives.
    pub fn statements(&self) -> impl Iterator<Item = &TypedStatement> {
        self.steps.iter().flat_map(|step| {
            let whens = step.otherwise.iter().filter_map(|alternative| alternative.when.as_ref());
            std::iter::once(&step.statement).chain(whens)
        })
    }

    /// The tables that it reads, each once, in order of their names.
    pub fn reads(&self) -> Vec<&Relation> {
        once(self.statements().flat_map(|statement| &statement.reads))
    }

    /// The tables that it writes, each once, in order of their names.
    pub fn writes(&self) -> Vec<&Relation> {
        once(self.statements().flat_map(|statement| &statement.writes))
    }
}

fn once<'r>(relations: impl Iterator<Item = &'r Relation>) -> Vec<&'r Relation> {
    let mut relations: Vec<_> = relations.collect();
    relations.sort();
    relations.dedup();
    relations
}
