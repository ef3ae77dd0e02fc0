//! A row that `into` names has the columns that are asked of it.

use std::collections::BTreeSet;

use super::super::declaration::{Command, Detail, DetailPiece, Template};
use super::super::diagnostic::{Diagnostic, Place};
use super::super::statement::{Parameter, Statement};
use super::super::typed::Column;
use super::{Declared, listed, nearest};

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
    let pieces = detail.pieces.iter().filter_map(|piece| match piece {
        DetailPiece::Parameter(parameter) => missing(parameter, detail.place.clone(), rows),
        DetailPiece::Text(_) => None,
    });
    pieces.collect()
}

/// Columns that the reply and the events ask of rows that lack them.
pub(in super::super) fn check_templates(command: &Command, rows: &[Row<'_>]) -> Vec<Diagnostic> {
    let mut parameters = Vec::new();
    for template in command.reply.iter().chain(command.events.iter().map(|event| &event.data)) {
        collect(template, &mut parameters);
    }
    let place = |parameter: &Parameter| Declared::Command(command).place_of(&parameter.to_string());
    parameters.into_iter().filter_map(|parameter| missing(parameter, place(parameter), rows)).collect()
}

/// The parameters of a template, in order.
pub(in super::super) fn collect<'t>(template: &'t Template, into: &mut Vec<&'t Parameter>) {
    match template {
        Template::Literal(_) => {}
        Template::Parameter(parameter) => into.push(parameter),
        Template::Array(items) => items.iter().for_each(|item| collect(item, into)),
        Template::Object(entries) => entries.iter().for_each(|(_, value)| collect(value, into)),
    }
}

fn missing(parameter: &Parameter, place: Place, rows: &[Row<'_>]) -> Option<Diagnostic> {
    let Parameter::Row { row, column } = parameter else { return None };
    // a later row of the same name hides the earlier one
    let (_, columns) = match rows.iter().rev().find(|(name, _)| name == row) {
        Some(found) => found,
        None => {
            let names: Vec<_> = rows.iter().map(|(name, _)| (*name).to_owned()).collect();
            let cure = match nearest(row, &names) {
                Some(meant) => format!("did you mean :{meant}.{column}?"),
                None => format!("take it with into = \"{row}\" in a step before"),
            };
            return Some(Diagnostic { place, problem: format!("there is no row {row} here"), cure });
        }
    };
    // its own mistake is told
    let columns = columns.as_ref()?;
    if columns.iter().any(|found| found.name == *column) {
        return None;
    }
    let names: Vec<_> = columns.iter().map(|column| column.name.clone()).collect();
    let cure = match nearest(column, &names) {
        Some(meant) => format!("did you mean :{row}.{meant}?"),
        None => format!("return it too: {row} has {}", listed(&names)),
    };
    Some(Diagnostic { place, problem: format!("row {row} has no column {column}"), cure })
}

#[cfg(test)]
mod tests {
    use super::super::support::{command, statement};
    use super::*;

    fn columns(names: &[&str]) -> Vec<Column> {
        names.iter().map(|name| Column { name: (*name).into(), data_type: "bigint".into() }).collect()
    }

    #[test]
    fn a_column_that_a_row_lacks_is_shown_where_it_is_asked_for() {
        let rows = [("account", Some(columns(&["id", "balance"]))), ("broken", None)];
        let statement = statement("select :account.balanc, :acount.id, :broken.anything, :account.id");
        let found = check_statement(&statement, &rows);
        let cures: Vec<_> = found.iter().map(|diagnostic| (diagnostic.place.at, diagnostic.cure.as_str())).collect();
        assert_eq!(cures, [(7, "did you mean :account.balance?"), (24, "did you mean :account.id?")]);
    }

    #[test]
    fn replies_and_events_are_looked_through() {
        let mut command = command("account.open", "select 1");
        let parameter = Parameter::Row { row: "account".into(), column: "at".into() };
        command.reply =
            Some(Template::Array(vec![Template::Object(vec![("at".into(), Template::Parameter(parameter))])]));
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
