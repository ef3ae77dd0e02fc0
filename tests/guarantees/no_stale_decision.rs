//! What was decided on a state that is no longer so is not committed, a rejection neither; and what
//! an earlier attempt has committed is never taken for a later attempt's decision.

use std::collections::BTreeMap;

use serde_json::Value;
use sqlx::AssertSqlSafe;

use crate::support;
use crate::support::bank::Bank;
use crate::support::commands::{deposit, endings, open, v4_beside, v7_at, withdraw};
use crate::support::consumer;
use crate::support::patience::{PATIENCE, wait_for};
use crate::support::producer::Record;
use crate::support::proxy::{Fault, Proxy};

async fn deliver(bank: &Bank, record: &Record) -> Vec<String> {
    bank.send(std::slice::from_ref(record));
    bank.settled().await;
    let outcomes = consumer::read_all(&bank.cluster, &format!("{}.outcomes", bank.topic));
    endings(&outcomes, record.command_id())
}

/// Owner A has the account in its cache; B claims, writes and is gone; A's next command would be
/// rejected on what A remembers.
#[tokio::test]
async fn a_rejection_decided_before_another_owner_wrote_is_decided_again() {
    let _turn = support::heavy();
    let bank = Bank::open("owners", 1).await;
    let worker = bank.worker();
    assert_eq!(deliver(&bank, &open("acct-a", 10)).await, ["applied"]);
    assert_eq!(deliver(&bank, &withdraw("acct-a", 100)).await, ["insufficient-funds"]);
    bank.database
        .execute(
            "update partitions set fencing_token = fencing_token + 1, claim_id = gen_random_uuid(), owner = 'b';
             update entities set version = version + 1, state = '{\"balance\": 1000}'",
        )
        .await;
    assert_eq!(deliver(&bank, &withdraw("acct-a", 100)).await, ["applied"]);
    let state = "entities where version = 3 and state = '{\"balance\": 900}'";
    assert_eq!(bank.database.count(state).await, 1);
    assert!(worker.metrics().sum("solewriter_fenced_total", &[]) >= 1.0);
}

/// The owner stays, and somebody else's program writes between two commands of a warm key.
#[tokio::test]
async fn a_foreign_write_is_seen_by_the_next_command_applied_or_rejected() {
    let _turn = support::heavy();
    let bank = Bank::open("foreign", 1).await;
    let _worker = bank.worker();
    let foreign = async |balance: i64| {
        let sql = format!("update entities set version = version + 1, state = '{{\"balance\": {balance}}}'");
        bank.database.execute(&sql).await;
    };
    assert_eq!(deliver(&bank, &open("acct-a", 10)).await, ["applied"]);
    foreign(500).await;
    assert_eq!(deliver(&bank, &withdraw("acct-a", 100)).await, ["applied"]);
    foreign(20).await;
    assert_eq!(deliver(&bank, &withdraw("acct-a", 100)).await, ["insufficient-funds"]);
    foreign(1000).await;
    assert_eq!(deliver(&bank, &withdraw("acct-a", 100)).await, ["applied"]);
    // also the row itself may come and go
    bank.database.execute("delete from entities").await;
    assert_eq!(deliver(&bank, &withdraw("acct-a", 100)).await, ["not-open"]);
    let home =
        format!("insert into entities values ('account', 'acct-b', '{}', 0, 1, '{{\"balance\": 7}}')", bank.topic);
    assert_eq!(deliver(&bank, &withdraw("acct-b", 1)).await, ["not-open"]);
    bank.database.execute(&home).await;
    assert_eq!(deliver(&bank, &withdraw("acct-b", 1)).await, ["applied"]);
    let versions = bank.database.rows("select \"offset\", version from processed_commands order by 1").await;
    let versions: Vec<i64> = versions.iter().filter_map(|row| row["version"].as_i64()).collect();
    assert_eq!(versions, [1, 3, 4, 6, 0, 0, 2]);
}

/// The worker gives up on an answer and sends again, while the first sending still waits in the
/// network; then both arrive.
#[tokio::test]
async fn a_slow_first_attempt_and_its_repetition_settle_one_decision() {
    let _turn = support::heavy();
    let mut bank = Bank::open("slow", 1).await;
    let proxy = Proxy::in_front_of(&bank.database.url);
    let through = proxy.url(&bank.database.url);
    bank.options = bank.options.clone().database_url(through).setting("[database]\nstatement_timeout = \"200ms\"");
    let worker = bank.worker();
    assert_eq!(deliver(&bank, &open("acct-a", 10)).await, ["applied"]);
    proxy.arm("settle_batch_v1", Fault::Held);
    let (second, third) = (deposit("acct-a", 1), withdraw("acct-a", 100));
    bank.send(std::slice::from_ref(&second));
    proxy.wait_fired(1, PATIENCE);
    wait_for("the worker to send again", PATIENCE, || worker.output().contains("sent again").then_some(()));
    proxy.release();
    assert_eq!(deliver(&bank, &third).await, ["insufficient-funds"]);
    let outcomes = consumer::read_all(&bank.cluster, &format!("{}.outcomes", bank.topic));
    assert_eq!(endings(&outcomes, second.command_id()), ["applied"]);
    assert_eq!(outcomes.len(), 3);
    assert_eq!(bank.database.count("entities where version = 2 and state = '{\"balance\": 11}'").await, 1);
    assert_eq!(bank.database.number("select batch_seq from partitions").await, Some(3));
}

/// A call of `settle_batch_v1`: an expression for each argument, changed as a test needs it.
#[derive(Clone)]
struct Call(BTreeMap<&'static str, String>);

/// Arguments that are empty arrays unless a test fills them.
const EMPTY: &[(&str, &str)] = &[
    ("s_function", "smallint"),
    ("s_args", "text"),
    ("s_offset", "bigint"),
    ("s_entity_id", "text"),
    ("s_command_id", "uuid"),
    ("s_record_time_ms", "bigint"),
    ("e_id", "text"),
    ("e_base", "bigint"),
    ("e_version", "bigint"),
    ("e_state", "text"),
    ("c_id", "uuid"),
    ("c_fingerprint", "uuid"),
    ("c_type_id", "smallint"),
    ("c_entity_id", "text"),
    ("c_offset", "bigint"),
    ("c_record_time_ms", "bigint"),
    ("c_applied", "boolean"),
    ("c_version", "bigint"),
    ("c_code", "text"),
    ("c_detail", "text"),
    ("c_reply", "bytea"),
    ("c_events", "bytea"),
    ("c_traceparent", "text"),
    ("d_offset", "bigint"),
    ("d_key", "bytea"),
    ("d_value", "bytea"),
    ("d_headers", "text"),
    ("d_code", "text"),
    ("d_detail", "text"),
    ("d_state", "text"),
    ("d_record_time_ms", "bigint"),
    ("d_command_id", "uuid"),
    ("d_command_type", "text"),
    ("d_entity_id", "text"),
    ("d_traceparent", "text"),
    ("b_command_ids", "uuid"),
    ("b_repeats", "int"),
    ("b_dead_after", "int"),
];

const CLAIM: &str = "11111111-1111-4111-8111-111111111111";
const DECISION: &str = "22222222-2222-4222-8222-222222222222";
const OTHER: &str = "33333333-3333-4333-8333-333333333333";

impl Call {
    /// An empty batch over offset 0 of `t:0`, by the first claim.
    fn new() -> Self {
        let mut call = Self(EMPTY.iter().map(|(name, kind)| (*name, format!("'{{}}'::{kind}[]"))).collect());
        for (name, value) in [
            ("p_topic", "'t'"),
            ("p_partition", "0"),
            ("p_claim_id", &*format!("'{CLAIM}'")),
            ("p_fencing_token", "1"),
            ("p_next_offset", "0"),
            ("p_batch_seq", "0"),
            ("p_last_decision_id", "null"),
            ("p_decision_id", &*format!("'{DECISION}'")),
            ("p_new_next_offset", "1"),
            ("p_first_offset", "0"),
            ("p_last_offset", "0"),
            ("p_last_timestamp", "5"),
            ("p_last_checksum", "7"),
            ("p_published_seq", "0"),
            ("p_published_offset", "0"),
            ("p_log_time_ms", "null"),
            ("s_runner", "null::text"),
            ("s_decides", "false"),
            ("s_careful", "false"),
            ("s_part_bytes_max", "1000000"),
            ("p_entity_type", "'account'"),
            ("c_encoding", "1::smallint"),
            ("l_letters", "null"),
        ] {
            call.0.insert(name, value.to_owned());
        }
        call
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.insert(name, value.into());
        self
    }

    /// The batch after this one.
    fn next(self) -> Self {
        self.with("p_next_offset", "1")
            .with("p_batch_seq", "1")
            .with("p_first_offset", "1")
            .with("p_new_next_offset", "2")
            .with("p_last_decision_id", format!("'{DECISION}'"))
            .with("p_decision_id", format!("'{OTHER}'"))
    }

    /// One entity that the decision rests on; without a version it is only read.
    fn entity(self, id: &str, base: &str, version: &str) -> Self {
        self.with("e_id", format!("array['{id}']"))
            .with("e_base", format!("array[{base}]::bigint[]"))
            .with("e_version", format!("array[{version}]::bigint[]"))
            .with("e_state", format!("array[case when {version}::bigint is null then null else '{{}}' end]"))
    }

    /// One rejected command.
    fn command(self, id: impl std::fmt::Display) -> Self {
        self.with("c_id", format!("array['{id}']::uuid[]"))
            .with("c_fingerprint", format!("array['{id}']::uuid[]"))
            .with("c_type_id", "array[1]::smallint[]")
            .with("c_entity_id", "array['a']")
            .with("c_offset", "array[0]::bigint[]")
            .with("c_record_time_ms", "array[0]::bigint[]")
            .with("c_applied", "array[false]")
            .with("c_version", "array[0]::bigint[]")
            .with("c_code", "array['no']")
            .with("c_detail", "array[null]::text[]")
            .with("c_reply", "array[null]::bytea[]")
            .with("c_events", "array[null]::bytea[]")
            .with("c_traceparent", "array[null]::text[]")
            .with("b_command_ids", format!("array['{id}']::uuid[]"))
    }

    fn dead_letter(self) -> Self {
        self.with("d_offset", "array[0]::bigint[]")
            .with("d_key", "array[null]::bytea[]")
            .with("d_value", "array['x']::bytea[]")
            .with("d_headers", "array['[]']")
            .with("d_code", "array['missing-id']")
            .with("d_detail", "array['none']")
            .with("d_state", "array['dead']")
            .with("d_record_time_ms", "array[0]::bigint[]")
            .with("d_command_id", "array[null]::uuid[]")
            .with("d_command_type", "array[null]::text[]")
            .with("d_entity_id", "array[null]::text[]")
            .with("d_traceparent", "array[null]::text[]")
            .with("b_dead_after", "array[0]")
    }

    /// The answer as JSON, or the SQLSTATE.
    async fn run(&self, bank: &Bank) -> Result<Value, String> {
        let arguments: Vec<String> = self.0.iter().map(|(name, value)| format!("{name} => {value}")).collect();
        let sql = format!("select to_jsonb(r) from settle_batch_v1({}) r", arguments.join(", "));
        let answer = sqlx::query_scalar::<_, Value>(AssertSqlSafe(sql)).fetch_one(&bank.database.pool).await;
        answer.map_err(|error| {
            let error = error.into_database_error().expect("a refusal of the database");
            error.code().expect("a SQLSTATE").into_owned()
        })
    }

    async fn status(&self, bank: &Bank) -> String {
        match self.run(bank).await {
            Ok(answer) => answer["status"].as_str().expect("a status").to_owned(),
            Err(code) => code,
        }
    }
}

/// A schema with one claimed partition and no worker.
async fn claimed(name: &str) -> Bank {
    let bank = Bank::open(name, 1).await;
    bank.database
        .execute(&format!(
            "select claim_partition_v1('t', 0, '{CLAIM}', 'a', 'cluster', 'group', 0, null, 1, null, null, null, null);
         insert into command_types (topic, entity_type, command_type) values ('t', 'account', 'account.open')"
        ))
        .await;
    bank
}

async fn cursor(bank: &Bank) -> Option<i64> {
    bank.database.number("select next_offset * 100 + batch_seq from partitions").await
}

#[tokio::test]
async fn a_decision_is_told_from_another_of_the_same_batch() {
    let bank = claimed("decisions").await;
    let call = Call::new().dead_letter();
    let first = call.run(&bank).await.expect("committed");
    assert_eq!(
        (&first["status"], &first["next_offset"], &first["batch_seq"]),
        (&"committed".into(), &1.into(), &1.into())
    );
    let again = call.run(&bank).await.expect("committed by the first sending");
    assert_eq!((&again["status"], &again["dead_letter_ids"]), (&"committed".into(), &first["dead_letter_ids"]));
    let other = call.clone().with("p_decision_id", format!("'{OTHER}'")).run(&bank).await.expect("an answer");
    assert_eq!(
        (&other["status"], &other["next_offset"], &other["decision_id"]),
        (&"superseded".into(), &1.into(), &DECISION.into())
    );
    assert_eq!(bank.database.count("dead_letters").await, 1);
    assert_eq!(bank.database.count("batches").await, 1);

    // the next batch rests on the decision before it, not on a cursor that happens to be equal
    let next = Call::new().next();
    assert_eq!(next.clone().with("p_last_decision_id", format!("'{OTHER}'")).status(&bank).await, "behind");
    assert_eq!(next.clone().with("p_next_offset", "0").status(&bank).await, "behind");
    assert_eq!(next.status(&bank).await, "committed");
    assert_eq!(call.status(&bank).await, "behind", "two batches ago");
    assert_eq!(cursor(&bank).await, Some(202));
}

#[tokio::test]
async fn a_stale_claim_writes_nothing() {
    let bank = claimed("stale_claims").await;
    let call = Call::new().entity("a", "null", "1").command(v7_at(1_790_000_000_000)).dead_letter();
    for (argument, value) in [("p_fencing_token", "0"), ("p_fencing_token", "2"), ("p_claim_id", "gen_random_uuid()")] {
        assert_eq!(call.clone().with(argument, value).status(&bank).await, "fenced", "{argument}");
    }
    bank.database.execute("update partitions set halted_code = 'operator'").await;
    assert_eq!(call.status(&bank).await, "halted");
    bank.database.execute("update partitions set halted_code = null, fencing_token = 2").await;
    assert_eq!(call.status(&bank).await, "fenced", "an operator has acted");
    bank.database
        .execute(&format!(
            "select claim_partition_v1('t', 0, '{OTHER}', 'b', 'cluster', 'group', null, null, 1, null, null, null, null)"
        ))
        .await;
    let answer = call.run(&bank).await.expect("an answer");
    assert_eq!((&answer["status"], &answer["fencing_token"]), (&"fenced".into(), &3.into()));
    bank.database.execute("delete from partitions").await;
    assert_eq!(call.status(&bank).await, "fenced", "without a row there is no owner");
    for table in ["entities", "processed_commands", "dead_letters", "batches"] {
        assert_eq!(bank.database.count(table).await, 0, "{table}");
    }
}

#[tokio::test]
async fn every_version_that_a_decision_rests_on_is_checked() {
    let bank = claimed("versions").await;
    bank.database
        .execute("insert into entities values ('account', 'a', 't', 0, 3, '{}'), ('account', 'far', 't', 1, 3, '{}')")
        .await;
    let conflicts = [
        ("a", "2", "3"),
        ("a", "4", "5"),
        ("a", "null", "1"),
        ("b", "1", "2"),
        // only read: the decision was a rejection
        ("a", "2", "null"),
        ("a", "null", "null"),
        ("b", "1", "null"),
    ];
    for (id, base, version) in conflicts {
        let call = Call::new().entity(id, base, version).dead_letter();
        assert_eq!(call.status(&bank).await, "SW002", "{id} at {base} to {version}");
    }
    for (base, version) in [("3", "4"), ("null", "1"), ("3", "null"), ("null", "null")] {
        let call = Call::new().entity("far", base, version).dead_letter();
        assert_eq!(call.status(&bank).await, "SW004", "far at {base} to {version}");
    }
    assert_eq!(cursor(&bank).await, Some(0), "what was refused left no trace");
    assert_eq!(bank.database.count("dead_letters").await, 0);
    assert_eq!(Call::new().entity("a", "3", "null").status(&bank).await, "committed");
    assert_eq!(Call::new().next().entity("b", "null", "null").status(&bank).await, "committed");
}

/// Whatever a writer believes of its parked keys.
#[tokio::test]
async fn a_command_of_a_parked_key_does_not_run() {
    let bank = claimed("parked").await;
    let park = "insert into parked_keys (topic, partition, entity_id, waiting)
                select topic, partition, 'a', 0 from partitions";
    bank.database.execute(park).await;
    let call = Call::new().command(v4_beside(v7_at(0)));
    assert_eq!(call.status(&bank).await, "SW011");
    assert_eq!(bank.database.count("processed_commands").await, 0);
    bank.database.execute("delete from parked_keys").await;
    assert_eq!(call.status(&bank).await, "committed");
}

#[tokio::test]
async fn an_id_is_settled_once_and_never_below_the_horizon() {
    let bank = claimed("ids").await;
    let now = bank.database.number("select (extract(epoch from now()) * 1000)::bigint").await.expect("now");
    let (id, below) = (v7_at(now), v7_at(now - 10 * 86_400_000));
    assert_eq!(Call::new().command(id).status(&bank).await, "committed");
    assert_eq!(Call::new().next().command(id).status(&bank).await, "23505");
    assert_eq!(Call::new().next().command(below).status(&bank).await, "SW005");
    assert_eq!(Call::new().next().command(v7_at(now - 5 * 86_400_000)).status(&bank).await, "23514", "no such day");
    assert_eq!(cursor(&bank).await, Some(101));
    let v4 = v4_beside(below);
    assert_eq!(Call::new().next().command(v4).status(&bank).await, "committed");
    let third = Call::new()
        .next()
        .command(v4)
        .with("p_next_offset", "2")
        .with("p_first_offset", "2")
        .with("p_new_next_offset", "3")
        .with("p_batch_seq", "2")
        .with("p_last_decision_id", format!("'{OTHER}'"))
        .with("p_decision_id", format!("'{DECISION}'"));
    assert_eq!(third.clone().status(&bank).await, "23505", "kept for ever");
    assert_eq!(third.with("p_new_next_offset", "2").status(&bank).await, "SW007", "the cursor never goes back");
    assert_eq!(bank.database.count("processed_commands").await, 2);
}
