//! What `docs/publishing.md` tells other teams to copy works as it stands there: each program
//! publishes onto the right partition, and finds the outcome.
//!
//! A client whose tools or packages cannot be had on this machine is skipped, which is said on
//! stderr. What has been fetched must work.

mod fetch;
mod snippet;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use serde_json::Value;
use uuid::Uuid;

use self::snippet::Snippet;
use crate::support;
use crate::support::bank::Bank;
use crate::support::patience::{PATIENCE, wait_for};
use crate::support::topics;

const PARTITIONS: i32 = 12;

/// The files that the document shows whole.
const SHOWN: [&str; 10] = [
    "publishing/java/pom.xml",
    "publishing/java/src/main/java/Publish.java",
    "publishing/python/requirements.txt",
    "publishing/python/publish.py",
    "publishing/go/go.mod",
    "publishing/go/main.go",
    "publishing/node/package.json",
    "publishing/node/publish.mjs",
    "publishing/kcat.sh",
    "publishing/rust/publish.rs",
];

#[test]
fn the_document_shows_the_files_that_run() {
    let path = docs().join("publishing.md");
    let written = fs::read_to_string(&path).expect("read the document");
    for file in SHOWN {
        assert!(written.contains(&format!("<!-- {file} -->\n```")), "{file} is not shown");
    }
    let made = with_files(&written);
    if env::var_os("UPDATE").is_some() {
        fs::write(&path, &made).expect("write the document");
    } else {
        assert_eq!(written, made, "run this test with UPDATE=1");
    }
}

#[tokio::test]
async fn java() {
    publishes("java", fetch::java()).await;
}

#[tokio::test]
async fn python() {
    publishes("python", fetch::python()).await;
}

#[tokio::test]
async fn go() {
    publishes("go", fetch::go()).await;
}

#[tokio::test]
async fn node() {
    publishes("node", fetch::node()).await;
}

#[tokio::test]
async fn rust() {
    publishes("rust", fetch::rust()).await;
}

#[tokio::test]
async fn kcat() {
    publishes("kcat", fetch::kcat()).await;
}

/// 50 entities' commands are applied, each on the partition of its key; a command that is sent once
/// more has no second effect and the same outcome.
async fn publishes(client: &str, snippet: Result<Snippet, String>) {
    let snippet = match snippet {
        Ok(snippet) => snippet,
        Err(why) => return say_skipped(client, &why),
    };
    let _turn = support::heavy();
    let bank = Bank::open(&format!("publishing-{client}"), PARTITIONS).await;
    let _worker = bank.worker();
    let outcomes = format!("{}.outcomes", bank.topic);
    wait_for(&outcomes, PATIENCE, || (topics::partition_count(&bank.cluster, &outcomes) > 0).then_some(()));

    let keys = keys();
    let mut said = snippet.open_accounts(&bank, &keys);
    assert_eq!(said.len(), keys.len(), "one line for each command: {said:?}");
    for line in &said {
        check_applied(&bank, line).await;
    }
    let first = said.swap_remove(0);
    let again = snippet.open_account_again(&bank, &first);
    assert_eq!(again["outcome"], first["outcome"], "the same id has the same outcome");
    assert_ne!(again["offset"], first["offset"], "it has been sent once more");

    // No dead letter, so nothing misrouted; one row and one effect for each id.
    bank.audit().await;
    let opened = bank.database.rows("select entity_id from processed_commands").await;
    let opened: BTreeSet<_> = opened.iter().filter_map(|row| row["entity_id"].as_str()).collect();
    let keys: BTreeSet<_> = keys.iter().map(String::as_str).collect();
    assert_eq!(opened, keys);
}

/// What was printed says that an account was opened, and the tables say the same.
async fn check_applied(bank: &Bank, line: &Value) {
    let outcome = &line["outcome"];
    assert_eq!(outcome["outcome"], "applied", "{line}");
    assert_eq!(outcome["command_id"], line["command_id"], "{line}");
    let key = outcome["entity_id"].as_str().expect("an entity id");
    assert_eq!(line["partition"], partition_of(key), "{line}");
    let id: Uuid = line["command_id"].as_str().and_then(|id| id.parse().ok()).expect("a command id");
    assert_eq!(id.get_version_num(), 7, "{line}");
    let row = format!(
        "processed_commands where command_id = '{id}' and entity_id = '{key}' and outcome = 'applied'
            and partition = {} and \"offset\" = {}",
        outcome["partition"], outcome["offset"]
    );
    assert_eq!(bank.database.count(&row).await, 1, "{line}");
}

/// Of every length modulo four, which is where murmur2 has its cases, and not only of ASCII letters.
fn keys() -> Vec<String> {
    let plain = (0..48).map(|number| format!("acct-{number}{}", "x".repeat(number % 9)));
    plain.chain(["acct-Zürich".to_owned(), "口座-東京".to_owned()]).collect()
}

/// As the Java client reckons it.
fn partition_of(key: &str) -> u32 {
    (murmur2::murmur2(key.as_bytes(), murmur2::KAFKA_SEED) & 0x7fff_ffff) % PARTITIONS.unsigned_abs()
}

/// Past the test harness, which keeps what a passing test prints to itself.
fn say_skipped(client: &str, why: &str) {
    let _ = writeln!(io::stderr(), "SKIPPED: docs/publishing for {client} was not run: {why}");
}

/// The document with each block under a `<!-- publishing/… -->` made of that file.
fn with_files(document: &str) -> String {
    let (mut made, mut rest) = (String::new(), document);
    while let Some((before, after)) = rest.split_once("<!-- publishing/") {
        let (file, after) = after.split_once(" -->\n").expect("the end of the comment");
        let (fence, after) = after.split_once('\n').expect("a code block");
        let (_, after) = after.split_once("\n```\n").expect("the end of the code block");
        let text = fs::read_to_string(docs().join("publishing").join(file)).expect("read a file that is shown");
        made += &format!("{before}<!-- publishing/{file} -->\n{fence}\n{text}```\n");
        rest = after;
    }
    made + rest
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}
