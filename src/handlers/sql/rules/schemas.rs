//! A statement names no schema: the configuration does.

use super::super::diagnostic::Diagnostic;
use super::super::statement::{Statement, Word};
use super::Catalog;

/// A word whose qualifier is a schema, and neither a table nor an alias of the statement.
pub(in super::super) fn check(statement: &Statement, catalog: &Catalog) -> Vec<Diagnostic> {
    let qualified = statement.words.iter().filter_map(|word| Some((word, word.qualifier.as_ref()?)));
    let named = qualified.filter(|(_, schema)| catalog.schemas.contains(*schema) && !stands_alone(schema, statement));
    named
        .map(|(word, schema)| Diagnostic {
            place: statement.place_of(beginning(word, statement)),
            problem: format!("{schema}.{} names a schema", word.text),
            cure: format!("write {} alone: database.tables_schema says where it is", word.text),
        })
        .collect()
}

/// A table or an alias is written somewhere without anything of it behind a dot.
fn stands_alone(name: &str, statement: &Statement) -> bool {
    let words = &statement.words;
    words.iter().enumerate().any(|(nth, word)| {
        let qualifies = words.get(nth + 1).is_some_and(|next| next.qualifier.as_deref() == Some(name));
        word.text == name && !qualifies
    })
}

/// Where the qualifier begins.
fn beginning(word: &Word, statement: &Statement) -> usize {
    let before = statement.words.iter().take_while(|before| before.at < word.at).last();
    before.filter(|before| Some(&before.text) == word.qualifier.as_ref()).map_or(word.at, |before| before.at)
}

#[cfg(test)]
mod tests {
    use super::super::support::statement;
    use super::*;

    fn problems(sql: &str) -> Vec<(usize, String)> {
        let schemas = ["public".to_owned(), "bank".to_owned()].into();
        let catalog = Catalog { schemas, ..Catalog::default() };
        let found = check(&statement(sql), &catalog);
        found.into_iter().map(|diagnostic| (diagnostic.place.at, diagnostic.problem)).collect()
    }

    #[test]
    fn a_schema_is_found_where_it_is_named() {
        let expected = vec![(14, "bank.account names a schema".to_owned())];
        assert_eq!(problems("select 1 from bank.account"), expected);
        assert_eq!(problems("select 1 from account"), []);
    }

    #[test]
    fn a_table_or_an_alias_that_is_called_like_a_schema_is_none() {
        assert_eq!(problems("select bank.id from bank where bank.id = '1'"), []);
        assert_eq!(problems("select bank.id from account as bank"), []);
    }
}
