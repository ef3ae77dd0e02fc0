//! The database refuses a statement: its words, at their place, with what to do.

use std::collections::BTreeSet;

use super::super::diagnostic::{Diagnostic, Place};
use super::super::statement::{Parameter, Statement, Word};
use super::super::wider::wider;
use super::Catalog;
use crate::config::nearest;
use crate::postgres::StatementError;

const UNTYPED_PARAMETER: &str = "42P18";
const TWO_TYPES: &str = "42P08";
const NO_TABLE: &str = "42P01";
const NO_COLUMN: &str = "42703";
const NO_FUNCTION: &str = "42883";
const NO_PRIVILEGE: &str = "42501";

/// What is to be said of `error`, which the database has of the numbered `statement`.
pub(in super::super) fn refused(statement: &Statement, error: &StatementError, catalog: &Catalog) -> Diagnostic {
    let parameters = statement.parameters();
    let named = parameter(&error.message, &parameters);
    let problem = match (error.sqlstate.as_str(), named) {
        (UNTYPED_PARAMETER, Some(parameter)) => format!("the type of {parameter} cannot be told from its use"),
        (TWO_TYPES, Some(parameter)) => match two_types(error) {
            Some((one, other)) => format!("{parameter} is {one} and {other} in one statement"),
            None => renamed(&error.message, &parameters),
        },
        _ => renamed(&error.message, &parameters),
    };
    let byte = error.position.map(|position| statement.byte_of(position));
    let word = byte.and_then(|byte| statement.words.iter().find(|word| word.at == byte));
    Diagnostic { place: place(statement, byte, named), problem, cure: cure(error, named, word, catalog) }
}

fn place(statement: &Statement, byte: Option<usize>, named: Option<&Parameter>) -> Place {
    let used = || statement.uses().find(|(parameter, _)| Some(*parameter) == named).map(|(_, place)| place);
    byte.map(|byte| statement.place_of(byte)).or_else(used).unwrap_or_else(|| statement.place_of(0))
}

fn cure(error: &StatementError, named: Option<&Parameter>, word: Option<&Word>, catalog: &Catalog) -> String {
    match (error.sqlstate.as_str(), named) {
        (UNTYPED_PARAMETER, Some(parameter)) => return format!("write the type, such as {parameter}::text"),
        (TWO_TYPES, Some(parameter)) => {
            let meant = two_types(error).map_or("numeric", |(one, other)| wider(one, other));
            return format!("write one type wherever it is used, such as {parameter}::{meant}");
        }
        (NO_TABLE, _) => return table(word, catalog),
        (NO_PRIVILEGE, _) => return "grant that to the role in database.url".to_owned(),
        _ => {}
    }
    if error.sqlstate == NO_FUNCTION
        && let Some(word) = word.filter(|word| word.called && !catalog.functions.contains(&word.text))
    {
        return match near(word, &catalog.functions) {
            Some(function) => format!("did you mean {function}?"),
            None => format!("correct the function's name, or make it in schema {}", catalog.tables_schema),
        };
    }
    match &error.hint {
        Some(hint) => hint.trim_end_matches('.').to_owned(),
        None if error.sqlstate == NO_COLUMN => column(word, catalog),
        None => format!("correct the statement (SQLSTATE {})", error.sqlstate),
    }
}

fn table(word: Option<&Word>, catalog: &Catalog) -> String {
    let schema = &catalog.tables_schema;
    if !catalog.schemas.contains(schema) {
        return format!("there is no schema {schema}: make it, or correct database.tables_schema");
    }
    match word.and_then(|word| near(word, &catalog.tables)) {
        Some(table) => format!("did you mean {table}?"),
        None => format!("make the table in schema {schema} (solewriter migrate runs the scripts that `tables` names)"),
    }
}

fn column(word: Option<&Word>, catalog: &Catalog) -> String {
    match word.and_then(|word| near(word, &catalog.columns)) {
        Some(column) => format!("did you mean {column}?"),
        None => "correct the column's name".to_owned(),
    }
}

/// Another name: the same one exists somewhere else.
fn near<'n>(word: &Word, names: &'n BTreeSet<String>) -> Option<&'n str> {
    let others = names.iter().map(String::as_str).filter(|name| *name != word.text);
    nearest(&word.text, &others.collect::<Vec<_>>())
}

/// The types that Postgres names: `integer versus bigint`.
fn two_types(error: &StatementError) -> Option<(&str, &str)> {
    error.detail.as_deref()?.split_once(" versus ")
}

/// The parameter whose number the message has.
fn parameter<'p>(message: &str, parameters: &'p [Parameter]) -> Option<&'p Parameter> {
    let (_, number) = message.split_once("parameter $")?;
    let digits = number.find(|c: char| !c.is_ascii_digit()).map_or(number, |end| &number[..end]);
    parameters.get(digits.parse::<usize>().ok()?.checked_sub(1)?)
}

/// The message with names in place of numbers; `$12` before `$1`.
fn renamed(message: &str, parameters: &[Parameter]) -> String {
    let numbered = parameters.iter().enumerate().rev();
    numbered.fold(message.to_owned(), |message, (nth, parameter)| {
        message.replace(&format!("${}", nth + 1), &parameter.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::super::support::statement;
    use super::*;

    fn error(sqlstate: &str, message: &str, position: Option<usize>) -> StatementError {
        StatementError { message: message.into(), sqlstate: sqlstate.into(), hint: None, detail: None, position }
    }

    fn catalog() -> Catalog {
        let set = |name: &str| [name.to_owned()].into();
        Catalog {
            tables_schema: "public".into(),
            schemas: set("public"),
            tables: set("account"),
            functions: set("coalesced"),
            ..Catalog::default()
        }
    }

    #[test]
    fn a_misspelt_name_is_shown_at_its_place_with_the_one_that_is_meant() {
        let statement = statement("select coalescd(a) from acount where id = :entity_id");
        let table = refused(&statement, &error("42P01", "relation \"acount\" does not exist", Some(25)), &catalog());
        assert_eq!((table.place.at, table.cure.as_str()), (statement.place.at + 24, "did you mean account?"));
        let function =
            refused(&statement, &error("42883", "function coalescd(text) does not exist", Some(8)), &catalog());
        assert_eq!(function.cure, "did you mean coalesced?");
    }

    #[test]
    fn a_parameter_is_named_and_not_numbered() {
        let statement = statement("select f(:entity_id, :note)");
        let untyped = error("42P18", "could not determine data type of parameter $2", None);
        let found = refused(&statement, &untyped, &catalog());
        assert_eq!(found.problem, "the type of :note cannot be told from its use");
        assert_eq!(found.cure, "write the type, such as :note::text");
        assert_eq!(found.place.at, statement.place.at + 21);
        let two = StatementError {
            detail: Some("integer versus bigint".into()),
            ..error("42P08", "inconsistent types deduced for parameter $2", None)
        };
        let found = refused(&statement, &two, &catalog());
        assert_eq!(found.problem, ":note is integer and bigint in one statement");
        assert_eq!(found.cure, "write one type wherever it is used, such as :note::bigint");
        let other = error("42846", "cannot cast $1 to uuid", None);
        assert_eq!(refused(&statement, &other, &catalog()).problem, "cannot cast :entity_id to uuid");
    }
}
