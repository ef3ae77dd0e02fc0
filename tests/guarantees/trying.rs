//! `try`: one command in SQL, run as a worker would run it, and nothing of it kept.

use std::fs;

use serde_json::{Value, json};

use crate::support::example;
use crate::support::kafka::Cluster;
use crate::support::postgres::{Database, tables_schema};
use crate::support::scratch::{Scratch, free_port};
use crate::support::worker::{Said, WorkerOptions, stock_binary};

/// A schema in a database, tables and all, for commands that no worker has ever run.
struct Place {
    database: Database,
    options: WorkerOptions,
    scratch: Scratch,
}

impl Place {
    /// Commands of this text, and solewriter's schema without their functions. There is no Kafka.
    async fn with(name: &str, tables: &str, commands: &str) -> Self {
        let database = Database::fresh(name).await;
        let scratch = Scratch::new(name);
        let file = scratch.path().join("commands.toml");
        fs::write(&file, format!("entity = \"account\"\n{commands}")).expect("write the commands");
        let nowhere = Cluster::plain(format!("127.0.0.1:{}", free_port()));
        let options = WorkerOptions::new(&nowhere, &database, "commands").in_sql("account", &[file]);
        let mut without = options.clone();
        without.settings.remove("commands");
        let migrated = without.run_verb(&["migrate"]);
        assert_eq!(migrated.code, Some(0), "{migrated:?}");
        let own = tables_schema(&database.schema);
        database.execute(&format!("create schema {own}; set search_path = {own}; {tables} reset search_path")).await;
        Self { database, options, scratch }
    }

    /// The example of the stock, and what it takes.
    async fn of_stock(name: &str) -> Self {
        let folder = example("stock");
        let read = |file: &str| fs::read_to_string(folder.join(file)).expect("a file of the example");
        let commands = read("commands.toml");
        let commands = commands.replace("entity = \"sku\"\ntables = \"tables.sql\"\n", "");
        Self::with(name, &read("tables.sql"), &commands).await
    }

    fn said(&self, command_type: &str, key: &str, data: &str, more: &[&str]) -> Said {
        let mut arguments = vec!["try", command_type, "--key", key, "--data", data];
        arguments.extend(more);
        self.options.run_verb(&arguments)
    }

    fn tried(&self, command_type: &str, key: &str, data: &Value, more: &[&str]) -> Value {
        let said = self.said(command_type, key, &data.to_string(), &[more, &["-o", "json"]].concat());
        assert_eq!(said.code, Some(0), "{said:?}");
        serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"))
    }

    /// Functions that are made of commands.
    async fn functions(&self) -> i64 {
        let names = "(proname like 'command\\_%' or proname like 'run\\_%')";
        let schema = &self.database.schema;
        self.database.count(&format!("pg_proc where {names} and pronamespace = '{schema}'::regnamespace")).await
    }
}

#[tokio::test]
async fn what_a_command_would_do_is_shown_and_nothing_of_it_is_kept() {
    let place = Place::of_stock("tried").await;
    let id = "019aa000-0000-7000-8000-000000000001";
    let at = ["--id", id, "--time", "2026-12-01T10:00:00+01:00"];
    let expected = json!({
        "command_type": "stock.receive", "entity_type": "account", "entity_id": "sku-1", "command_id": id,
        "outcome": "applied", "code": null, "detail": null, "reply": {"available": 5}, "events": [],
        "rows": [
            {"table": "stock", "row": {"sku": "sku-1", "available": 5, "reserved": 0}},
            {"table": "stock_ledger", "row":
                {"command_id": id, "sku": "sku-1", "at": "2026-12-01T09:00:00+00:00", "change": 5}},
        ],
    });
    assert_eq!(place.tried("stock.receive", "sku-1", &json!({"quantity": 5}), &at), expected);
    assert_eq!(place.database.count("stock").await + place.database.count("stock_ledger").await, 0);
    assert_eq!((place.functions().await, place.database.count("processed_commands").await), (0, 0));

    place.database.execute("insert into stock values ('sku-1', 5), ('sku-2', 9)").await;
    let migrated = place.options.run_verb(&["migrate"]);
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    let functions = place.functions().await;
    let reserved = place.tried("stock.reserve", "sku-1", &json!({"quantity": 3}), &[]);
    assert_eq!(reserved["reply"], json!({"available": 2, "reserved": 3}));
    let event = json!([{"type": "stock.reserved", "data": {"sku": "sku-1", "quantity": 3}}]);
    assert_eq!(reserved["events"], event);
    let updated = json!({"table": "stock", "row": {"sku": "sku-1", "available": 2, "reserved": 3}});
    assert_eq!((&reserved["rows"][0], reserved["rows"].as_array().map(Vec::len)), (&updated, Some(2)));
    let shown = place.said("stock.reserve", "sku-1", r#"{"quantity":3}"#, &[]).stdout;
    for part in
        ["outcome  applied", "EVENT           DATA", "\nstock:\nsku    available  reserved\nsku-1  2          3\n"]
    {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    assert_eq!(place.database.number("select sum(available + reserved)::bigint from stock").await, Some(14));
    assert_eq!((functions > 0, place.functions().await), (true, functions));
}

#[tokio::test]
async fn what_would_be_rejected_or_dead_is_said_with_its_code_and_its_detail() {
    let place = Place::of_stock("tried_no").await;
    place.database.execute("insert into stock values ('sku-1', 2)").await;
    let ending = |key: &str, data: &str| {
        let said = place.said("stock.reserve", key, data, &["-o", "json"]);
        assert_eq!(said.code, Some(0), "{said:?}");
        let tried: Value = serde_json::from_str(&said.stdout).expect("a document");
        assert_eq!((&tried["reply"], &tried["events"], &tried["rows"]), (&Value::Null, &json!([]), &json!([])));
        let text = |key: &str| tried[key].as_str().unwrap_or_default().to_owned();
        format!("{} {}: {}", text("outcome"), text("code"), text("detail"))
    };
    assert_eq!(ending("sku-1", r#"{"quantity":3}"#), "rejected out-of-stock: ");
    assert_eq!(ending("sku-2", r#"{"quantity":3}"#), "rejected unknown-sku: ");
    let malformed = "dead malformed-payload: ";
    assert_eq!(ending("sku-1", "{}"), format!("{malformed}field quantity: missing"));
    let text = ending("sku-1", r#"{"quantity":"3"}"#);
    assert_eq!(text, format!("{malformed}field quantity: expected a whole number, found \"3\""));
    assert!(
        ending("sku-1", r#"{"quantity":0}"#).starts_with(&format!("{malformed}the payload does not fit its schema"))
    );
    assert_eq!(ending("sku-1", "[]"), format!("{malformed}the payload is not a JSON object"));
    assert!(ending("", r#"{"quantity":3}"#).starts_with("dead malformed-key: "));
    assert_eq!(place.database.number("select available from stock").await, Some(2));
}

const SEVERAL: &str = r#"
[[command]]
type = "plain"
nondeterministic = true
reply = ":asked.level"
[[command.step]]
sql = "select current_setting('transaction_isolation') as level"
expect = 1
otherwise = { reject = "never" }
into = "asked"

[[command]]
type = "strict"
nondeterministic = true
isolation = "serializable"
reply = ":asked.level"
[[command.step]]
sql = "select current_setting('transaction_isolation') as level"
expect = 1
otherwise = { reject = "never" }
into = "asked"

[[command]]
type = "clear"
[[command.step]]
sql = "delete from note where account = :entity_id"

[[command]]
type = "late"
constraints = { one_each = "taken" }
[[command.step]]
sql = "insert into note values (:entity_id, :text)"
[[command.step]]
sql = "update note set text = text || :text where account = :entity_id"

[[command]]
type = "divide"
[[command.step]]
sql = "insert into note values (:entity_id, (7 / :by::int)::text)"
"#;

#[tokio::test]
async fn a_command_is_tried_at_its_own_level_and_undone_as_it_would_be() {
    let tables = "create table note (account text, text text, constraint one_each unique (account) deferrable initially deferred);
                  create table part (account text) partition by hash (account);
                  create table part0 partition of part for values with (modulus 1, remainder 0);";
    let commands = format!(
        "{SEVERAL}\n[[command]]\ntype = \"parted\"\n[[command.step]]\nsql = \"insert into part values (:entity_id)\"\n"
    );
    let place = Place::with("tried_level", tables, &commands).await;
    assert_eq!(place.tried("plain", "a", &json!({}), &[])["reply"], "read committed");
    assert_eq!(place.tried("strict", "a", &json!({}), &[])["reply"], "serializable");
    place.database.execute("insert into note values ('a', 'x'), ('b', 'y')").await;
    let cleared = place.said("clear", "a", "{}", &[]).stdout;
    assert!(cleared.contains("\nnote:\ndeleted: 1\n"), "{cleared}");
    let late = place.tried("late", "a", &json!({"text": "t"}), &[]);
    assert_eq!((&late["outcome"], &late["code"]), (&json!("rejected"), &json!("taken")));
    let divided = place.tried("divide", "c", &json!({"by": 0}), &[]);
    assert_eq!((&divided["outcome"], &divided["code"]), (&json!("dead"), &json!("data-error")));
    assert_eq!(divided["detail"], "division by zero (SQLSTATE 22012)");
    let both = place.tried("late", "c", &json!({"text": "t"}), &[]);
    assert_eq!(both["rows"], json!([{"table": "note", "row": {"account": "c", "text": "tt"}}]));
    let parted = place.tried("parted", "a", &json!({}), &[]);
    assert_eq!(parted["rows"], json!([{"table": "part", "row": {"account": "a"}}]));
    assert_eq!((place.database.count("note").await, place.database.count("part").await), (2, 0));
}

const FAILING: &str = r#"
[[command]]
type = "one"
[[command.step]]
sql = "select text from note where text <> :text"
expect = 1
otherwise = "fail"

[[command]]
type = "two"
[[command.step]]
sql = "insert into note values (:entity_id, :text)"
[[command.step]]
sql = """
update note set text = text || :text
where account = 'nobody'"""
expect = 1
otherwise = [
    { when = "select 1 where 7 / length(:text) > 1", reject = "short" },
    "fail",
]
[[command.emit]]
type = "done"
data = 1
"#;

#[tokio::test]
async fn what_cannot_happen_and_what_raises_is_dead_and_says_its_step() {
    let tables = "create table note (account text, text text);";
    let place = Place::with("tried_steps", tables, FAILING).await;
    place.database.execute("insert into note values ('a', 'x'), ('b', 'y'), ('c', 'z')").await;
    let ended = |command: &str, text: &str| {
        let said = place.tried(command, "a", &json!({ "text": text }), &[]);
        [&said["code"], &said["detail"]].map(|said| said.as_str().unwrap_or_default().to_owned())
    };
    let none = "step 1: 0 rows, and 1 row is expected (SQLSTATE SW010)";
    place.database.execute("delete from note where account <> 'a'").await;
    assert_eq!(ended("one", "x"), ["handler-failed", none]);
    place.database.execute("insert into note values ('b', 'y'), ('c', 'z'), ('d', 'z')").await;
    let many = "step 1: at least 2 rows, and 1 row is expected (SQLSTATE SW010)";
    assert_eq!(ended("one", "x"), ["handler-failed", many]);
    assert_eq!(ended("two", "abc"), ["short", ""]);
    let none = "step 2: 0 rows, and 1 row is expected (SQLSTATE SW010)";
    assert_eq!(ended("two", "abcdefgh"), ["handler-failed", none]);
    assert_eq!(ended("two", ""), ["data-error", "step 2: division by zero (SQLSTATE 22012)"]);
}

#[tokio::test]
async fn what_cannot_be_tried_says_what_to_type_instead() {
    let place = Place::of_stock("tried_cure").await;
    let unknown = place.said("stock.recieve", "sku-1", "{}", &[]);
    let declared = "error: no command stock.recieve is declared; did you mean stock.receive? \
                    (declared: stock.receive, stock.reserve, stock.release)\n";
    assert_eq!((unknown.code, unknown.stderr.as_str()), (Some(2), declared));
    let mut empty = place.options.clone();
    empty.schema = format!("{}_none", place.database.schema);
    let asked = ["try", "stock.receive", "--key", "a", "--data", "{}"];
    let missing = empty.run_verb(&asked);
    assert!(missing.code == Some(2) && missing.stderr.contains("type: solewriter migrate"), "{missing:?}");
    let nowhere = format!("postgres://127.0.0.1:{}/none", free_port());
    let unreached = place.options.clone().database_url(nowhere).run_verb(&asked);
    assert_eq!(unreached.code, Some(4), "{unreached:?}");
    let file = place.scratch.path().join("bad.toml");
    fs::write(
        &file,
        "entity = \"account\"\n[[command]]\ntype = \"bad\"\n[[command.step]]\nsql = \"select 1 from nothing\"\n",
    )
    .expect("write a file");
    let mistaken = WorkerOptions::new(&place.options.cluster, &place.database, "commands").in_sql("account", &[file]);
    assert_eq!(mistaken.program, stock_binary());
    let refused = mistaken.run_verb(&["try", "bad", "--key", "a", "--data", "{}"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("bad.toml:5:22: relation \"nothing\""), "{refused:?}");
}

#[tokio::test]
async fn a_field_of_a_domain_takes_the_json_of_the_type_below_it_and_keeps_to_its_check() {
    let tables = "create domain positive as bigint check (value > 0);
                  create domain small as positive check (value < 100);
                  create table paid (account text, amount small, parts positive[]);";
    let pay = "[[command]]\ntype = \"pay\"\nreply = \":amount\"\n[[command.step]]\n\
               sql = \"insert into paid values (:entity_id, :amount, :parts)\"\n";
    let place = Place::with("tried_domain", tables, pay).await;
    let pay = |amount: Value, parts: Value| place.tried("pay", "a", &json!({"amount": amount, "parts": parts}), &[]);
    let paid = pay(json!(5), json!([2, 3]));
    assert_eq!(place.options.run_verb(&["migrate"]).code, Some(0), "a function may use types of the tables' schema");
    assert_eq!((&paid["outcome"], &paid["reply"]), (&json!("applied"), &json!(5)), "{paid}");
    assert_eq!(paid["rows"][0]["row"], json!({"account": "a", "amount": 5, "parts": [2, 3]}));
    let whys = [
        (json!("5"), json!([]), "field amount: expected a whole number, found \"5\""),
        (json!(5), json!(["2"]), "field parts: element 1: expected a whole number, found \"2\""),
        (json!(0), json!([]), "field amount: value for domain small violates check constraint \"positive_check\""),
        (json!(100), json!([]), "field amount: value for domain small violates check constraint \"small_check\""),
        (json!(5), json!([0]), "field parts: value for domain positive violates check constraint \"positive_check\""),
    ];
    for (amount, parts, why) in whys {
        let dead = pay(amount, parts);
        let said = (&dead["outcome"], &dead["code"], &dead["detail"]);
        assert_eq!(said, (&json!("dead"), &json!("malformed-payload"), &json!(why)));
    }
}
