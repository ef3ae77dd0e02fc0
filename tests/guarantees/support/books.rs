//! What the bank's books must say: reckoned from the log alone, by rules that are written here a
//! second time.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

use serde_json::Value;
use uuid::Uuid;

use super::consumer::Read;
use super::postgres::Database;

/// The one outcome that a command must have.
#[derive(Debug, Clone, PartialEq)]
struct Expected {
    partition: i32,
    /// Of its first delivery.
    offset: i64,
    key: String,
    command_type: String,
    data: Value,
    /// `None`: applied.
    code: Option<&'static str>,
    version: i64,
    /// After the command; what the reply says when it was applied.
    balance: Option<i64>,
    deliveries: usize,
}

/// An account's balance and version; no balance before it is open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Account {
    balance: Option<i64>,
    version: i64,
}

impl Account {
    fn obey(&mut self, command_type: &str, data: &Value) -> Result<(), &'static str> {
        let after = self.after(command_type, data)?;
        self.balance = Some(after);
        self.version += 1;
        Ok(())
    }

    fn after(&self, command_type: &str, data: &Value) -> Result<i64, &'static str> {
        let amount = |name: &str| data[name].as_i64().expect("commands of tests are well formed");
        if command_type == "account.open" {
            return match (self.balance, amount("initial")) {
                (Some(_), _) => Err("already-open"),
                (None, initial) if initial < 0 => Err("invalid-amount"),
                (None, initial) => Ok(initial),
            };
        }
        let balance = self.balance.ok_or("not-open")?;
        let amount = amount("amount");
        match command_type {
            _ if amount <= 0 => Err("invalid-amount"),
            "account.deposit" => balance.checked_add(amount).ok_or("invalid-amount"),
            _ if amount > balance => Err("insufficient-funds"),
            _ => Ok(balance - amount),
        }
    }
}

/// Where a bank keeps its balances.
#[derive(Debug, Clone, Copy)]
pub enum Balances {
    /// In Rust: in the state of its entities.
    InState,
    /// In SQL: in a table of its own.
    InTable,
}

/// Everything that the log demands.
pub struct Books {
    commands: HashMap<Uuid, Expected>,
    accounts: BTreeMap<String, Account>,
}

impl Books {
    /// From the records of a command topic, in order within each partition.
    pub fn reckon(log: &[Read]) -> Self {
        let mut books = Self { commands: HashMap::new(), accounts: BTreeMap::new() };
        log.iter().for_each(|record| books.enter(record));
        books
    }

    fn enter(&mut self, record: &Read) {
        let id: Uuid = record.header("ce_id").and_then(|id| id.parse().ok()).expect("a command id");
        if let Some(known) = self.commands.get_mut(&id) {
            known.deliveries += 1;
            return;
        }
        let key = String::from_utf8(record.key.clone().expect("a key")).expect("a key in UTF-8");
        let command_type = record.header("ce_type").expect("a type").to_owned();
        let data = record.json();
        let account = self.accounts.entry(key.clone()).or_default();
        let code = account.obey(&command_type, &data).err();
        let (version, balance) = (account.version, account.balance);
        let (partition, offset) = (record.partition, record.offset);
        let expected = Expected { partition, offset, key, command_type, data, code, version, balance, deliveries: 1 };
        self.commands.insert(id, expected);
    }

    /// Each id has exactly one row, each account the balance and version that the log gives.
    pub async fn check_tables(&self, database: &Database, balances: Balances) {
        self.check_commands(database).await;
        self.check_accounts(database, balances).await;
        assert_eq!(database.count("dead_letters").await, 0, "no command of this test is to die");
        let out_of_order = "(select version, row_number() over (partition by entity_id order by \"offset\") as nth
            from processed_commands where outcome = 'applied') as applied where version <> nth";
        assert_eq!(database.count(out_of_order).await, 0, "applied versions are 1, 2, 3, … in the order of the log");
    }

    async fn check_commands(&self, database: &Database) {
        type Row = (Uuid, i32, i64, String, Option<String>, i64);
        let rows: Vec<Row> = sqlx::query_as(
            "select command_id, partition, \"offset\", entity_id, code, version from processed_commands",
        )
        .fetch_all(&database.pool)
        .await
        .expect("read the idempotency table");
        assert_eq!(rows.len(), self.commands.len(), "one row for each id");
        let wrong = rows.iter().filter(|(id, partition, offset, key, code, version)| {
            let found = (*partition, *offset, &**key, code.as_deref(), *version);
            self.commands.get(id).is_none_or(|e| (e.partition, e.offset, &*e.key, e.code, e.version) != found)
        });
        let wrong: Vec<_> = wrong.map(|row| (row, self.commands.get(&row.0))).collect();
        none("rows of the idempotency table differ", &wrong);
    }

    async fn check_accounts(&self, database: &Database, balances: Balances) {
        let accounts = match balances {
            Balances::InState => {
                "select entity_id, version, (state->>'balance')::bigint from entities order by entity_id collate \"C\""
            }
            // an entity without an account, or the other way round, has no version or no balance
            Balances::InTable => {
                "select coalesce(entity_id, id), coalesce(version, -1), coalesce(balance + savings, -1)
                   from entities full join account on id = entity_id order by coalesce(entity_id, id) collate \"C\""
            }
        };
        let rows = sqlx::query_as(accounts).fetch_all(&database.pool).await;
        let rows: Vec<(String, i64, i64)> = rows.expect("read the accounts");
        let open = self
            .accounts
            .iter()
            .filter_map(|(key, account)| account.balance.map(|balance| (key.clone(), account.version, balance)));
        let expected: Vec<_> = open.collect();
        let sum = |rows: &[(String, i64, i64)]| rows.iter().map(|row| row.2).sum::<i64>();
        assert_eq!(sum(&rows), sum(&expected), "the sum of all balances");
        let differ: Vec<_> = rows.iter().zip(&expected).filter(|(a, b)| a != b).collect();
        none("accounts differ", &differ);
        assert_eq!(rows.len(), expected.len(), "accounts");
    }

    /// Each id's outcome is there, its copies are identical, and what is new came in log order.
    pub fn check_outcomes(&self, outcomes: &[Read]) {
        let mut copies: HashMap<Uuid, usize> = HashMap::new();
        for outcome in outcomes {
            let body = outcome.json();
            let id = body["command_id"].as_str().and_then(|id| id.parse().ok());
            let id: Uuid = id.expect("an outcome names its command");
            *copies.entry(id).or_default() += 1;
        }
        let missing: Vec<_> = self
            .commands
            .iter()
            .filter(|(id, expected)| copies.get(id).copied().unwrap_or(0) < expected.deliveries)
            .collect();
        none("commands without an outcome for each delivery", &missing);
        for outcome in first_occurrences(outcomes) {
            self.check_outcome(outcome);
        }
    }

    fn check_outcome(&self, outcome: &Read) {
        let body = outcome.json();
        let id = body["command_id"].as_str().and_then(|id| id.parse().ok());
        let expected = id.and_then(|id: Uuid| self.commands.get(&id));
        let expected = expected.unwrap_or_else(|| panic!("an outcome of no command: {body}"));
        let named = expected.code.map_or("applied", |_| "rejected");
        let balance = expected.balance.filter(|_| expected.code.is_none());
        let says = (
            body["outcome"].as_str(),
            body["code"].as_str(),
            body["version"].as_i64(),
            body["reply"]["balance"].as_i64(),
            body["offset"].as_i64(),
            outcome.partition,
            outcome.key.as_deref(),
        );
        let shall = (
            Some(named),
            expected.code,
            Some(expected.version),
            balance,
            Some(expected.offset),
            expected.partition,
            Some(expected.key.as_bytes()),
        );
        assert_eq!(says, shall, "{body}");
    }

    /// Each applied command's event is there, its copies are identical, and what is new came in log
    /// order.
    pub fn check_events(&self, events: &[Read]) {
        let first = first_occurrences(events);
        let mut offsets: HashMap<i32, i64> = HashMap::new();
        for event in &first {
            let expected = self.caused(event);
            let last = offsets.insert(event.partition, expected.offset);
            assert!(last.is_none_or(|last| last < expected.offset), "out of order: {event:?}");
        }
        let applied = self.commands.values().filter(|e| e.code.is_none()).count();
        assert!(applied > 0, "books in which nothing happened show nothing");
        assert_eq!(first.len(), applied, "one event for each applied command");
    }

    fn caused(&self, event: &Read) -> &Expected {
        let id = event.header("ce_causationid").and_then(|id| id.parse::<Uuid>().ok());
        let expected = id.and_then(|id| self.commands.get(&id));
        let expected = expected.unwrap_or_else(|| panic!("an event of no command: {event:?}"));
        let event_type = match &*expected.command_type {
            "account.open" => "account.opened",
            "account.deposit" => "account.deposited",
            _ => "account.withdrawn",
        };
        let says = (event.header("ce_type"), event.json(), event.partition);
        let shall = (Some(event_type), expected.data.clone(), expected.partition);
        assert_eq!(says, shall, "{event:?}");
        assert_eq!(expected.code, None, "an event of a rejected command");
        expected
    }
}

/// The first copy of each record, by `ce_id`. The others must be the same byte for byte; and the
/// outcomes among the first must be in the order of the log.
fn first_occurrences(records: &[Read]) -> Vec<&Read> {
    let mut by_id: HashMap<&str, &Read> = HashMap::new();
    let mut first = Vec::new();
    let mut last_offset: HashMap<i32, i64> = HashMap::new();
    for record in records {
        let id = record.header("ce_id").expect("a published record has an id");
        if let Some(before) = by_id.get(id) {
            let bytes = |r: &Read| (r.key.clone(), r.value.clone(), r.headers.clone());
            assert_eq!(bytes(before), bytes(record), "copies differ");
            continue;
        }
        if let Some(offset) = record.json()["offset"].as_i64() {
            let last = last_offset.insert(record.partition, offset);
            assert!(last.is_none_or(|last| last < offset), "{last:?} was published before {record:?}");
        }
        by_id.insert(id, record);
        first.push(record);
    }
    first
}

/// Fails with the first few of what should not be there.
fn none<T: Debug>(what: &str, found: &[T]) {
    let some = &found[..found.len().min(3)];
    assert!(found.is_empty(), "{} {what}: {some:#?}", found.len());
}
