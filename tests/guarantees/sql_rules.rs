//! What the database says of commands in SQL before any of them runs, and what `check` makes of it.

mod examiner;

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::bank::Bank;
use crate::support::declared;
use crate::support::postgres::tables_schema;
use crate::support::producer::Record;
use crate::support::scratch::Scratch;
use crate::support::worker::{Said, WorkerOptions};

const TABLES: &str = "
    create table account (id text primary key, balance bigint not null check (balance >= 0), note text);
    create table numbered (n bigint generated always as identity, account text);
    create table dated (account text, at timestamptz not null default now());
    create table watched (account text);
    create function watch() returns trigger language plpgsql as 'begin return new; end';
    create trigger watcher before insert on watched for each row execute function watch();
    create table ledger (account text references account deferrable initially deferred, amount numeric);
    create table paid (amount numeric);
    create view lately as select id, clock_timestamp() as at from account;
    create function untouched() returns int language sql immutable as 'select 1';
    create sequence numbers;";

/// A declaration with one mistake: what follows `type`, the piece of it under which the caret
/// stands (the type itself, if it is empty), and parts of the problem and the cure.
struct Bad(&'static str, &'static str, &'static str, &'static str, &'static str);

const BAD: [Bad; 29] = [
    Bad(
        "misspelt-column",
        STEP_BALANC,
        "balanc = 0",
        "column \"balanc\" of relation \"account\" does not exist",
        "did you mean balance?",
    ),
    Bad(
        "misspelt-table",
        "[[command.step]]\nsql = \"select 1 from acount\"",
        "acount",
        "relation \"acount\" does not exist",
        "did you mean account?",
    ),
    Bad(
        "misspelt-function",
        "[[command.step]]\nsql = \"select untouchd()\"",
        "untouchd",
        "function untouchd() does not exist",
        "did you mean untouched?",
    ),
    Bad(
        "no-sql",
        "[[command.step]]\nsql = \"select from where 1\"",
        "where 1",
        "syntax error",
        "correct the statement",
    ),
    Bad(
        "unknown-parameter",
        "[[command.step]]\nsql = \"select balance from account where id = :entity_id\"\nexpect = 1\notherwise = { reject = \"none\" }\ninto = \"old\"\n[[command.step]]\nsql = \"update account set balance = :old.balanc where id = :entity_id\"",
        ":old.balanc",
        "row old has no column balanc",
        "did you mean :old.balance?",
    ),
    Bad(
        "unknown-reply",
        "reply = \":old.balanc\"\n[[command.step]]\nsql = \"select balance from account where id = :entity_id\"\nexpect = 1\notherwise = { reject = \"none\" }\ninto = \"old\"",
        ":old.balanc\"",
        "row old has no column balanc",
        "did you mean :old.balance?",
    ),
    Bad(
        "untyped",
        "[[command.step]]\nsql = \"select jsonb_build_object('note', :note)\"",
        ":note",
        "the type of :note cannot be told",
        "write the type, such as :note::text",
    ),
    Bad(
        "two-types",
        "[[command.step]]\nsql = \"update account set balance = balance + :amount\"\n[[command.step]]\nsql = \"insert into paid values (:amount)\"",
        ":amount)",
        ":amount is bigint in line",
        "write :amount::numeric in both",
    ),
    Bad(
        "two-types-in-one",
        "[[command.step]]\nsql = \"insert into account (id, balance) select :entity_id, :initial where :initial > 0\"",
        ":initial where",
        ":initial is integer and bigint in one statement",
        "such as :initial::bigint",
    ),
    Bad(
        "left-out",
        "[[command.step]]\nsql = \"insert into account (id) values (:entity_id) on conflict do nothing\"",
        "insert",
        "column balance of account takes no null, and this insert gives it no value",
        "insert balance too, or give the column a default",
    ),
    Bad(
        "left-out-of-several",
        "[[command.step]]\nsql = \"insert into account (id, note) values (:entity_id, 'a'), (:entity_id || 'b', 'b')\"",
        "insert",
        "column balance of account takes no null",
        "insert balance too",
    ),
    Bad(
        "no-row",
        "[[command.step]]\nsql = \"update account set balance = 0\"\nexpect = 1\notherwise = { reject = \"no\" }\ninto = \"row\"\n[[command.step]]\nsql = \"select :row.id::text\"",
        "update",
        "nothing is returned for row row",
        "add returning",
    ),
    Bad(
        "clock",
        "[[command.step]]\nsql = \"update account set note = now()::text\"",
        "now",
        "now() answers differently",
        "write :command_time, or say nondeterministic = true",
    ),
    Bad(
        "clock-word",
        "[[command.step]]\nsql = \"update account set note = 'now' || 'now'::timestamptz\"",
        "'now'::",
        "'now', read as a time, answers differently",
        "write :command_time, or say nondeterministic = true",
    ),
    Bad(
        "typed-word",
        "[[command.step]]\nsql = \"select date 'yesterday' as day\"",
        "'yesterday'",
        "'yesterday', read as a time, answers differently",
        "write :command_time",
    ),
    Bad(
        "age",
        "[[command.step]]\nsql = \"select age(at) as old from dated\"",
        "age(at)",
        "age() of one time, which counts from today, answers differently",
        "write age(:command_time, …)",
    ),
    Bad(
        "keyword",
        "[[command.step]]\nsql = \"select current_user\"",
        "current_user",
        "current_user answers differently",
        "nondeterministic = true",
    ),
    Bad(
        "random",
        "[[command.step]]\nsql = \"update account set balance = random() * 100\"",
        "random()",
        "random() answers differently",
        "nondeterministic = true",
    ),
    Bad(
        "uuid",
        "[[command.step]]\nsql = \"select gen_random_uuid()\"",
        "gen_random_uuid",
        "gen_random_uuid() answers differently",
        ":uuid1",
    ),
    Bad(
        "nextval",
        "[[command.step]]\nsql = \"select nextval('numbers')\"",
        "nextval(",
        "nextval() answers differently",
        ":uuid1",
    ),
    Bad(
        "identity",
        "[[command.step]]\nsql = \"insert into numbered (account) values (:entity_id)\"",
        "insert",
        "column n of numbered is an identity",
        "nondeterministic = true",
    ),
    Bad(
        "default",
        "[[command.step]]\nsql = \"insert into dated (account) values (:entity_id)\"",
        "insert",
        "column at of dated defaults to now()",
        "nondeterministic = true",
    ),
    Bad(
        "view",
        "[[command.step]]\nsql = \"select at from lately\"",
        "select",
        "clock_timestamp() is called, by way of a view",
        "nondeterministic = true",
    ),
    Bad(
        "trigger",
        "[[command.step]]\nsql = \"insert into watched values (:entity_id)\"",
        "insert",
        "trigger watcher on watched",
        "nondeterministic = true",
    ),
    Bad(
        "schema",
        "[[command.step]]\nsql = \"select 1 from SCHEMA.account\"",
        "SCHEMA",
        "SCHEMA.account names a schema",
        "write account alone",
    ),
    Bad(
        "constraint",
        "constraints = { account_balanc_check = \"broke\" }\n[[command.step]]\nsql = \"update account set balance = 0\"",
        "account_balanc_check",
        "has a constraint account_balanc_check",
        "did you mean account_balance_check?",
    ),
    Bad(
        "lax",
        "[[command.step]]\nsql = \"delete from ledger where account = :entity_id\"",
        "",
        "lax writes ledger and is not serializable: strict",
        "add isolation = \"serializable\" to lax",
    ),
    Bad(
        "mixed",
        "[[command.step]]\nsql = \"insert into ledger values (:entity_id, 1)\"",
        "",
        "mixed writes ledger and is not serializable: strict",
        "to mixed",
    ),
    Bad(
        "denied",
        "[[command.step]]\nsql = \"select 1 from pg_authid\"",
        "select",
        "permission denied for table pg_authid",
        "grant",
    ),
];

const STEP_BALANC: &str = "[[command.step]]\nsql = \"update account set balanc = 0\"";

const GOOD: &str = r#"
entity = "account"

[[command]]
type = "strict"
isolation = "serializable"
[[command.step]]
sql = "select count(*) as entries from ledger where account = :entity_id and amount > :least"

[[command]]
type = "deliberate"
nondeterministic = true
reply = { id = ":made.n", note = ":note" }
[[command.step]]
sql = "insert into numbered (account) values (:entity_id) returning n"
expect = 1
otherwise = { reject = "never" }
into = "made"
[[command.step]]
sql = "insert into watched select account.id from account where account.id = :entity_id"
"#;

async fn bank(name: &str) -> Bank {
    let bank = Bank::open(name, 1).await;
    let tables = tables_schema(&bank.database.schema);
    bank.database
        .execute(&format!("create schema {tables}; set search_path = {tables}; {TABLES} reset search_path"))
        .await;
    // not a superuser, who may do anything
    let role = format!("{}_role", bank.database.schema);
    let schema = &bank.database.schema;
    bank.database
        .execute(&format!(
            "create role {role} login; grant all on schema {schema}, {tables} to {role};
             grant all on all tables in schema {schema}, {tables} to {role};
             grant all on all sequences in schema {schema}, {tables} to {role}"
        ))
        .await;
    bank
}

/// The bank's options for the stock binary, as a role of little power, with these files.
fn declared(bank: &Bank, files: &[PathBuf]) -> WorkerOptions {
    let url = bank.database.url_of(&format!("{}_role", bank.database.schema));
    bank.options.clone().in_sql("account", files).database_url(url)
}

fn checks(said: &Said) -> Vec<Value> {
    let report: Value = serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    report["checks"].as_array().expect("a list").clone()
}

#[tokio::test]
async fn every_mistake_is_shown_at_its_place_and_all_at_once() {
    let bank = bank("rules").await;
    let scratch = Scratch::new("rules");
    let mut files = vec![scratch.path().join("good.toml")];
    fs::write(&files[0], GOOD).expect("write a file");
    for Bad(name, text, ..) in &BAD {
        let file = scratch.path().join(format!("{name}.toml"));
        let text = format!("entity = \"account\"\n[[command]]\ntype = \"{name}\"\n{text}\n");
        fs::write(&file, text.replace("SCHEMA", &tables_schema(&bank.database.schema))).expect("write a file");
        files.push(file);
    }
    let options = declared(&bank, &files);
    let said = options.run_verb(&["check", "-o", "json"]);
    let checks = checks(&said);
    let failed: Vec<_> = checks.iter().filter(|check| check["name"] == "commands").collect();
    let mut unseen = Vec::new();
    for Bad(name, _, under, problem, cure) in &BAD {
        let [under, problem] =
            [under, problem].map(|text| text.replace("SCHEMA", &tables_schema(&bank.database.schema)));
        let file = scratch.path().join(format!("{name}.toml"));
        let text = fs::read_to_string(&file).expect("read a file");
        let under = if under.is_empty() { format!("{name}\"") } else { under };
        let at = text.find(&under).unwrap_or_else(|| panic!("{under:?} in {text}"));
        let line_start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let place = format!("{}:{}:{}: ", file.display(), text[..at].matches('\n').count() + 1, at - line_start + 1);
        let of_file: Vec<_> = failed
            .iter()
            .filter(|check| {
                check["detail"].as_str().is_some_and(|detail| detail.starts_with(&file.display().to_string()))
            })
            .collect();
        let told = |check: &Value| {
            let [detail, cured] = ["detail", "cure"].map(|key| check[key].as_str().unwrap_or_default());
            detail.starts_with(&place) && detail.contains(&problem) && cured.contains(cure)
        };
        if of_file.len() != 1 || !told(of_file[0]) {
            unseen.push(format!("{name}: expected one at {place}{problem} ({cure}), found {of_file:#?}"));
        }
    }
    assert!(unseen.is_empty(), "{}", unseen.join("\n"));
    assert_eq!((said.code, failed.len()), (Some(3), BAD.len()));
    let found = |name: &str| checks.iter().find(|check| check["name"] == name).map(|check| &check["detail"]);
    let strict = "1 step, fields least numeric; reads ledger, writes nothing";
    assert_eq!(found("command strict"), Some(&strict.into()));
    let deliberate = "2 steps, fields note json; reads account, writes numbered, watched";
    assert_eq!(found("command deliberate"), Some(&deliberate.into()));
    let deferrable = "checked at once: ledger_account_fkey of ledger";
    assert!(
        found("deferrable constraints")
            .is_some_and(|detail| detail.as_str().is_some_and(|d| d.starts_with(deferrable)))
    );
    assert_eq!(found("command lax"), None);
    let shown = options.run_verb(&["check"]).stdout;
    assert!(shown.contains("\n  sql = \"select current_user\"\n                ^\ncure: "), "{shown}");
}

/// What a project that is being written goes through: each time one line says what to do.
#[tokio::test]
async fn a_script_that_was_not_run_or_cannot_be_run_is_told_once_with_its_cure() {
    let product = "create table if not exists product (id text primary key);\n";
    let add = "[[command]]\ntype = \"add\"\n[[command.step]]\nsql = \"insert into product values (:entity_id)\"\n";
    let drop = add.replace("add", "drop").replace("insert into product values (:entity_id)", "delete from product");
    let (scratch, options, database) =
        declared::declared("scripts", "account", 1, product, &format!("{add}{drop}")).await;
    let options = options.in_sql_of("account");
    let write = |script: &str, commands: &str| {
        fs::write(scratch.path().join("tables.sql"), script).expect("write the script");
        let commands = format!("entity = \"account\"\ntables = \"tables.sql\"\n{add}{commands}");
        fs::write(scratch.path().join("commands.toml"), commands).expect("write the commands");
    };
    let failed = || {
        let checks = checks(&options.run_verb(&["check", "-o", "json"]));
        let of_sql = ["tables", "commands", "functions of commands in SQL"].map(Value::from);
        let failed = checks.iter().filter(|check| check["status"] == "failed" && of_sql.contains(&check["name"]));
        let text = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
        failed.map(|check| ["name", "detail", "cure"].map(|key| text(check, key))).collect::<Vec<_>>()
    };
    let own = tables_schema(&database.schema);
    let migrate = || options.run_verb(&["migrate"]);
    let script = scratch.path().join("tables.sql").display().to_string();
    let not_run = |detail: &str| {
        vec![["tables".into(), format!("{detail}: {script} has not been run"), "type: solewriter migrate".into()]]
    };

    assert_eq!(failed(), not_run(&format!("there is no schema {own}")));
    let migrated = migrate().stdout;
    assert!(migrated.contains(&format!("made schema {own}\n")), "{migrated}");
    assert!(migrated.contains(&format!("\nran {script}\nmade function ")), "{migrated}");
    assert_eq!(failed(), Vec::<[String; 3]>::new());

    let count = "[[command]]\ntype = \"count\"\n[[command.step]]\nsql = \"insert into counted values (:n)\"\n";
    write(
        &format!("{product}create table if not exists counted (n int);"),
        &format!("{count}{}", count.replace("\"count\"", "\"again\"")),
    );
    assert_eq!(failed(), not_run("there is no table counted"));

    write(
        &product.replace("key", "key, note text"),
        "[[command]]\ntype = \"note\"\n[[command.step]]\nsql = \"update product set note = :note\"\n",
    );
    let refused = migrate();
    let cure = format!("if it is new, add `alter table product add column if not exists note …;` to {script}: ");
    assert!(refused.code == Some(2) && refused.stderr.contains(&cure), "{refused:?}");

    write(&format!("{product}create tabel shelf ();\n"), "");
    // beside the functions of what the file declares by now
    let told = failed().into_iter().find(|[name, ..]| name == "commands").expect("a mistake");
    let problem = format!("{script}:2:8: syntax error at or near \"tabel\"");
    assert_eq!((&told[1], told[2].as_str()), (&problem, "correct the statement"));
    let refused = migrate();
    let shown = format!("error: {problem}\n  create tabel shelf ();\n         ^\ncure: correct the statement");
    assert!(refused.code == Some(2) && refused.stderr.contains(&shown), "{refused:?}");
    write("create table product ();\n", "");
    assert!(migrate().stderr.contains("\ncure: write `create table if not exists`: "));
}

#[tokio::test]
async fn what_is_hardly_meant_is_a_warning_and_stops_nobody() {
    let bank = bank("doubtful").await;
    let scratch = Scratch::new("doubtful");
    let file = scratch.path().join("account.toml");
    let step = "[[command.step]]\nsql = \"update account set balance = balance + :quantity where id = :entity_id \
                returning balance\"\nexpect = 1\notherwise = { reject = \"none\" }\ninto = \"account\"\n";
    let reply = "reply = { now = \":account.balance\", then = \"account.balance\", what = \"account.opened\" }";
    let emit = "[[command.emit]]\ntype = \"added\"\ndata = { quantity = \":quanttiy\" }\n";
    let text = format!("entity = \"account\"\n[[command]]\ntype = \"add\"\n{reply}\n{step}{emit}");
    fs::write(&file, text).expect("write a file");
    let options = declared(&bank, std::slice::from_ref(&file));
    let checks = checks(&options.run_verb(&["check", "-o", "json"]));
    let said: Vec<_> = checks.iter().filter(|check| check["name"] == "commands").collect();
    let expected = [
        "4:45: \"account.balance\" is a text here, and :account.balance a value",
        "12:22: :quantity and :quanttiy are two fields of the payload, and their names nearly one",
    ];
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (said, expected) in said.iter().zip(expected) {
        assert_eq!(
            (&said["status"], &said["detail"]),
            (&"warning".into(), &format!("{}:{expected}", file.display()).into())
        );
    }
    assert_eq!(options.run_verb(&["migrate"]).code, Some(0));
}

#[tokio::test]
async fn commands_in_sql_for_an_entity_in_rust_are_refused_and_writes_are_not() {
    let bank = bank("owners").await;
    let scratch = Scratch::new("owners");
    let file = scratch.path().join("account.toml");
    let write = "[[write]]\nname = \"note\"\nsql = \"update account set note = :note where id = :entity_id\"\n";
    let command = format!("[[command]]\ntype = \"lock\"\n{STEP_BALANC}");
    fs::write(&file, format!("entity = \"account\"\n{write}{}", command.replace("balanc", "balance"))).expect("write");
    let in_rust =
        WorkerOptions { program: bank.options.program.clone(), ..declared(&bank, std::slice::from_ref(&file)) };
    let failed = |options: &WorkerOptions| {
        let checks = checks(&options.run_verb(&["check", "-o", "json"]));
        let failed = checks.into_iter().filter(|check| check["name"] == "commands");
        failed.map(|check| check["detail"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let at = |line: u32, text: &str| vec![format!("{}:{line}:9: {text}", file.display())];
    assert_eq!(failed(&in_rust), at(6, "lock is declared in SQL, and entity account has handlers in Rust"));
    let stock = declared(&bank, std::slice::from_ref(&file));
    assert_eq!(failed(&stock), at(3, "nobody can name write note: entity account has no handlers in Rust"));
}

#[tokio::test]
async fn what_a_file_gets_wrong_hides_no_mistake_that_the_database_finds() {
    let bank = bank("both").await;
    let scratch = Scratch::new("both");
    let write = |name: &str, text: &str| {
        let file = scratch.path().join(name);
        fs::write(&file, text).expect("write a file");
        file
    };
    let good = "[[command]]\ntype = \"good\"\n[[command.step]]\nsql = \"select 1 from account\"\n";
    let typo = "[[command]]\ntype = \"typo\"\nrepyl = 1\n[[command.step]]\nsql = \"select 1\"\n";
    let misspelt = format!("[[command]]\ntype = \"misspelt\"\n{STEP_BALANC}\n");
    let files = [
        write("mixed.toml", &format!("entity = \"account\"\n{good}{typo}{misspelt}")),
        write("torn.toml", "entity = \"account\"\n[[command]\n"),
        write("strange.toml", &format!("entity = \"acount\"\n{misspelt}")),
        write("again.toml", &format!("entity = \"account\"\n{good}")),
    ];
    let options = declared(&bank, &files);
    let checks = checks(&options.run_verb(&["check", "-o", "json"]));
    let failed = checks.iter().filter(|check| check["name"] == "commands");
    let failed: Vec<_> = failed.map(|check| check["detail"].as_str().unwrap_or_default()).collect();
    let column = "column \"balanc\" of relation \"account\" does not exist";
    let expected = [
        (0, "8:1: unknown key repyl in command".to_owned()),
        (1, "2:11: ".to_owned()),
        (2, "1:11: no topic carries the entity acount".to_owned()),
        (3, "3:9: the command type good is declared twice for account".to_owned()),
        (0, format!("14:27: {column}")),
        (2, format!("5:27: {column}")),
    ];
    for (file, problem) in &expected {
        let line = format!("{}:{problem}", files[*file].display());
        assert!(failed.iter().any(|detail| detail.starts_with(&line)), "{line}\n{failed:#?}");
    }
    assert_eq!(failed.len(), expected.len(), "{failed:#?}");
    assert_eq!(checks.iter().filter(|check| check["name"] == "command good").count(), 1);
    assert!(!checks.iter().any(|check| check["name"] == "functions of commands in SQL"));
    for verb in ["migrate", "run"] {
        let refused = options.run_verb(&[verb]);
        assert!(refused.code == Some(2) && refused.stderr.contains("unknown key repyl in command"), "{refused:?}");
    }
}

#[tokio::test]
async fn the_last_records_of_a_topic_are_judged_by_the_commands_in_sql() {
    let bank = Bank::in_sql("stock", "commands.toml", "sku", 1).await;
    let sample = |bank: &Bank| {
        let checks = checks(&bank.options.run_verb(&["check", "-o", "json"]));
        let name = format!("commands on {}", bank.topic);
        let check = checks.into_iter().find(|check| check["name"] == *name).expect("a sample");
        check["detail"].as_str().unwrap_or_default().to_owned()
    };
    let receive = |data: Value| Record::command("stock.receive", "sku-1", &data);
    bank.send(&[receive(json!({"quantity": 5}))]);
    assert_eq!(sample(&bank), "the last 1: on their partitions, with UUIDv7 ids");
    bank.send(&[receive(json!({"quantity": "5"})), Record::command("stock.recieve", "sku-1", &json!({}))]);
    assert_eq!(sample(&bank), "of the last 3, dead letters: 1 malformed-payload, 1 unknown-type");
}
