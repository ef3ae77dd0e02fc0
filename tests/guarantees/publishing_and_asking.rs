//! What an upstream publishes is answered in its order, whatever way it asks; what became of a
//! command, an entity or a record can be asked for, and the answer is true.

use std::time::Duration;

use serde_json::{Value, json};
use solewriter::client::{Client, Command, Error, Options, Outcome};
use uuid::Uuid;

use crate::support;
use crate::support::bank::Bank;
use crate::support::commands::{DAY_MS, now_ms, of_command, open, v7_at, withdraw};
use crate::support::kafka::{Broker, BrokerOptions};
use crate::support::patience::{PATIENCE, wait_for};
use crate::support::postgres::Database;
use crate::support::worker::{Said, Worker};
use crate::support::{consumer, topics};

impl Bank {
    /// `publish` of these lines, in JSON.
    fn publish(&self, more: &[&str], lines: &[String]) -> (Said, Vec<Value>) {
        let arguments = [&["publish", "--topic", &self.topic, "-o", "json"], more].concat();
        let said = self.options.run_verb_with(&arguments, &lines.join("\n"));
        let rows = said.stdout.lines().map(|row| serde_json::from_str(row).expect("a row is JSON")).collect();
        (said, rows)
    }

    /// `inspect` in JSON.
    fn inspect(&self, subject: &[&str]) -> Value {
        let said = self.options.run_verb(&[&["inspect", "-o", "json"], subject].concat());
        assert_eq!(said.code, Some(0), "{said:?}");
        serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"))
    }

    fn inspect_command(&self, id: Uuid) -> Value {
        self.inspect(&["command", &id.to_string()])
    }

    fn inspect_record(&self, offset: i64) -> Value {
        self.inspect(&["record", &format!("{}:0:{offset}", self.topic)])
    }

    /// With the cluster's own properties: encryption, credentials.
    pub async fn client(&self) -> Client {
        let options = self.cluster.properties.iter();
        let options =
            options.fold(Options::new(&self.topic), |options, (name, value)| options.with_property(name, value));
        Client::connect(&self.cluster.bootstrap_servers, options).await.expect("a client")
    }
}

fn line(command_type: &str, key: &str, data: &Value) -> String {
    json!({"key": key, "type": command_type, "data": data}).to_string()
}

/// Accounts on all partitions: what is answered first is not what was asked first.
#[tokio::test]
async fn publish_waits_for_outcomes_in_the_order_of_its_input() {
    let _turn = support::heavy();
    let bank = Bank::open("publish", 4).await;
    // published before any worker, and any outcomes topic, is there
    let worker = std::thread::scope(|scope| {
        let starting = scope.spawn(|| Worker::start(&bank.options));
        let mut lines = vec![line("account.withdraw", "acct-0", &json!({"amount": 1}))];
        lines.extend((0..40).map(|n| line("account.open", &format!("acct-{}", n % 20), &json!({"initial": n}))));
        lines.push(line("account.close", "acct-0", &json!({})));
        let (said, rows) = bank.publish(&["--wait", "--timeout", "60s"], &lines);
        assert_eq!((said.code, rows.len()), (Some(0), lines.len()), "{said:?}");
        for (line, row) in lines.iter().zip(&rows) {
            let (line, outcome): (Value, _) = (serde_json::from_str(line).expect("JSON"), &row["outcome"]);
            assert_eq!((&outcome["entity_id"], &outcome["command_type"]), (&line["key"], &line["type"]));
            for same in ["command_id", "topic", "partition", "offset"] {
                assert_eq!(row[same], outcome[same], "{row}");
            }
        }
        let ending = |row: &Value| (row["outcome"]["outcome"].clone(), row["outcome"]["code"].clone());
        assert_eq!(ending(&rows[0]), (json!("rejected"), json!("not-open")));
        assert_eq!(ending(&rows[1]), (json!("applied"), Value::Null));
        assert_eq!(ending(&rows[21]), (json!("rejected"), json!("already-open")));
        assert_eq!(ending(&rows[41]), (json!("dead"), json!("unknown-type")));
        starting.join().expect("a worker")
    });
    drop(worker);
}

#[tokio::test]
async fn publish_says_where_each_record_is() {
    let bank = Bank::open("where", 3).await;
    let lines = [7, 8, 9].map(|n| line("account.open", &format!("acct-{n}"), &json!({ "initial": 0 })));
    let (said, rows) = bank.publish(&["--rate", "1000"], &lines);
    assert_eq!((said.code, rows.len()), (Some(0), 3), "{said:?}");
    let log = consumer::read_all(&bank.cluster, &bank.topic);
    for (row, key) in rows.iter().zip(["acct-7", "acct-8", "acct-9"]) {
        let read = log.iter().find(|read| read.key.as_deref() == Some(key.as_bytes())).expect("the record");
        let id = read.header("ce_id").expect("an id");
        let expected =
            json!({"command_id": id, "topic": bank.topic, "partition": read.partition, "offset": read.offset});
        assert_eq!(row, &expected);
        assert_eq!(id.parse().map(|id: Uuid| id.get_version_num()), Ok(7));
    }
}

#[tokio::test]
async fn a_bad_line_leaves_the_others_and_is_named_by_its_number() {
    let bank = Bank::open("bad-line", 1).await;
    let good = |key: &str| line("account.open", key, &json!({"initial": 1}));
    let lines = [
        good("acct-1"),
        "no JSON".to_owned(),
        String::new(),
        good(""),
        good("acct-2"),
        line("account.open", "acct-3", &json!([1])),
        r#"{"key":"acct-4","type":"account.open","data":{},"id":"4"}"#.to_owned(),
        r#"{"key":"acct-5","type":"account.open","data":{},"ID":"01990000-0000-7000-8000-000000000001"}"#.to_owned(),
        good("acct-6"),
    ];
    let (said, rows) = bank.publish(&[], &lines);
    assert_eq!(said.code, Some(1), "{said:?}");
    let offsets: Vec<_> = rows.iter().map(|row| row["offset"].clone()).collect();
    assert_eq!(offsets, [0, 1, 2], "{said:?}");
    let complaints: Vec<_> = said.stderr.lines().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(complaints, ["line 2", "line 4", "line 6", "line 7", "line 8"], "{said:?}");
    let keys: Vec<_> = consumer::read_all(&bank.cluster, &bank.topic).into_iter().map(|read| read.key).collect();
    assert_eq!(keys, ["acct-1", "acct-2", "acct-6"].map(|key| Some(key.as_bytes().to_vec())));

    let missing = bank.options.run_verb_with(&["publish", "--topic", "no-such-topic"], &lines[0]);
    assert_eq!((missing.code, missing.stdout.as_str()), (Some(2), ""), "{missing:?}");
    assert!(missing.stderr.contains("no-such-topic does not exist"), "{missing:?}");
}

#[tokio::test]
async fn the_same_id_again_gets_the_same_outcome() {
    let _turn = support::heavy();
    let bank = Bank::open("same-id", 1).await;
    let _worker = bank.worker();
    let id = Uuid::now_v7();
    let line = json!({"key": "acct-1", "type": "account.open", "data": {"initial": 7}, "id": id}).to_string();
    let (first, rows) = bank.publish(&["--wait"], std::slice::from_ref(&line));
    let (again, repeated) = bank.publish(&["--wait"], &[line.clone(), line]);
    assert_eq!((first.code, again.code), (Some(0), Some(0)), "{first:?} {again:?}");
    assert_eq!((&rows[0]["offset"], &rows[0]["outcome"]["reply"]), (&json!(0), &json!({"balance": 7})));
    assert_eq!((&repeated[0]["offset"], &repeated[1]["offset"]), (&json!(1), &json!(2)));
    for row in &repeated {
        assert_eq!(row["outcome"], rows[0]["outcome"], "the stored outcome, of the first delivery");
    }
}

/// Its outcome would be another's: a reused id publishes none.
#[tokio::test]
async fn an_id_that_a_line_reuses_for_another_command_is_not_sent() {
    let bank = Bank::open("reuse", 1).await;
    let id = Uuid::now_v7();
    let deposit = |amount: i64| {
        json!({"key": "acct-1", "type": "account.open", "data": {"initial": amount}, "id": id}).to_string()
    };
    let (said, rows) = bank.publish(&[], &[deposit(5), deposit(6), deposit(5)]);
    assert_eq!((said.code, rows.len()), (Some(1), 2), "{said:?}");
    let refused = "line 2: the id of line 1, with another key, type or data: it would be dead id-reuse; cure: ";
    assert!(said.stderr.starts_with(refused), "{said:?}");

    let (unanswered, rows) = bank.publish(&["--wait", "--timeout", "3s"], &[deposit(6)]);
    assert_eq!((unanswered.code, &rows[0]["outcome"]), (Some(1), &Value::Null), "{unanswered:?}");
    let look = format!("solewriter inspect command {id} (which tells, too, whether the id was reused");
    assert!(unanswered.stderr.contains(&look), "{unanswered:?}");
}

#[tokio::test]
async fn inspect_tells_what_became_of_commands_and_records() {
    let _turn = support::heavy();
    let bank = Bank::open("inspect", 1).await;
    let (opened, refused) = (open("acct-1", 10), withdraw("acct-1", 50));
    let unknown_type = withdraw("acct-1", 1).header("ce_type", "account.close");
    let too_old = open("acct-1", 1).id(v7_at(now_ms() - 30 * DAY_MS));
    let mut worker = bank.worker();
    bank.send(&[opened.clone(), refused.clone(), unknown_type.clone(), opened.clone(), too_old.clone()]);
    bank.settled().await;
    let outcomes = consumer::read_all(&bank.cluster, &format!("{}.outcomes", bank.topic));
    let published = |id| of_command(&outcomes, id)[0].json();

    for settled in [&opened, &refused] {
        let id = settled.command_id();
        assert_eq!(
            bank.inspect_command(id),
            json!({"command_id": id, "known": "settled", "outcome": published(id), "dead_letters": []})
        );
    }
    let dead = bank.inspect_command(unknown_type.command_id());
    assert_eq!((&dead["known"], &dead["outcome"]), (&json!("dead"), &Value::Null));
    assert_eq!(
        (&dead["dead_letters"][0]["code"], &dead["dead_letters"][0]["offset"]),
        (&json!("unknown-type"), &json!(2))
    );
    let expired = bank.inspect_command(too_old.command_id());
    assert_eq!((&expired["known"], &expired["dead_letters"][0]["code"]), (&json!("expired"), &json!("expired")));
    let id = Uuid::now_v7();
    let unknown = json!({"command_id": id, "known": "unknown", "outcome": null, "dead_letters": []});
    assert_eq!(bank.inspect_command(id), unknown);

    let state = |offset| bank.inspect_record(offset)["state"].clone();
    assert_eq!([0, 1, 2, 3, 4].map(state), ["settled", "settled", "dead", "duplicate", "dead"]);
    assert_eq!(state(5), "missing", "the log ends before it");
    let duplicate = bank.inspect_record(3);
    assert_eq!((&duplicate["outcome"], &duplicate["next_offset"]), (&published(opened.command_id()), &json!(5)));
    assert_eq!(duplicate["record"]["key"], "acct-1");

    worker.sigterm_and_wait();
    bank.send(&[withdraw("acct-1", 1)]);
    assert_eq!(state(5), "pending");
    // what the log no longer holds is known from the tables
    topics::delete_records(&bank.cluster, &bank.topic, 0, 4).await;
    assert_eq!([1, 2, 3].map(state), ["settled", "dead", "expired"]);
    assert_eq!(bank.inspect_record(1)["outcome"], published(refused.command_id()));

    let wrong = bank.options.run_verb(&["inspect", "record", "no-such-topic:0:0"]);
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
}

#[tokio::test]
async fn inspect_shows_an_entity_with_its_commands_in_order() {
    let _turn = support::heavy();
    let bank = Bank::open("timeline", 1).await;
    let _worker = bank.worker();
    let lines = [
        line("account.open", "acct-1", &json!({"initial": 10})),
        line("account.open", "acct-2", &json!({"initial": 10})),
        line("account.withdraw", "acct-1", &json!({"amount": 50})),
        line("account.withdraw", "acct-1", &json!({"amount": "five"})),
        line("account.withdraw", "acct-1", &json!({"amount": 4})),
    ];
    let (said, rows) = bank.publish(&["--wait"], &lines);
    assert_eq!(said.code, Some(0), "{said:?}");

    let entity = bank.inspect(&["entity", "account", "acct-1"]);
    assert_eq!((&entity["entity_type"], &entity["entity_id"]), (&json!("account"), &json!("acct-1")));
    assert_eq!((&entity["version"], &entity["state"]), (&json!(2), &json!({"balance": 6})));
    let commands = entity["commands"].as_array().expect("a list");
    let outcome = |command: &Value| command["outcome"].as_str().map(str::to_owned);
    let outcomes: Vec<_> = commands.iter().filter_map(outcome).collect();
    assert_eq!(outcomes, ["applied", "rejected", "dead", "applied"], "{entity:#}");
    for (command, row) in commands.iter().zip([0, 2, 3, 4].map(|n: usize| &rows[n]["outcome"])) {
        for (field, value) in row.as_object().expect("an outcome") {
            assert_eq!(&command[field], value, "{field} of {command}");
        }
    }
    let newest = bank.inspect(&["entity", "account", "acct-1", "--limit", "1", "--since", "1h"]);
    assert_eq!(newest["commands"], json!([commands[3]]));
    let nobody = json!({"entity_type": "account", "entity_id": "acct-9", "version": 0, "state": null, "commands": []});
    assert_eq!(bank.inspect(&["entity", "account", "acct-9"]), nobody);

    let misspelt = bank.options.run_verb(&["inspect", "entity", "acount", "acct-1"]);
    assert_eq!((misspelt.code, misspelt.stdout.as_str()), (Some(2), ""), "{misspelt:?}");
    assert!(misspelt.stderr.contains("did you mean account?"), "{misspelt:?}");

    let table = bank.options.run_verb(&["inspect", "entity", "account", "acct-1"]);
    let words = ["insufficient-funds", "malformed-payload", r#"{"balance":6}"#];
    assert!(words.iter().all(|word| table.stdout.contains(word)), "{table:?}");
}

#[tokio::test]
async fn the_client_gets_one_outcome_however_often_it_asks() {
    let _turn = support::heavy();
    let bank = Bank::open("client", 4).await;
    let client = bank.client().await;
    let command = Command::new("account.open", "acct-1", &json!({"initial": 7})).expect("a command");
    // nobody is there to run it: the time-out leaves it in the log
    match client.send_and_wait(&command, Duration::from_secs(1)).await {
        Err(Error::NoOutcome { command_id, .. }) => assert_eq!(command_id, command.id()),
        other => panic!("{other:?}"),
    }
    let _worker = bank.worker();
    for client in [&client, &client, &bank.client().await] {
        match client.send_and_wait(&command, PATIENCE).await.expect("an outcome") {
            Outcome::Applied { reply, version: 1 } => assert_eq!(reply.get(), r#"{"balance":7}"#),
            other => panic!("{other:?}"),
        }
    }
    bank.settled().await;
    assert_eq!(bank.database.count("processed_commands").await, 1);
    assert_eq!(consumer::read_all(&bank.cluster, &bank.topic).len(), 4, "each asking is a delivery");

    let other = Command::new("account.withdraw", "acct-1", &json!({"amount": 8})).expect("a command");
    match client.send_and_wait(&other, PATIENCE).await.expect("an outcome") {
        Outcome::Rejected { code, detail } => assert_eq!((&*code, detail.is_some()), ("insufficient-funds", true)),
        other => panic!("{other:?}"),
    }
    let unknown = Command::new("account.close", "acct-1", &json!({})).expect("a command");
    let (dead, applied) = tokio::join!(
        client.send_and_wait(&unknown, PATIENCE),
        client.send_and_wait(&command, PATIENCE), // beside another, and once more
    );
    assert!(matches!(dead, Ok(Outcome::Dead { code, .. }) if code == "unknown-type"));
    assert!(matches!(applied, Ok(Outcome::Applied { version: 1, .. })));

    let nowhere = Client::connect(&bank.cluster.bootstrap_servers, Options::new("no-such-topic")).await;
    assert!(matches!(nowhere, Err(Error::NoTopic { .. })));
}

/// The broker freezes in the middle of a long input.
#[tokio::test]
async fn publish_ends_when_the_broker_takes_nothing_more_and_names_what_is_open() {
    let _turn = support::heavy();
    let mut broker = Broker::start(BrokerOptions::default());
    let database = Database::fresh("frozen").await;
    let bank = Bank::open_on(broker.cluster(), database, "frozen", 1).await;
    let lines: Vec<_> =
        (0..10_000).map(|n| line("account.open", &format!("acct-{n}"), &json!({"initial": n}))).collect();
    let (said, rows) = std::thread::scope(|scope| {
        let publishing = scope.spawn(|| bank.publish(&["--rate", "50", "--timeout", "4s"], &lines));
        let some = || topics::watermarks(&bank.cluster, &bank.topic, 0).1 > 20;
        wait_for("some commands in the log", PATIENCE, || some().then_some(()));
        broker.freeze();
        publishing.join().expect("publish")
    });
    assert_eq!(said.code, Some(4), "{said:?}");
    let (published, open) = (rows.len(), said.stderr.lines().count());
    // what was on its way when the broker froze may be in the log without an answer
    assert!(open > 0 && published + open > 20 && published + open < lines.len(), "{published} published, {open} open");
    let first = format!("line {}: the delivery of command ", published + 1);
    assert!(said.stderr.starts_with(&first), "{}", said.stderr);
}
