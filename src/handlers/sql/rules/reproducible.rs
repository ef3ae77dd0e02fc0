//! A command that is run again does the same: its statements ask neither the clock nor the session,
//! take no random numbers, and rest on no default that does, nor on triggers.

use std::collections::BTreeSet;

use super::super::diagnostic::Diagnostic;
use super::super::statement::{Statement, Word};
use super::super::tokens::tokens;
use super::super::words::words;
use super::{Catalog, Examined, clock};
use crate::postgres::{ColumnDefault, Operation, Trigger};

/// STABLE functions that answer differently in another transaction or session. VOLATILE ones are
/// known to the catalog.
const ASKS_CLOCK_OR_SESSION: [&str; 24] = [
    "current_database",
    "current_setting",
    "current_timestamp",
    "current_time",
    "inet_client_addr",
    "inet_client_port",
    "inet_server_addr",
    "inet_server_port",
    "localtime",
    "localtimestamp",
    "now",
    "pg_backend_pid",
    "pg_conf_load_time",
    "pg_current_snapshot",
    "pg_current_xact_id",
    "pg_current_xact_id_if_assigned",
    "pg_is_in_recovery",
    "pg_postmaster_start_time",
    "statement_timestamp",
    "transaction_timestamp",
    "txid_current",
    "txid_current_if_assigned",
    "txid_current_snapshot",
    "version",
];

/// The same, written without parentheses.
const KEYWORDS: [&str; 11] = [
    "current_catalog",
    "current_date",
    "current_role",
    "current_time",
    "current_timestamp",
    "current_schema",
    "current_user",
    "localtime",
    "localtimestamp",
    "session_user",
    "user",
];

const OR_SAY_SO: &str = "or say nondeterministic = true";

/// The names of all functions that a statement may call: its own, and those of its plan. What the
/// catalog is asked about.
pub(in super::super) fn called(statement: &Statement, expressions: &[String]) -> BTreeSet<String> {
    let own = statement.words.iter().filter(|word| word.called).map(|word| word.text.clone());
    own.chain(expressions.iter().flat_map(|expression| calls(expression))).collect()
}

/// What a statement rests on that differs when it is run again.
pub(in super::super) fn check(examined: &Examined<'_>, catalog: &Catalog) -> Vec<Diagnostic> {
    let mut found = in_text(examined.statement, catalog);
    found.extend(clock::check(examined.statement));
    let mut named: BTreeSet<_> = named(examined.statement, catalog).map(|word| word.text.clone()).collect();
    if clock::has_age(examined.statement) {
        // what the plan shows of it
        named.insert("current_date".to_owned());
    }
    let planned = examined.expressions.iter().flat_map(|expression| calls(expression));
    let mut unexplained: BTreeSet<_> = planned.filter(|call| !named.contains(call) && differs(call, catalog)).collect();
    for (table, column) in defaults(examined, catalog) {
        let calls: Vec<_> = calls(&column.expression).into_iter().filter(|call| differs(call, catalog)).collect();
        let taken = calls.iter().any(|call| unexplained.contains(call)) || is_hidden(examined);
        if !taken {
            continue;
        }
        found.push(by_default(examined.statement, table, column));
    }
    let explained: BTreeSet<_> =
        defaults(examined, catalog).flat_map(|(_, column)| calls(&column.expression)).collect();
    unexplained.retain(|call| !explained.contains(call));
    found.extend(unexplained.into_iter().map(|call| Diagnostic {
        place: examined.statement.place_of(0),
        problem: format!(
            "{call}() is called, by way of a view or a function: it answers differently when the command is run again"
        ),
        cure: format!("name a table or a function that does not call it, {OR_SAY_SO}"),
    }));
    found.extend(triggers(examined, catalog));
    found
}

/// The functions in the statement itself, each name once.
fn in_text(statement: &Statement, catalog: &Catalog) -> Vec<Diagnostic> {
    let mut seen = BTreeSet::new();
    let first = named(statement, catalog).filter(|word| seen.insert(word.text.as_str()));
    first
        .map(|word| Diagnostic {
            place: statement.place_of(word.at),
            problem: format!("{} answers differently when the command is run again", shown(word)),
            cure: instead(&word.text),
        })
        .collect()
}

/// The words that ask the clock, the session or chance.
fn named<'s>(statement: &'s Statement, catalog: &'s Catalog) -> impl Iterator<Item = &'s Word> {
    let words = statement.words.iter().enumerate();
    let calls = words.filter(|(nth, word)| {
        // `insert into version (…)` calls nothing
        let table = nth.checked_sub(1).is_some_and(|before| is_keyword(&statement.words[before], "into"));
        let keyword = !word.quoted && word.qualifier.is_none() && KEYWORDS.contains(&word.text.as_str());
        keyword || (word.called && !table && differs(&word.text, catalog))
    });
    calls.map(|(_, word)| word)
}

fn differs(function: &str, catalog: &Catalog) -> bool {
    ASKS_CLOCK_OR_SESSION.contains(&function) || KEYWORDS.contains(&function) || catalog.volatile.contains(function)
}

fn shown(word: &Word) -> String {
    match word.called {
        true => format!("{}()", word.text),
        false => word.text.clone(),
    }
}

fn instead(function: &str) -> String {
    let time = ["now", "timestamp", "time", "date"].iter().any(|part| function.ends_with(part));
    let advice = match function {
        _ if time => "write :command_time",
        _ if function.contains("uuid") => "write :uuid1",
        "nextval" => "write :uuid1 for an id, or count in a table",
        "random" | "random_normal" => "let the sender choose: a field of the payload",
        _ if ASKS_CLOCK_OR_SESSION.contains(&function) || KEYWORDS.contains(&function) => {
            "let the sender tell: a field of the payload"
        }
        _ => "mark the function stable or immutable if it is",
    };
    format!("{advice}, {OR_SAY_SO}")
}

/// The columns of inserted tables whose value may be their own: those that the statement does not
/// name, or all, if it says `default` somewhere.
fn defaults<'c>(
    examined: &'c Examined<'_>,
    catalog: &'c Catalog,
) -> impl Iterator<Item = (&'c str, &'c ColumnDefault)> {
    let words = &examined.statement.words;
    let says_default = words.iter().any(|word| is_keyword(word, "default"));
    let inserted = examined.how.iter().filter(|(_, how)| matches!(how, Operation::Insert | Operation::Merge));
    let columns = inserted.flat_map(|(table, _)| {
        let columns = catalog.written.get(table).into_iter().flat_map(|written| &written.defaults);
        columns.map(|column| (table.name.as_str(), column))
    });
    let own = move |column: &ColumnDefault| says_default || !words.iter().any(|word| word.text == column.column);
    columns
        .filter(move |(_, column)| own(column) && calls(&column.expression).iter().any(|call| differs(call, catalog)))
}

/// The plan of a merge, and of a `values` with several rows, does not show what is inserted.
fn is_hidden(examined: &Examined<'_>) -> bool {
    let merges = examined.how.iter().any(|(_, how)| *how == Operation::Merge);
    merges || examined.statement.words.iter().any(|word| is_keyword(word, "default"))
}

fn by_default(statement: &Statement, table: &str, column: &ColumnDefault) -> Diagnostic {
    let name = &column.column;
    let problem = match column.identity {
        true => format!("column {name} of {table} is an identity: it has another value when the command is run again"),
        false => format!(
            "column {name} of {table} defaults to {}: it has another value when the command is run again",
            column.expression
        ),
    };
    let cure = format!("insert {name} with a value of its own (:command_time, :uuid1, a field), {OR_SAY_SO}");
    Diagnostic { place: statement.place_of(0), problem, cure }
}

fn triggers(examined: &Examined<'_>, catalog: &Catalog) -> Vec<Diagnostic> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for (table, how) in &examined.how {
        let all = catalog.written.get(table).into_iter().flat_map(|written| &written.triggers);
        for trigger in all.filter(|trigger| runs_on(trigger, *how)) {
            if !seen.insert((table, &trigger.name)) {
                continue;
            }
            found.push(Diagnostic {
                place: examined.statement.place_of(0),
                problem: format!(
                    "trigger {} on {} runs with this statement: nobody knows that it does the same again",
                    trigger.name, table.name
                ),
                cure: format!("make what it does a step and drop it, {OR_SAY_SO}"),
            });
        }
    }
    found
}

fn runs_on(trigger: &Trigger, how: Operation) -> bool {
    match how {
        Operation::Insert => trigger.on_insert,
        Operation::Update => trigger.on_update,
        Operation::Delete => trigger.on_delete,
        Operation::Merge => true,
    }
}

fn is_keyword(word: &Word, keyword: &str) -> bool {
    !word.quoted && word.text == keyword
}

/// The functions that an expression, as Postgres writes it, calls.
pub(in super::super) fn calls(expression: &str) -> Vec<String> {
    let Ok(tokens) = tokens(expression) else { return Vec::new() };
    let words = words(&tokens, 0, |_| false).into_iter();
    let called = words.filter(|word| word.called || (!word.quoted && KEYWORDS.contains(&word.text.as_str())));
    called.map(|word| word.text).collect()
}

#[cfg(test)]
mod tests {
    use super::super::support::{examined, relation, statement};
    use super::*;
    use crate::postgres::WrittenTable;

    fn catalog() -> Catalog {
        let default = |column: &str, expression: &str, identity| ColumnDefault {
            column: column.into(),
            expression: expression.into(),
            identity,
        };
        let table = WrittenTable {
            defaults: vec![
                default("n", "nextval()", true),
                default("at", "now()", false),
                default("kind", "'now()'::text", false),
            ],
            triggers: vec![Trigger { name: "audit".into(), on_insert: false, on_update: true, on_delete: false }],
            ..WrittenTable::default()
        };
        Catalog {
            volatile: ["random", "nextval", "clock_timestamp"].map(str::to_owned).into(),
            written: [(relation("ledger"), table)].into(),
            ..Catalog::default()
        }
    }

    fn problems(sql: &str, how: &[Operation], expressions: &[&str]) -> Vec<(usize, String)> {
        let statement = statement(sql);
        let mut examined = examined(&statement, &[], &["ledger"]);
        examined.how = how.iter().map(|how| (relation("ledger"), *how)).collect();
        examined.expressions = expressions.iter().map(|expression| (*expression).to_owned()).collect();
        let found = check(&examined, &catalog());
        found
            .into_iter()
            .map(|d| (d.place.at, d.problem.split([' ', ':']).take(4).collect::<Vec<_>>().join(" ")))
            .collect()
    }

    #[test]
    fn functions_are_found_where_they_are_called_and_nowhere_else() {
        let sql = "select now(), random(), a.now, 'now()', \"user\", current_date, coalesce(b, now()) -- now()";
        let at: Vec<_> = problems(sql, &[], &[]).into_iter().map(|(at, _)| at).collect();
        assert_eq!(at, [7, 14, sql.find("current_date").unwrap_or(0)]);
    }

    #[test]
    fn a_default_counts_only_where_it_is_taken() {
        let insert = [Operation::Insert];
        let identity = (0, "column n of ledger".to_owned());
        let at = (0, "column at of ledger".to_owned());
        let both = problems("insert into ledger (id) values ('a')", &insert, &["nextval('n')", "now()"]);
        assert_eq!(both, [identity.clone(), at.clone()]);
        assert_eq!(
            problems("insert into ledger (id, n) values ('a', 1)", &insert, &["now()"]),
            std::slice::from_ref(&at)
        );
        assert_eq!(problems("insert into ledger (n, at) values (1, :command_time)", &insert, &[]), []);
        let hidden = "insert into ledger (n, at) values (1, default), (2, default)";
        assert!(problems(hidden, &insert, &[]).contains(&at));
        let merge = "merge into ledger using v on true when not matched then insert (n) values (1)";
        assert!(problems(merge, &[Operation::Merge], &[]).contains(&at));
    }

    #[test]
    fn what_a_view_calls_is_not_missed() {
        let found = problems("select at from recent", &[], &["recent.id", "clock_timestamp()"]);
        assert_eq!(found, [(0, "clock_timestamp() is called, by".to_owned())]);
    }

    #[test]
    fn a_trigger_counts_for_what_it_runs_on() {
        assert_eq!(problems("delete from ledger", &[Operation::Delete], &[]), []);
        assert_eq!(problems("update ledger set n = 1", &[Operation::Update], &[]).len(), 1);
    }
}
