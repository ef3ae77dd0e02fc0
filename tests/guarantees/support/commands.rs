//! Commands for the bank, and what came of them.

use std::collections::HashMap;
use std::time::SystemTime;

use serde_json::json;
use uuid::{NoContext, Timestamp, Uuid};

use super::consumer::Read;
use super::producer::Record;

pub const DAY_MS: i64 = 24 * 3_600_000;

pub fn open(key: &str, initial: i64) -> Record {
    Record::command("account.open", key, &json!({ "initial": initial }))
}

pub fn deposit(key: &str, amount: i64) -> Record {
    Record::command("account.deposit", key, &json!({ "amount": amount }))
}

pub fn withdraw(key: &str, amount: i64) -> Record {
    Record::command("account.withdraw", key, &json!({ "amount": amount }))
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.expect("after 1970").as_millis()).expect("milliseconds")
}

/// A UUIDv7 of this time, in milliseconds since 1970.
pub fn v7_at(time_ms: i64) -> Uuid {
    let (seconds, rest_ms) = (time_ms.div_euclid(1000), time_ms.rem_euclid(1000));
    let seconds = u64::try_from(seconds).expect("a time after 1970");
    let nanos = u32::try_from(rest_ms).expect("less than a second") * 1_000_000;
    Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, nanos))
}

/// An id of version 4 that sorts into the day of a UUIDv7: the same leading bits.
pub fn v4_beside(id: Uuid) -> Uuid {
    let mut bytes = *id.as_bytes();
    bytes[6] = 0x40 | (bytes[6] & 0x0f);
    bytes[15] ^= 1;
    Uuid::from_bytes(bytes)
}

impl Record {
    /// Its command id; panics if it has none that can be read.
    pub fn command_id(&self) -> Uuid {
        let id = self.headers.iter().find(|(name, _)| name == "ce_id");
        let id = id.and_then(|(_, value)| value.as_deref()).expect("ce_id");
        Uuid::try_parse_ascii(id).expect("a command id")
    }

    /// The same command in CloudEvents' structured mode.
    pub fn structured(&self) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        let id = self.command_id();
        let command_type = self.headers.iter().find(|(name, _)| name == "ce_type");
        let command_type = command_type.and_then(|(_, value)| value.as_deref()).map(text);
        let data = text(self.value.as_deref().expect("data"));
        let value = format!(
            r#"{{"specversion":"1.0","source":"/elsewhere","id":"{id}","type":"{}", "data" : {data} }}"#,
            command_type.expect("ce_type")
        );
        Self { value: Some(value.into_bytes()), headers: Vec::new(), ..self.clone() }
            .header("content-type", "application/cloudevents+json")
    }

    /// The same record with other bytes in its value.
    pub fn value(mut self, value: impl Into<Vec<u8>>) -> Self {
        self.value = Some(value.into());
        self
    }

    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }
}

/// What is said of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// `applied`, or the code.
    pub ending: String,
    pub detail: Option<String>,
    /// How many copies of the outcome are on the topic; all are the same, byte for byte.
    pub copies: usize,
}

/// The ends of all commands that have one. Panics where copies differ, or where one command has two
/// ends.
pub fn ended(outcomes: &[Read]) -> HashMap<Uuid, Ended> {
    let mut first: HashMap<Uuid, (&Read, Ended)> = HashMap::new();
    for read in outcomes {
        let value = read.json();
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let id = text("command_id").and_then(|id| id.parse().ok()).expect("an outcome names its command");
        let ending = text("code").or_else(|| text("outcome")).expect("an outcome says how it ended");
        let (before, ended) =
            first.entry(id).or_insert_with(|| (read, Ended { ending, detail: text("detail"), copies: 0 }));
        assert_identical(&[*before, read]);
        ended.copies += 1;
    }
    first.into_iter().map(|(id, (_, ended))| (id, ended)).collect()
}

/// The outcomes that speak of this command, in the order of the topic.
pub fn of_command(outcomes: &[Read], id: Uuid) -> Vec<&Read> {
    let id = id.to_string();
    outcomes.iter().filter(|read| read.json()["command_id"] == id.as_str()).collect()
}

/// How this command ended, once for each copy on the topic: `applied`, or the code.
pub fn endings(outcomes: &[Read], id: Uuid) -> Vec<String> {
    let ending = |read: &&Read| {
        let value = read.json();
        value["code"].as_str().or(value["outcome"].as_str()).unwrap_or("none").to_owned()
    };
    of_command(outcomes, id).iter().map(ending).collect()
}

/// Panics unless these are copies of one record, byte for byte.
pub fn assert_identical(copies: &[&Read]) {
    for copy in copies {
        let first = copies[0];
        assert_eq!(
            (&copy.key, &copy.value, &copy.headers, copy.partition),
            (&first.key, &first.value, &first.headers, first.partition),
            "{} is published in two ways",
            first.json()
        );
    }
}
