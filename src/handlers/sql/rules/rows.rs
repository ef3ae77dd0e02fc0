//! A row that `into` names has the columns that are asked of it.

use std::collections::BTreeSet;

use super::super::declaration::{Command, Detail, Template};
use super::super::diagnostic::{Diagnostic, Place};
use super::super::statement::{Parameter, Statement};
use super::super::typed::Column;
use super::listed;
use crate::config::nearest;

/// A row: its name, and its columns if its statement is in order.
pub(in super::super) type Row<'d> = (&'d str, Option<Vec<Column>>);

/// What is wrong with a row itself: it has no columns, or two of one name.
pub(in super::super) fn check_row(statement: &Statement, into: &str, columns: &[Column]) -> Option<Diagnostic> {
    let at_start =
        |problem: String, cure: &str| Some(Diagnostic { place: statement.place_of(0), problem, cure: cure.to_owned() });
    if columns.is_empty() {
        return at_start(format!("nothing is returned for row {into}"), "add returning, or leave out into");
    }
    let mut names = BTreeSet::new();
    let twice = columns.iter().find(|column| !names.insert(&column.name))?;
    at_start(format!("row {into} has two columns {}", twice.name), "give one of them another name with `as`")
}

/// Columns that a statement asks of rows that lack them.
pub(in super::super) fn check_statement(statement: &Statement, rows: &[Row<'_>]) -> Vec<Diagnostic> {
    statement.uses().filter_map(|(parameter, place)| missing(parameter, place, rows)).collect()
}

/// Columns that a detail asks of rows that lack them.
pub(in super::super) fn check_detail(detail: &Detail, rows: &[Row<'_>]) -> Vec<Diagnostic> {
    let parameters = detail.parameters().into_iter();
    parameters.filter_map(|parameter| missing(parameter, detail.place.clone(), rows)).collect()
}

/// Columns that the reply and the events ask of rows that lack them.
pub(in super::super) fn check_templates(command: &Command, rows: &[Row<'_>]) -> Vec<Diagnostic> {
    let templates = command.reply.iter().chain(command.events.iter().map(|event| &event.data));
    let uses = templates.flat_map(Template::uses);
    uses.filter_map(|(parameter, place)| missing(parameter, place.clone(), rows)).collect()
}

fn missing(parameter: &Parameter, place: Place, rows: &[Row<'_>]) -> Option<Diagnostic> {
    let Parameter::Row { row, column } = parameter else { return None };
    // that a row is not there at all is told when its file is read
    let (_, columns) = rows.iter().rev().find(|(name, _)| name == row)?;
    // its own mistake is told
    let columns = columns.as_ref()?;
    if columns.iter().any(|found| found.name == *column) {
        return None;
    }
    let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
    let cure = match nearest(column, &names) {
        Some(meant) => format!("did you mean :{row}.{meant}?"),
        None => format!("return it too: {row} has {}", listed(&names)),
    };
    Some(Diagnostic { place, problem: format!("row {row} has no column {column}"), cure })
}

#[cfg(test)]
mod tests {
    use super::super::support::{command, place, statement};
    use super::*;

    fn columns(names: &[&str]) -> Vec<Column> {
        names.iter().map(|name| Column { name: (*name).into(), data_type: "bigint".into() }).collect()
    }

    #[test]
    fn a_column_that_a_row_lacks_is_shown_where_it_is_asked_for() {
        let rows = [("account", Some(columns(&["id", "balance"]))), ("broken", None)];
        let statement = statement("select :account.balanc, :broken.anything, :account.id");
        let found = check_statement(&statement, &rows);
        let cures: Vec<_> = found.iter().map(|diagnostic| (diagnostic.place.at, diagnostic.cure.as_str())).collect();
        assert_eq!(cures, [(7, "did you mean :account.balance?")]);
    }

    #[test]
    fn replies_and_events_are_looked_through() {
        let mut command = command("account.open", "select 1");
        let parameter = Parameter::Row { row: "account".into(), column: "at".into() };
        command.reply = Some(Template::Array(vec![Template::Parameter(parameter, place("at"))]));
        let found = check_templates(&command, &[("account", Some(columns(&["id"])))]);
        assert_eq!(found[0].problem, "row account has no column at");
        assert_eq!(found[0].cure, "return it too: account has id");
    }

    #[test]
    fn a_row_has_columns_each_with_a_name_of_its_own() {
        let statement = statement("select 1");
        let problem = |names: &[&str]| check_row(&statement, "a", &columns(names)).map(|found| found.problem);
        assert_eq!(problem(&["x", "y"]), None);
        assert_eq!(problem(&["x", "x"]).as_deref(), Some("row a has two columns x"));
        assert_eq!(problem(&[]).as_deref(), Some("nothing is returned for row a"));
    }
}
