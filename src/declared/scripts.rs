//! The scripts that make a team's tables, told with their place: what is wrong with one, and which
//! mistakes in commands come of one that `migrate` has not run, or that cannot change a table.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::handlers::sql::declaration::TablesScript;
use crate::handlers::sql::diagnostic::{Diagnostic, Place, SourceFile};
use crate::postgres::StatementError;

const SYNTAX: &str = "42601";
const IN_TRANSACTION: &str = "25001";
const NO_PRIVILEGE: &str = "42501";
const DUPLICATE_ROW: &str = "23505";
const DUPLICATE_OBJECT: &str = "42710";
const DUPLICATES: [&str; 5] = [DUPLICATE_OBJECT, "42P07", "42P06", "42701", "42723"];

/// What stands before the name of something that is made.
const KINDS: [&str; 12] = [
    "table",
    "index",
    "view",
    "sequence",
    "type",
    "domain",
    "function",
    "procedure",
    "trigger",
    "schema",
    "column",
    "constraint",
];

/// The script's path without a way there and back: `config/commands/../../sql/stock.sql`.
pub fn path(script: &TablesScript) -> String {
    let named = Path::new(&script.path);
    let short = named.components().fold(PathBuf::new(), |mut short, component| {
        match (component, short.components().next_back()) {
            (Component::ParentDir, Some(Component::Normal(_))) => {
                short.pop();
            }
            (component, _) => short.push(component),
        }
        short
    });
    // behind a symbolic link `..` is another directory
    let is_same = fs::canonicalize(&short).ok().is_some_and(|real| fs::canonicalize(named).ok() == Some(real));
    if is_same { short.display().to_string() } else { script.path.clone() }
}

/// What the database says of a script, at its place.
pub(super) fn refused(script: &TablesScript, error: &StatementError) -> Diagnostic {
    let made = made(&script.sql, error);
    let at = error.position.map(|position| byte_of(&script.sql, position)).or(made.map(|(at, _)| at));
    let path = path(script);
    let place = match at {
        Some(at) => Place { file: Arc::new(SourceFile { path, text: script.sql.clone() }), at },
        None => Place::of_file(path),
    };
    Diagnostic { place, problem: error.message.clone(), cure: cure(error, made.map(|(_, kind)| kind)) }
}

fn cure(error: &StatementError, made: Option<&str>) -> String {
    const AGAIN: &str = "migrate runs the script each time";
    match (error.sqlstate.as_str(), made) {
        (SYNTAX, _) => "correct the statement".to_owned(),
        (IN_TRANSACTION, _) => "leave that out: the script is run in one transaction".to_owned(),
        (NO_PRIVILEGE, _) => "grant that to the role in database.url".to_owned(),
        (DUPLICATE_ROW, _) => format!("add `on conflict do nothing`: {AGAIN}"),
        (code, Some("column")) if DUPLICATES.contains(&code) => format!("write `add column if not exists`: {AGAIN}"),
        (code, Some(kind @ ("view" | "function" | "procedure" | "trigger"))) if DUPLICATES.contains(&code) => {
            format!("write `create or replace {kind}`: {AGAIN}")
        }
        // Postgres knows no `if not exists` for the others
        (DUPLICATE_OBJECT, _) => format!("drop it before with `if exists`, or make it where it is missing: {AGAIN}"),
        (code, Some(kind)) if DUPLICATES.contains(&code) => format!("write `create {kind} if not exists`: {AGAIN}"),
        (code, None) if DUPLICATES.contains(&code) => format!("write `if not exists`: {AGAIN}"),
        (code, _) => match &error.hint {
            Some(hint) => hint.trim_end_matches('.').to_owned(),
            None => format!("correct the script (SQLSTATE {code})"),
        },
    }
}

/// The byte of a character; the first is 1.
fn byte_of(text: &str, position: usize) -> usize {
    text.char_indices().nth(position.saturating_sub(1)).map_or(text.len(), |(at, _)| at)
}

/// Where the script makes what is there already, which the database names without a place, and what
/// kind of thing it is.
fn made(script: &str, error: &StatementError) -> Option<(usize, &'static str)> {
    if !DUPLICATES.contains(&error.sqlstate.as_str()) {
        return None;
    }
    let name = error.message.split('"').nth(1)?;
    let mut words = words(script).peekable();
    while let Some((_, word)) = words.next() {
        let kind = KINDS.into_iter().find(|kind| word.eq_ignore_ascii_case(kind));
        if let (Some(kind), Some((at, _))) = (kind, words.peek().filter(|(_, next)| next.eq_ignore_ascii_case(name))) {
            return Some((*at, kind));
        }
    }
    None
}

/// The words of the script, each with its byte, but for those behind `--`.
fn words(script: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = script.split_inclusive('\n').scan(0, |start, line| {
        let at = *start;
        *start += line.len();
        Some((at, line.find("--").map_or(line, |comment| &line[..comment])))
    });
    lines.flat_map(|(start, line)| {
        let pieces = line.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'));
        let of = move |piece: &'_ str| start + piece.as_ptr().addr() - line.as_ptr().addr();
        pieces.filter(|piece| !piece.is_empty()).map(move |piece| (of(piece), piece))
    })
}

/// Whether the script makes a table, or a view, of this name.
fn makes(script: &TablesScript, relation: &str) -> bool {
    let mut before = [""; 4];
    words(&script.sql).any(|(_, word)| {
        let is_made = match before.map(str::to_ascii_lowercase).each_ref().map(String::as_str) {
            [.., "alter" | "drop", "table" | "view"] => false,
            [.., "table" | "view"] => true,
            ["table" | "view", "if", "not", "exists"] => true,
            _ => false,
        };
        before = [before[1], before[2], before[3], word];
        is_made && word.eq_ignore_ascii_case(relation)
    })
}

/// The mistakes that are left when a script is run that makes the tables which they miss, and those
/// scripts, each with its tables.
pub fn not_run(
    problems: Vec<Diagnostic>,
    scripts: &[TablesScript],
) -> (Vec<Diagnostic>, Vec<(&TablesScript, Vec<String>)>) {
    let mut awaited: Vec<(&TablesScript, Vec<String>)> = Vec::new();
    let left = problems.into_iter().filter(|problem| {
        let Some(relation) = absent_relation(&problem.problem) else { return true };
        let Some(script) = scripts.iter().find(|script| makes(script, relation)) else { return true };
        match awaited.iter_mut().find(|(known, _)| known.path == script.path) {
            Some((_, relations)) if relations.iter().any(|known| known == relation) => {}
            Some((_, relations)) => relations.push(relation.to_owned()),
            None => awaited.push((script, vec![relation.to_owned()])),
        }
        false
    });
    (left.collect(), awaited)
}

/// The table that the database misses, in its words.
fn absent_relation(problem: &str) -> Option<&str> {
    problem.strip_prefix("relation \"")?.strip_suffix("\" does not exist")
}

/// Says of a column that is not there that a script which makes the table does not add it, as
/// somebody has thought who added it there.
pub(super) fn mention_new_column(problem: &mut Diagnostic, scripts: &[TablesScript]) {
    let Some((column, relation)) = absent_column(&problem.problem) else { return };
    let of_file = || scripts.iter().find(|script| script.place.file.path == problem.place.file.path);
    let of_table = |relation| scripts.iter().find(|script| makes(script, relation));
    let Some(script) = relation.and_then(of_table).or_else(of_file) else { return };
    let (path, table) = (path(script), relation.unwrap_or("…"));
    problem.cure += &format!(
        "; if it is new, add `alter table {table} add column if not exists {column} …;` to {path}: \
         `create table if not exists` changes no table that is there"
    );
}

/// A column that the database misses, and its table if that is said.
fn absent_column(problem: &str) -> Option<(&str, Option<&str>)> {
    let named = problem.strip_prefix("column ")?.strip_suffix(" does not exist")?;
    let (column, relation) = match named.split_once(" of relation ") {
        Some((column, relation)) => (column, Some(relation.trim_matches('"'))),
        None => (named, None),
    };
    let column = column.trim_matches('"');
    // of an alias, which says nothing of its table
    Some((column.rsplit('.').next().unwrap_or(column), relation))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(sql: &str) -> TablesScript {
        let path = "config/commands/../../sql/stock.sql".to_owned();
        TablesScript { place: Place::of_file("stock.toml"), path, sql: sql.to_owned() }
    }

    fn error(sqlstate: &str, message: &str, position: Option<usize>) -> StatementError {
        StatementError { message: message.into(), sqlstate: sqlstate.into(), detail: None, hint: None, position }
    }

    fn problem(problem: &str) -> Diagnostic {
        Diagnostic { place: Place::of_file("stock.toml"), problem: problem.into(), cure: "correct it".into() }
    }

    #[test]
    fn a_mistake_in_a_script_is_shown_at_its_place() {
        let script = script("-- é\ncreate tabel a ();\n");
        let shown = refused(&script, &error("42601", "syntax error at or near \"tabel\"", Some(13))).to_string();
        let expected = "stock.sql:2:8: syntax error at or near \"tabel\"\n  create tabel a ();\n         ^\ncure: ";
        assert!(shown.contains(expected), "{shown}");
        let nowhere = refused(&script, &error("42P01", "relation \"b\" does not exist", None));
        assert_eq!(nowhere.place.line(), "");
    }

    #[test]
    fn what_is_there_already_is_found_by_its_name() {
        let again = "-- the table product\ncreate index if not exists i on product (id);\ncreate table product ();\n\
                     alter table product add column note text;\n";
        let script = script(again);
        let table = refused(&script, &error("42P07", "relation \"product\" already exists", None));
        assert_eq!(table.place.line_column(), (3, 14));
        assert!(table.cure.starts_with("write `create table if not exists`: "), "{}", table.cure);
        let message = "column \"note\" of relation \"product\" already exists";
        let column = refused(&script, &error("42701", message, None));
        assert_eq!((column.place.line_column(), column.cure.contains("add column if not exists")), ((4, 32), true));
    }

    #[test]
    fn mistakes_that_a_script_mends_are_those_of_tables_that_it_makes() {
        let scripts = [script(
            "create table if not exists product ();\ncreate view \"recent\" as select 1;\nalter table other add a int;",
        )];
        let missing = |name: &str| problem(&format!("relation \"{name}\" does not exist"));
        let problems = ["product", "recent", "product", "exists", "other"].map(missing);
        let (left, awaited) = not_run(problems.into(), &scripts);
        assert_eq!(left, [missing("exists"), missing("other")]);
        assert_eq!((awaited.len(), &awaited[0].1), (1, &vec!["product".to_owned(), "recent".to_owned()]));
    }

    #[test]
    fn a_new_column_is_added_by_a_statement_of_its_own() {
        let scripts = [script("create table if not exists product (id text, note text);")];
        let told = |text: &str| {
            let mut problem = problem(text);
            mention_new_column(&mut problem, &scripts);
            problem.cure
        };
        let of_table = told("column \"note\" of relation \"product\" does not exist");
        assert!(of_table.contains("`alter table product add column if not exists note …;` to "), "{of_table}");
        assert!(told("column p.note does not exist").contains("alter table … add column if not exists note …;"));
        assert_eq!(told("relation \"product\" does not exist"), "correct it");
    }

    #[test]
    fn a_path_has_no_way_there_and_back_if_it_is_the_same_file() {
        assert_eq!(path(&script("")), "config/commands/../../sql/stock.sql", "there is no such file");
        let script = TablesScript { path: "src/declared/../declared/scripts.rs".into(), ..script("") };
        assert_eq!(path(&script), "src/declared/scripts.rs");
    }
}
