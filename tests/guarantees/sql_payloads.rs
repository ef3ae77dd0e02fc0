//! A payload's fields reach the database as what they are, or not at all: what the type takes is
//! stored literally, anything else makes the record dead, with the field's name; and neighbours of
//! either in the batch stand.

mod values;

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use self::values::{Judgement, VALUES, judge};
use crate::support;
use crate::support::bank::Bank;
use crate::support::commands::{ended, of_command};
use crate::support::consumer::read_all;
use crate::support::declared::project;
use crate::support::postgres::Database;
use crate::support::producer::Record;
use crate::support::scratch::Scratch;

/// A command for each, with its column's type.
const TYPES: [(&str, &str); 15] = [
    ("smallint", "smallint"),
    ("integer", "integer"),
    ("bigint", "bigint"),
    ("numeric", "numeric"),
    ("price", "numeric(5,2)"),
    ("real", "real"),
    ("double", "double precision"),
    ("boolean", "boolean"),
    ("text", "text"),
    ("uuid", "uuid"),
    ("timestamptz", "timestamptz"),
    ("date", "date"),
    ("jsonb", "jsonb"),
    ("list", "bigint[]"),
    ("mood", "mood"),
];

const MOOD: &str = "
do $$ begin
    create type mood as enum ('happy', 'so so', 'it''s', '$1', ':amount', '\"', '\\', '1', '');
exception when duplicate_object then null;
end $$;";

/// What a payload asks for, and what must become of it.
struct Sent {
    record: Record,
    type_name: &'static str,
    payload: String,
    judgement: Judgement,
}

async fn bank(name: &str) -> (Scratch, Bank) {
    let mut tables = MOOD.to_owned();
    let mut commands = String::new();
    for (name, data_type) in TYPES {
        tables += &format!("\ncreate table if not exists put_{name} (id text primary key, v {data_type} not null);");
        let reply = if name == "text" { "reply = { v = ':v' }" } else { "" };
        commands += &format!(
            "\n[[command]]\ntype = \"put.{name}\"\n{reply}
             \n[[command.step]]\nsql = \"insert into put_{name} values (:entity_id, :v)\"\n"
        );
    }
    commands += "\n[[command]]\ntype = \"say\"\n
                 [[command.step]]\nsql = \"select 1 where :v::text is null\"\nexpect = 1
                 otherwise = { reject = \"said\", detail = \"{entity_id} said {v}, {{v}}\" }\n";
    project(name, "value", 1, &tables, &commands).await
}

/// Each value in the only field of each type; and payloads that are wrong, or odd, around it.
async fn payloads(database: &Database) -> Vec<Sent> {
    let mut sent = Vec::new();
    for (type_name, data_type) in TYPES {
        let mut good = None;
        let mut push = |payload: String, judgement: Judgement| {
            let command =
                Record::command(&format!("put.{type_name}"), &format!("{type_name}-{}", sent.len()), &json!(0));
            sent.push(Sent { record: command.value(payload.clone()), type_name, payload, judgement });
        };
        for json in VALUES.iter().map(|value| (*value).to_owned()).chain(values::long()) {
            let judgement = judge(database, data_type, &json).await;
            if matches!(judgement, Judgement::Stored(_)) {
                good.get_or_insert((json.clone(), judgement.clone()));
            }
            push(format!("{{\"v\":{json}}}"), judgement);
        }
        let (json, stored) = good.unwrap_or_else(|| panic!("no good value of {data_type}"));
        for malformed in ["{}", "{\"V\":0}", "{\"v \":0}", "{\"w\":0}", "{\"v\":null}"] {
            push(malformed.replace('0', &json), Judgement::Malformed);
        }
        push(format!("{{\"v\":{json},\"v\":{json}}}"), Judgement::Malformed);
        push(format!("{{\"v\":{json},\"w\":0,\"V\":[]}}"), stored.clone());
        push(
            format!(" {{\n\"'; drop table put_{type_name}; --\" : \"\\u0000\", \"\\u0076\" : {json}\t}} "),
            stored.clone(),
        );
        push(format!("{{\"w\":{{\"v\":\"x\"}},\"v\":{json},\"w\":1e400000}}"), stored);
    }
    sent
}

#[tokio::test]
async fn a_value_is_stored_literally_or_its_record_is_dead_and_names_the_field() {
    let _turn = support::heavy();
    let (_files, bank) = bank("payloads").await;
    let mut sent = payloads(&bank.database).await;
    // every type beside every other, the bad among the good
    fastrand::Rng::with_seed(3).shuffle(&mut sent);
    bank.send(&sent.iter().map(|sent| sent.record.clone()).collect::<Vec<_>>());
    let _worker = bank.worker();
    bank.settled().await;

    let ended = ended(&read_all(&bank.cluster, &format!("{}.outcomes", bank.topic)));
    let mut stored: BTreeMap<&str, (Vec<String>, Vec<String>)> = BTreeMap::new();
    let mut wrong = Vec::new();
    for Sent { record, type_name, payload, judgement } in &sent {
        let ended = &ended[&record.command_id()];
        let detail = ended.detail.as_deref().unwrap_or_default();
        let as_expected = match judgement {
            Judgement::Stored(text) => {
                let (ids, texts) = stored.entry(type_name).or_default();
                ids.push(String::from_utf8(record.key.clone().expect("a key")).expect("text"));
                texts.push(text.clone());
                ended.ending == "applied"
            }
            Judgement::Malformed => ended.ending == "malformed-payload" && detail.starts_with("field v: "),
            Judgement::DataError => ended.ending == "data-error" && detail.contains("(SQLSTATE 22003)"),
        };
        if !as_expected {
            wrong.push(format!("{type_name} {payload:.100}: {judgement:?}, but {} {detail}", ended.ending));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    for (type_name, data_type) in TYPES {
        let (ids, texts) = &stored[type_name];
        check_stored(&bank.database, type_name, data_type, ids, texts).await;
    }
    let dead = sent.iter().filter(|sent| !matches!(sent.judgement, Judgement::Stored(_))).count();
    assert_eq!(bank.database.count("dead_letters").await, i64::try_from(dead).expect("a count"));
    let data_errors = sent.iter().filter(|sent| sent.judgement == Judgement::DataError);
    assert!(data_errors.count() > 3, "a price may be too high");
    assert!(sent.len() > 1_500 && dead > 700, "{dead} of {} are dead", sent.len());
}

/// Each row is there once, with the value that its text means.
async fn check_stored(database: &Database, type_name: &str, data_type: &str, ids: &[String], texts: &[String]) {
    let mut connection = database.pool.acquire().await.expect("a connection");
    // as the worker's own
    sqlx::raw_sql("set timezone = 'UTC'").execute(&mut *connection).await.expect("set the time zone");
    let differ = format!(
        "select coalesce(e.id, p.id) || ': ' || coalesce(left(p.v::text, 100), 'absent') || ' for ' || left(e.text, 100)
           from unnest($1::text[], $2::text[]) as e (id, text) full join put_{type_name} p on p.id = e.id
          where p.v is distinct from e.text::{data_type}"
    );
    let differ = sqlx::query_scalar::<_, Option<String>>(AssertSqlSafe(differ)).bind(ids).bind(texts);
    let differ = differ.fetch_all(&mut *connection).await.expect("compare");
    assert!(differ.is_empty(), "{type_name}: {differ:#?}");
    // the database's own comparison may be lenient; text is compared here as well
    if type_name == "text" {
        let rows: Vec<(String, String)> =
            sqlx::query_as("select id, v from put_text").fetch_all(&mut *connection).await.expect("read");
        let rows: HashMap<String, String> = rows.into_iter().collect();
        let expected = ids.iter().cloned().zip(texts.iter().cloned()).collect();
        assert_eq!(rows, expected);
    }
}

/// Text that would be dangerous if it were ever part of a statement: as a key, as a field, in a
/// reply and in a detail.
#[tokio::test]
async fn text_is_text_wherever_it_goes() {
    let _turn = support::heavy();
    let (_files, bank) = bank("text").await;
    let texts: Vec<String> = VALUES.iter().filter_map(|json| serde_json::from_str(json).ok()).collect();
    let texts: Vec<&String> = texts.iter().filter(|text| !text.is_empty() && !text.contains('\0')).collect();
    let put: Vec<Record> = texts.iter().map(|text| Record::command("put.text", text, &json!({ "v": text }))).collect();
    let say: Vec<Record> = texts.iter().map(|text| Record::command("say", text, &json!({ "v": text }))).collect();
    bank.send(&[put.clone(), say.clone()].concat());
    let _worker = bank.worker();
    bank.settled().await;

    let outcomes = read_all(&bank.cluster, &format!("{}.outcomes", bank.topic));
    for ((text, put), say) in texts.iter().zip(&put).zip(&say) {
        let answer = of_command(&outcomes, put.command_id())[0].json();
        assert_eq!((&answer["outcome"], &answer["reply"]["v"]), (&json!("applied"), &json!(text)));
        assert_eq!(answer["entity_id"], json!(text));
        let answer = of_command(&outcomes, say.command_id())[0].json();
        assert_eq!(answer["code"], "said");
        if !text.chars().any(char::is_control) && text.len() < 400 {
            assert_eq!(answer["detail"], Value::from(format!("{text} said {text}, {{v}}")));
        }
    }
    assert!(texts.len() > 30);
    let all = i64::try_from(texts.len()).expect("a count");
    assert_eq!(bank.database.count("put_text where v = id").await, all);
    assert_eq!(bank.database.count("dead_letters").await, 0);
}
