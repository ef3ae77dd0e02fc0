//! What the database says of statements before any of them runs.

use solewriter::config::{Config, Database as Settings};
use solewriter::postgres::{Examined, Examiner, Operation, StatementError, Store};

use crate::support::postgres::Database;

/// An examiner of statements about tables that `sql` makes in a schema of their own.
async fn examiner(name: &str, sql: &str) -> (Database, Examiner) {
    let database = Database::fresh(name).await;
    database.execute(&format!("create schema {0}; set search_path = {0}; {sql}", database.schema)).await;
    let settings = Settings { url: database.url.parse().ok(), ..Config::default().database };
    let store = Store::new(&settings, "test").expect("an address");
    let examiner = store.examiner(&database.schema).await.expect("an examiner");
    (database, examiner)
}

async fn examined(examiner: &mut Examiner, sql: &str, declared: &[Option<&str>]) -> Examined {
    let declared: Vec<_> = declared.iter().map(|name| name.map(str::to_owned)).collect();
    let examined = examiner.examine(sql, &declared).await.expect("an answer");
    examined.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
}

async fn refused(examiner: &mut Examiner, sql: &str) -> StatementError {
    examiner.examine(sql, &[]).await.expect("an answer").expect_err(sql)
}

/// The columns that an insert leaves null, each with its table.
async fn left_null(examiner: &mut Examiner, sql: &str) -> Vec<String> {
    let left = examined(examiner, sql, &[]).await.left_null;
    left.into_iter().map(|(table, number)| format!("{} {number}", table.name)).collect()
}

const TABLES: &str = "
    create domain positive as int not null check (value > 0);
    create table account (id text primary key, balance bigint not null, code char(3), mask bit(3), level positive,
                          tags text[], made timestamptz default now());
    create table ledger (n bigint generated always as identity, account text references account);
    create table part (id text primary key, v int) partition by hash (id);
    create table part1 partition of part for values with (modulus 2, remainder 0);
    create table part2 partition of part for values with (modulus 2, remainder 1);
    create view rich as select id, balance, clock_timestamp() as at from account where balance > 1000;";

fn names(examined: &Examined) -> (Vec<&str>, Vec<(&str, Operation)>) {
    let writes = examined.writes.iter().map(|(relation, how)| (relation.name.as_str(), *how));
    (examined.reads.iter().map(|relation| relation.name.as_str()).collect(), writes.collect())
}

#[tokio::test]
async fn the_database_types_a_statement_and_names_its_tables() {
    let (_database, mut examiner) = examiner("typed", TABLES).await;
    let update = "update account set balance = balance - $1 where id = $2 returning balance, tags, code";
    let found = examined(&mut examiner, update, &[None, Some("text")]).await;
    assert_eq!(found.parameter_types, ["bigint", "text"]);
    let columns: Vec<_> = found.columns.iter().map(|c| (c.name.as_str(), c.data_type.as_str())).collect();
    assert_eq!(columns, [("balance", "bigint"), ("tags", "text[]"), ("code", "bpchar")]);
    assert_eq!(names(&found), (vec!["account"], vec![("account", Operation::Update)]));

    // the domain takes no null
    let insert = "insert into account (id, balance, code, mask, level) values ($1, 0, $2, $3, $4)
                  on conflict (id) do update set balance = $5";
    let found = examined(&mut examiner, insert, &[]).await;
    assert_eq!(found.parameter_types, ["text", "bpchar", "\"bit\"", "positive", "bigint"]);
    assert_eq!(found.base_types, ["text", "bpchar", "\"bit\"", "integer", "bigint"]);
    assert_eq!(names(&found).1, [("account", Operation::Insert), ("account", Operation::Update)]);
    assert!(found.expressions.iter().any(|expression| expression.contains("now()")), "{found:?}");

    let found = examined(&mut examiner, "select * from part where id = $1", &[]).await;
    assert_eq!(names(&found), (vec!["part"], vec![]));
    let found = examined(&mut examiner, "update part set v = 1", &[]).await;
    assert_eq!(names(&found), (vec!["part"], vec![("part", Operation::Update)]));
    let found = examined(&mut examiner, "select id, at from rich where id = $1", &[]).await;
    assert_eq!(names(&found).0, ["account"]);
    let several = "insert into account (id, code) values ($1, 'a'), ($2, 'b')";
    assert_eq!(left_null(&mut examiner, several).await, ["account 2", "account 4", "account 5", "account 6"]);
    let selected = "with a as (insert into account (id, balance, level, code)
                               select id, balance, level, (select max(code) from account) from account returning id)
                    insert into ledger (account) select id from rich union all select null";
    assert_eq!(left_null(&mut examiner, selected).await, ["account 4", "account 6"]);
    assert_eq!(left_null(&mut examiner, "insert into part1 (id) values ('a')").await, [""; 0], "a partition");
    assert_eq!(left_null(&mut examiner, "insert into part (id) values ('a')").await, ["part 2"]);
    let moved = "with gone as (delete from ledger where account = $1 returning account)
                 insert into part select account, 1 from gone";
    let found = examined(&mut examiner, moved, &[]).await;
    assert_eq!(names(&found), (vec!["ledger"], vec![("ledger", Operation::Delete), ("part", Operation::Insert)]));
    let merge = "merge into account a using (values ($1, $2::bigint)) s (k, b) on a.id = s.k
                 when matched then update set balance = b when not matched then insert (id, balance) values (k, b)";
    let found = examined(&mut examiner, merge, &[]).await;
    assert_eq!(found.parameter_types, ["text", "bigint"]);
    assert_eq!(names(&found).1, [("account", Operation::Merge)]);
    let found = examined(&mut examiner, "select $1::numeric as n -- a remark", &[]).await;
    assert_eq!((found.parameter_types, names(&Examined::default())), (vec!["numeric".to_owned()], (vec![], vec![])));
}

#[tokio::test]
async fn one_bad_statement_does_not_end_the_others() {
    let (database, mut examiner) = examiner("untyped", TABLES).await;
    let error = refused(&mut examiner, "update account set balanc = 1").await;
    assert_eq!((error.sqlstate.as_str(), error.position), ("42703", Some(20)));
    let error = refused(&mut examiner, "select jsonb_build_object('é', $1)").await;
    assert_eq!(error.sqlstate, "42P18");
    let error = refused(&mut examiner, "select 1; drop table account").await;
    assert_eq!(error.sqlstate, "42601");
    let error = refused(&mut examiner, "insert into rich (id, at) values ('a', now())").await;
    assert_eq!(error.sqlstate, "0A000", "found by explaining it: {error:?}");
    let found = examined(&mut examiner, "select balance from account where id = $1", &[]).await;
    assert_eq!(found.parameter_types, ["text"]);
    database.execute(&format!("drop table {}.ledger", database.schema)).await;
    examiner.close().await;
}
