//! What the steps of a command in SQL leave behind: all of an applied command, nothing of a
//! rejected one, whatever the statements look like.

use serde_json::{Value, json};

use crate::support;
use crate::support::bank::Bank;
use crate::support::commands::{endings, of_command};
use crate::support::consumer;
use crate::support::declared::project;
use crate::support::producer::Record;

const TABLES: &str = "
    create table if not exists purse (id text primary key, coins bigint not null, found boolean not null);
    insert into purse select n, 100, n::int % 2 = 0 from unnest(array['1', '2', '3']) as n on conflict do nothing;
    create table if not exists moves (id uuid primary key, purse text not null, coins bigint not null);
    create table if not exists tickets (month int, seat int, constraint one_seat unique (month, seat))
        partition by list (month);
    create table if not exists tickets_1 partition of tickets for values in (1);
    create table if not exists tickets_2 partition of tickets for values in (2);";

const COMMANDS: &str = r#"
[[command]]
type = "thing.give"
[[command.step]]
sql = '''
with given as (update purse set coins = coins - :coins where id = :entity_id returning id)
update purse set coins = purse.coins + :coins from given where purse.id = :to'''
expect = 1
otherwise = { reject = "no-such-purse" }

[[command]]
type = "thing.look"
[[command.step]]
sql = "select from purse where id = :entity_id and found -- a column called like a variable"
expect = 1
otherwise = { reject = "not-found" }

[[command]]
type = "thing.take"
reply = { left = ":purse.coins" }
[[command.step]]
sql = "update purse set coins = coins - :coins where id = :entity_id and coins >= :coins returning coins"
expect = 1
into = "purse"
otherwise = [
    { when = "select coins from purse where id = :entity_id", into = "purse", reject = "too-few", detail = "{purse.coins} coins" },
    { reject = "no-such-purse" },
]

[[command]]
type = "thing.move"
[[command.step]]
sql = "insert into moves (id, purse, coins) values (:uuid1, :entity_id, :coins)"
expect = 1
otherwise = { reject = "not-moved" }
[[command.step]]
sql = "update purse set coins = coins - :coins where id = :entity_id and coins >= :coins"
expect = 1
otherwise = { reject = "too-few", detail = "not {coins} coins" }

[[command]]
type = "thing.sit"
constraints = { one_seat = "taken" }
[[command.step]]
sql = "insert into tickets (month, seat) values (:month, :seat)"
"#;

fn command(kind: &str, key: &str, data: &Value) -> Record {
    Record::command(&format!("thing.{kind}"), key, data)
}

fn outcome(bank: &Bank, record: &Record) -> Value {
    let outcomes = consumer::read_all(&bank.cluster, &format!("{}.outcomes", bank.topic));
    of_command(&outcomes, record.command_id())[0].json()
}

fn ending(bank: &Bank, record: &Record) -> Vec<String> {
    endings(&consumer::read_all(&bank.cluster, &format!("{}.outcomes", bank.topic)), record.command_id())
}

/// Sent before there is a worker, so that they are neighbours: the first that rejects after a write
/// makes its whole batch run again.
#[tokio::test]
async fn a_rejected_command_leaves_nothing_of_what_its_steps_have_written_and_its_neighbours_stand() {
    let _turn = support::heavy();
    let (_files, bank) = project("steps", "thing", 1, TABLES, COMMANDS).await;
    let given = command("give", "1", &json!({ "coins": 30, "to": "2" }));
    let lost = command("give", "1", &json!({ "coins": 30, "to": "nobody" }));
    let moved = command("move", "2", &json!({ "coins": 5 }));
    let too_far = command("move", "2", &json!({ "coins": 5_000 }));
    let taken = command("take", "3", &json!({ "coins": 40 }));
    let too_many = command("take", "3", &json!({ "coins": 70 }));
    let from_nobody = command("take", "4", &json!({ "coins": 1 }));
    bank.send(&[&given, &lost, &moved, &too_far, &taken, &too_many, &from_nobody].map(Clone::clone));
    let _worker = bank.worker();
    bank.settled().await;
    for applied in [&given, &moved, &taken] {
        assert_eq!(ending(&bank, applied), ["applied"]);
    }
    assert_eq!(ending(&bank, &lost), ["no-such-purse"]);
    assert_eq!(ending(&bank, &from_nobody), ["no-such-purse"]);
    let refused = outcome(&bank, &too_far);
    assert_eq!((&refused["code"], &refused["detail"]), (&json!("too-few"), &json!("not 5000 coins")));
    let refused = outcome(&bank, &too_many);
    assert_eq!((&refused["code"], &refused["detail"]), (&json!("too-few"), &json!("60 coins")));
    assert_eq!(outcome(&bank, &taken)["reply"], json!({ "left": 60 }));
    let purses = bank.database.rows("select id, coins from purse order by id").await;
    assert_eq!(purses.iter().map(|row| row["coins"].as_i64()).collect::<Vec<_>>(), [Some(70), Some(125), Some(60)]);
    assert_eq!(bank.database.count("moves").await, 1);
    let leftovers = "processed_commands where outcome = 'rejected' and (reply is not null or events is not null)";
    assert_eq!(bank.database.count(leftovers).await, 0);
    assert_eq!(bank.database.count("entities where version = 1").await, 3);
}

#[tokio::test]
async fn a_step_may_return_rows_without_columns_and_name_columns_as_it_likes() {
    let _turn = support::heavy();
    let (_files, bank) = project("columns", "thing", 1, TABLES, COMMANDS).await;
    let _worker = bank.worker();
    let (there, hidden) = (command("look", "2", &json!({})), command("look", "1", &json!({})));
    bank.send(&[there.clone(), hidden.clone()]);
    bank.settled().await;
    assert_eq!((ending(&bank, &there), ending(&bank, &hidden)), (vec!["applied".into()], vec!["not-found".into()]));
}

/// The violated index is that of a partition, whose name changes with the month.
#[tokio::test]
async fn a_constraint_of_a_partitioned_table_has_one_name() {
    let _turn = support::heavy();
    let (_files, bank) = project("partitioned", "thing", 1, TABLES, COMMANDS).await;
    let _worker = bank.worker();
    let sits = [1, 2, 2].map(|month| command("sit", "1", &json!({ "month": month, "seat": 7 })));
    bank.send(&sits);
    bank.settled().await;
    assert_eq!(sits.each_ref().map(|sit| ending(&bank, sit).remove(0)), ["applied", "applied", "taken"]);
}
