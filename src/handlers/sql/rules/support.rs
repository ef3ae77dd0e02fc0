//! Declarations for the tests of the rules.

use std::sync::Arc;

use super::super::declaration::{Command, Expect, Step, Write};
use super::super::diagnostic::{Place, SourceFile};
use super::super::statement::Statement;
use super::super::typed::{Relation, TypedStatement};
use super::Examined;

pub(super) fn place(text: &str) -> Place {
    Place { file: Arc::new(SourceFile { path: "commands/a.toml".into(), text: text.into() }), at: 0 }
}

pub(super) fn statement(sql: &str) -> Statement {
    Statement::parse(sql, &place(sql)).unwrap_or_else(|refused| panic!("{refused}"))
}

pub(super) fn relation(name: &str) -> Relation {
    Relation { schema: "public".into(), name: name.into() }
}

pub(super) fn command(name: &str, sql: &str) -> Command {
    Command {
        place: place(name),
        entity: "account".into(),
        command_type: name.into(),
        steps: vec![Step {
            statement: statement(sql),
            expect: Expect::ANY,
            otherwise: Vec::new(),
            fails: false,
            into: None,
        }],
        reply: None,
        events: Vec::new(),
        constraints: std::collections::BTreeMap::new(),
        optional: Vec::new(),
        schema: None,
        serializable: false,
        nondeterministic: false,
        uses: Vec::new(),
    }
}

pub(super) fn write(name: &str, sql: &str) -> Write {
    Write {
        place: place(name),
        entity: "account".into(),
        name: name.into(),
        statement: statement(sql),
        expect: Expect::ANY,
        constraints: std::collections::BTreeMap::new(),
        optional: Vec::new(),
        nondeterministic: false,
    }
}

/// `statement`, which reads and writes these tables.
pub(super) fn examined<'d>(statement: &'d Statement, reads: &[&str], writes: &[&str]) -> Examined<'d> {
    let tables = |names: &[&str]| names.iter().map(|name| relation(name)).collect();
    let typed = TypedStatement { columns: vec![], reads: tables(reads), writes: tables(writes) };
    Examined { statement, typed, how: Vec::new(), expressions: Vec::new(), left_null: Vec::new() }
}
