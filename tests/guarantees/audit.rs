//! What operators did, when and why: each verb that changes something is in the audit, in words.

use serde_json::{Value, json};

use crate::support;
use crate::support::bank::Bank;
use crate::support::commands::now_ms;
use crate::support::declared::project;
use crate::support::patience::{PATIENCE, wait_until};
use crate::support::producer::Record;

const TABLES: &str = "create table if not exists poison (word text primary key);";

const COMMANDS: &str = r#"
[[command]]
type = "thing.note"
[[command.step]]
sql = "select 1 / (1 - count(*)) as fine from poison where word = :word"
expect = 1
otherwise = { reject = "never" }
"#;

fn note(key: &str, word: &str) -> Record {
    Record::command("thing.note", key, &json!({ "word": word }))
}

impl Bank {
    fn verb(&self, arguments: &[&str]) {
        let said = self.options.run_verb(arguments);
        assert_eq!(said.code, Some(0), "{arguments:?}: {said:?}");
    }

    fn audited(&self, arguments: &[&str]) -> Value {
        let said = self.options.run_verb(&[&["audit", "-o", "json"], arguments].concat());
        assert_eq!(said.code, Some(0), "{arguments:?}: {said:?}");
        serde_json::from_str(&said.stdout).expect("one JSON document")
    }

    fn audited_reasons(&self, arguments: &[&str]) -> Vec<String> {
        let actions = self.audited(arguments)["actions"].take();
        let reason = |action: &Value| action["reason"].as_str().expect("a reason").to_owned();
        actions.as_array().expect("a list").iter().map(reason).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_of_an_operator_is_told_with_who_when_why_and_what_came_of_it() {
    let _turn = support::heavy();
    let (_files, bank) = project("audit", "thing", 1, TABLES, COMMANDS).await;
    bank.database.execute("insert into poison values ('bad')").await;
    assert!(bank.options.run_verb(&["audit"]).stdout.contains("no operator has changed anything"));
    let _worker = bank.worker();
    let before = now_ms();
    bank.send(&[note("a", "bad"), note("a", "good"), note("b", "good").value("no JSON")]);
    bank.settled().await;

    let place = format!("{}:0", bank.topic);
    bank.verb(&["halt", &place, "--reason", "INC-1: a wrong rate"]);
    bank.verb(&["resume", &place, "--reason", "INC-1: the rate is right"]);
    let running = "partitions where halted_code is null and claims_without_progress = 0";
    wait_until("the partition to run", PATIENCE, async || bank.database.count(running).await == 1).await;
    bank.verb(&["dead-letters", "redrive", "--key", "a"]);
    bank.database.execute("delete from poison").await;
    bank.verb(&["dead-letters", "redrive", "--key", "a", "--reason", "INC-2: cured", "--execute"]);
    let discard = ["dead-letters", "discard", "--code", "malformed-payload", "--reason", "INC-3: a test", "--execute"];
    bank.verb(&discard);
    bank.verb(&["halt", &bank.topic, "--reason", "INC-4: skip"]);
    bank.verb(&["resume", &place, "--skip-to", "latest", "--reason", "INC-4: skipped"]);

    let audit = bank.audited(&[]);
    let actions = audit["actions"].as_array().expect("a list");
    let told: Vec<(&str, &str, &str)> = actions
        .iter()
        .map(|action| ["action", "reason", "summary"].map(|name| action[name].as_str().expect("a text")))
        .map(|[action, reason, summary]| (action, reason, summary))
        .collect();
    assert_eq!(
        told,
        [
            ("halt", "INC-1: a wrong rate", "halted on purpose"),
            ("resume", "INC-1: the rate is right", "lifted the halt operator"),
            ("redrive", "INC-2: cured", "1 parked key to be run again; 1 done"),
            ("discard", "INC-3: a test", "1 letter to be given up; 1 done"),
            ("halt", "INC-4: skip", "halted on purpose"),
            ("resume", "INC-4: skipped", "lifted the halt operator, --skip-to, went on at offset 3"),
        ],
        "a preview changes nothing, and is not told"
    );
    for action in actions {
        assert_eq!((&action["topic"], &action["partition"]), (&json!(bank.topic), &json!(0)), "{action}");
        assert!(action["actor"].as_str().is_some_and(|actor| actor.contains('@')), "{action}");
        let at: jiff::Timestamp = action["at"].as_str().and_then(|at| at.parse().ok()).expect("a time");
        assert!((before..=now_ms()).contains(&at.as_millisecond()), "{action}");
    }
    let requests = json!({"requested": 1, "open": 0, "done": 1, "refused": 0, "withdrawn": 0, "why": null});
    assert_eq!((&actions[2]["requests"], &actions[0]["requests"]), (&requests, &Value::Null));
    assert_eq!(actions[5]["detail"]["next_offset"], 3);
    assert_eq!(audit["more"], false);

    assert_eq!(bank.audited_reasons(&[&place, "--action", "redrive"]), ["INC-2: cured"]);
    assert_eq!(bank.audited_reasons(&[&format!("{}:1", bank.topic)]), [""; 0]);
    assert_eq!(bank.audited_reasons(&["--actor", "nobody-of-this-name"]), [""; 0]);
    assert_eq!(bank.audited_reasons(&["--since", "1h", &bank.topic]).len(), 6);
    assert_eq!(bank.audited_reasons(&["--since", "2200-01-01T00:00:00Z"]), [""; 0]);
    assert_eq!(bank.audited_reasons(&["--limit", "2"]), ["INC-4: skip", "INC-4: skipped"], "the newest, newest last");
    assert_eq!(bank.audited(&["--limit", "2"])["more"], true);

    let table = bank.options.run_verb(&["audit", "--limit", "4"]).stdout;
    for told in ["INC-2: cured", "1 parked key to be run again; 1 done", &place, "there are older ones"] {
        assert!(table.contains(told), "{told}: {table}");
    }
    let since = bank.options.run_verb(&["audit", "--since", "yesterday"]);
    assert_eq!(since.code, Some(2), "{since:?}");
    assert!(since.stderr.contains("neither a duration such as 2h nor a time"), "{since:?}");
}

/// What its owner refuses is told with the reason, and what nobody has done yet is open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_nobody_has_done_is_told_as_open() {
    let _turn = support::heavy();
    let (_files, bank) = project("audit-open", "thing", 1, TABLES, COMMANDS).await;
    bank.database.execute("insert into poison values ('bad')").await;
    let mut worker = bank.worker();
    bank.send(&[note("a", "bad")]);
    bank.settled().await;
    assert!(worker.sigterm_and_wait().success());
    let redrive = ["dead-letters", "redrive", "--key", "a", "--reason", "later", "--execute", "--timeout", "1ms"];
    let said = bank.options.run_verb(&redrive);
    assert_eq!(said.code, Some(4), "{said:?}");
    let summary = |audit: &Value| audit["actions"][0]["summary"].clone();
    assert_eq!(summary(&bank.audited(&[])), "1 parked key to be run again; 1 open");

    let refuse = "update requests set state = 'refused', detail = 'too old', ended_at = now()";
    bank.database.execute(refuse).await;
    assert_eq!(summary(&bank.audited(&[])), "1 parked key to be run again; 1 refused: too old");
}
