use std::sync::Arc;

use super::super::diagnostic::SourceFile;
use super::*;

fn place(text: &str) -> Place {
    Place { file: Arc::new(SourceFile { path: "a.toml".into(), text: text.into() }), at: 0 }
}

fn parsed(text: &str) -> Statement {
    Statement::parse(text, &place(text)).unwrap_or_else(|error| panic!("{error}"))
}

fn numbered(text: &str) -> (String, Vec<String>) {
    let (sql, parameters) = parsed(text).numbered();
    (sql, parameters.iter().map(|parameter| parameter.to_string()[1..].to_owned()).collect())
}

fn refusal(text: &str) -> (usize, String) {
    let diagnostic = Statement::parse(text, &place(text)).expect_err(text);
    (diagnostic.place.at, diagnostic.problem)
}

#[test]
fn each_parameter_has_one_number_however_often_it_is_used() {
    let (sql, parameters) = numbered(
        "update t set a = a-:amount, b=:row.col,c=(:amount) where id = :entity_id and :amount>=0 and x in (:uuid1,:uuid2)",
    );
    assert_eq!(sql, "update t set a = a-$1, b=$2,c=($1) where id = $3 and $1>=0 and x in ($4,$5)");
    assert_eq!(parameters, ["amount", "row.col", "entity_id", "uuid1", "uuid2"]);
}

#[test]
fn what_only_looks_like_a_parameter_is_left_alone() {
    for untouched in [
        "select a::text, '1'::int, b::numeric(10,2)",
        "select ':a', E'\\':a', U&':a', 'it''s :a'",
        "select 1 -- :a\n",
        "select 1 /* :a /* :b */ :c */ + 2",
        "select $$ :a $$, $x$ :a $$ :b $x$",
        "select \":a\", t.\"b :c\" from t",
        "select a[1:2], a[lo:hi], a[(1):(2)], a[b[1]:c] from t",
        "select f(a => 1, b := 2), g(a:=b)",
        "select json_object('a':b, c:d) from t",
        "select 1 where a = ':x' and b ~ ':y'",
        "select x : y, : z, :\"quoted\"",
    ] {
        let statement = parsed(untouched);
        assert_eq!(statement.parameters(), [], "{untouched}");
        assert_eq!(statement.numbered().0, statement.text, "{untouched}");
    }
}

#[test]
fn a_parameter_may_stand_anywhere_an_expression_may() {
    for (text, sql) in [
        ("select :a::text", "select $1::text"),
        ("select a[:b], a[:c : :d]", "select a[$1], a[$2 : $3]"),
        ("select -:a, @:a, a||:b, a->>:c, a@>:d", "select -$1, @$1, a||$2, a->>$3, a@>$4"),
        ("select a=:a, a<=:b, a>:c, a<>:d, a!=:e", "select a=$1, a<=$2, a>$3, a<>$4, a!=$5"),
        ("select f(x => :a, y :=:b)", "select f(x => $1, y :=$2)"),
        ("select json_object('a': :b)", "select json_object('a': $1)"),
        ("select :a.b.c, :end, :select", "select $1.c, $2, $3"),
        ("select :Größe, ':x', :a -- :b", "select $1, ':x', $2"),
        ("select * from t limit\n:n", "select * from t limit\n$1"),
    ] {
        assert_eq!(numbered(text).0, sql, "{text}");
    }
}

#[test]
fn a_position_that_postgres_reports_is_found_in_the_text() {
    let statement = parsed("select 'é漢', :größe, :a, :größe, x");
    let (sql, _) = statement.numbered();
    assert_eq!(sql, "select 'é漢', $1, $2, $1, x");
    for (in_sql, in_text) in [("'é", "'é"), ("$1", ":größe"), (", $2", ", :a"), ("$2", ":a"), ("x", "x")] {
        let position = sql[..sql.find(in_sql).unwrap()].chars().count() + 1;
        assert_eq!(statement.byte_of(position), statement.text.find(in_text).unwrap(), "{in_sql}");
    }
    assert_eq!(statement.byte_of(sql.chars().count() + 1), statement.text.len());
    assert_eq!(statement.byte_of(0), 0);
    assert_eq!(statement.byte_of(9999), statement.text.len());
}

#[test]
fn the_text_is_the_statement_without_what_surrounds_it() {
    let text = "\n  -- a note\n  select :a ; -- done\n ;";
    let statement = parsed(text);
    assert_eq!(statement.text, "select :a");
    assert_eq!(statement.place.at, text.find("select").unwrap());
    assert_eq!(statement.place_of(7).at, text.find(":a").unwrap());
    assert_eq!(statement.uses().next().unwrap().1.at, text.find(":a").unwrap());
}

#[test]
fn a_place_among_escapes_is_the_strings_start() {
    let file = "sql = \"select \\\"a\\\", :b\"";
    let mut place = place(file);
    place.at = 6;
    let statement = Statement::parse("select \"a\", :b", &place).unwrap();
    assert_eq!(statement.place_of(12).at, 6);
}

#[test]
fn what_is_no_single_statement_is_refused_where_it_is_wrong() {
    assert_eq!(refusal("select 1; delete from t"), (10, "a second statement in one sql".into()));
    assert_eq!(refusal(" -- nothing\n"), (0, "there is no statement here".into()));
    assert_eq!(refusal(";"), (0, "there is no statement here".into()));
    assert_eq!(refusal(" drop table t"), (1, "a command runs no statement that begins with drop".into()));
    assert_eq!(refusal("'x'").1, "a command runs no statement that begins with 'x'");
    assert_eq!(refusal("select 1, $2"), (10, "$2 is no parameter".into()));
    assert_eq!(refusal("select 'x").0, 7);
    for good in ["(select 1) union (select 2)", "((values (1)))", "WITH a AS (select 1) SELECT * FROM a", "VALUES (1);"]
    {
        parsed(good);
    }
}

#[test]
fn a_query_is_select_only_even_if_it_locks() {
    for reads in [
        "select 1",
        "select * from t for update",
        "select * from t for no key update of t nowait",
        "select t.update, \"delete\", 'insert' from t -- merge",
        "select jsonb_insert(a, b, c) from t",
        "select :insert, :row.delete",
        "values (1)",
    ] {
        assert!(parsed(reads).is_select_only(), "{reads}");
    }
    for writes in [
        "insert into t values (1)",
        "update t set a = 1",
        "with x as (delete from t returning *) select * from x",
        "with x as (update t set a = 1 returning *) select * from x for update",
        "MERGE into t using s on true when matched then delete",
        "select 1 into t",
    ] {
        assert!(!parsed(writes).is_select_only(), "{writes}");
    }
}

#[test]
fn words_know_their_qualifier_and_whether_they_are_called() {
    let statement = parsed("select Pg_Catalog.NOW(), \"T\" . x, f (:row.now) from \"a\"\"b\"");
    let word = |text: &str| statement.words.iter().find(|word| word.text == text).unwrap();
    assert_eq!(word("now").qualifier.as_deref(), Some("pg_catalog"));
    assert!(word("now").called && word("f").called && !word("x").called);
    assert_eq!(word("x").qualifier.as_deref(), Some("T"));
    assert!(word("T").quoted && word("a\"b").quoted);
    assert_eq!(&statement.text[word("now").at..][..3], "NOW");
    assert_eq!(statement.words.iter().filter(|word| word.text == "row").count(), 0);
}
