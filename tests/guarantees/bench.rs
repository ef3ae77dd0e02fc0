//! `bench`: what is measured is what was sent, the books balance, and nothing is left behind.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use solewriter::local::guarded::{Guarded, Program};

use crate::support;
use crate::support::kafka;
use crate::support::patience::{PATIENCE, wait_until};
use crate::support::postgres::{Database, shared_url};
use crate::support::scratch::Scratch;
use crate::support::topics;
use crate::support::worker::stock_binary;

/// A dead worker's partitions shall move within seconds.
const PROPERTIES: &str = "\"session.timeout.ms\" = \"2000\"\n\"heartbeat.interval.ms\" = \"300\"\n";

/// Each row has a start, a stop and a deadline of its own.
const BENCH_PATIENCE: Duration = PATIENCE.saturating_mul(5);

/// A running `bench`, on the Kafka and the Postgres of the tests.
struct Bench {
    process: Guarded,
    scratch: Scratch,
}

impl Bench {
    fn start(arguments: &[&str]) -> Self {
        let scratch = Scratch::new("bench");
        let config = scratch.path().join("solewriter.toml");
        let servers = kafka::shared().bootstrap_servers;
        let url = shared_url();
        let written = format!(
            "[database]\nurl = {url:?}\n[kafka]\nbootstrap_servers = {servers:?}\n[kafka.properties]\n{PROPERTIES}"
        );
        fs::write(&config, written).expect("write the configuration");
        let command = [stock_binary(), "bench".into()].into_iter().chain(arguments.iter().map(PathBuf::from));
        let command = command.chain(["-o".into(), "json".into(), "--config".into(), config]);
        let program = Program {
            directory: scratch.path().to_owned(),
            stdout: scratch.path().join("stdout"),
            stderr: scratch.path().join("stderr"),
            ..Program::new(command)
        };
        Self { process: program.spawn().expect("run the benchmark"), scratch }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.scratch.path().join(name)).unwrap_or_default()
    }

    /// What it has measured, when it has ended with this code.
    fn ends_with(&mut self, code: i32) -> Value {
        let ended = self.process.wait(BENCH_PATIENCE).expect("wait for the benchmark");
        let (stdout, stderr) = (self.read("stdout"), self.read("stderr"));
        assert_eq!(ended.and_then(|status| status.code()), Some(code), "{stdout}{stderr}");
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
    }
}

async fn nothing_is_left() {
    let database = Database::fresh("bench").await;
    assert_eq!(database.count("pg_namespace where starts_with(nspname::text, 'solewriter_bench_')").await, 0);
    assert_eq!(
        database.count("pg_database where shobj_description(oid, 'pg_database') like '%solewriter_bench_%'").await,
        0
    );
    let mut topics = topics::names(&kafka::shared());
    topics.retain(|topic| topic.starts_with("solewriter-bench-"));
    assert!(topics.is_empty(), "{topics:?}");
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_a_pace_is_measured_until_it_is_durable_and_until_its_outcome() {
    let _turn = support::alone();
    let short = ["--rate", "200,400", "--for", "2s", "--warm-up", "1s", "--accounts", "100"];
    let mut bench = Bench::start(&[&["latency", "--svg", "latency.svg"], &short[..]].concat());
    let measured = bench.ends_with(0);
    assert_eq!(measured["void"], Value::Null);
    let paces = measured["latencies"].as_array().expect("a list");
    let samples: Vec<f64> = paces.iter().map(|pace| number(&pace["samples"])).collect();
    assert_eq!(samples, [400.0, 800.0]);
    for pace in paces {
        // an outcome is published after the commit
        for percentile in ["p50", "p99", "p99_9", "max"] {
            let [durable, outcome] = ["durable_ms", "outcome_ms"].map(|wait| number(&pace[wait][percentile]));
            assert!(0.0 < durable && durable <= outcome, "{percentile}: {pace}");
        }
    }
    let picture = bench.read("latency.svg");
    assert!(picture.contains("durable, 200/s") && picture.contains("outcome, 400/s"), "{picture}");
    nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_that_the_worker_has_not_seen_are_settled_as_well() {
    let _turn = support::alone();
    let short = ["latency", "--cold", "--accounts", "60000", "--rate", "200", "--for", "2s", "--warm-up", "1s"];
    for handlers in ["rust", "sql"] {
        let measured = Bench::start(&[&short[..], &["--handlers", handlers]].concat()).ends_with(0);
        assert_eq!((&measured["void"], &measured["cold"]), (&Value::Null, &Value::Bool(true)), "{handlers}");
    }
    nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_s_partitions_have_no_writer_until_its_session_has_timed_out() {
    let _turn = support::alone();
    let mut bench = Bench::start(&["take-over", "--times", "1", "--rate", "200", "--svg", "take-over.svg"]);
    let measured = bench.ends_with(0);
    assert_eq!((&measured["void"], number(&measured["session_timeout_ms"])), (&Value::Null, 2_000.0));
    let ways = measured["take_overs"].as_array().expect("a list");
    let seconds = |way: &str| {
        let found = ways.iter().find(|found| found["after"] == way).unwrap_or_else(|| panic!("{way}: {measured}"));
        number(&found["seconds_without_a_writer"]["median"])
    };
    assert!((f64::MIN_POSITIVE..seconds("kill -9")).contains(&seconds("SIGTERM")), "{measured}");
    // less a heartbeat: from the last one on the session counts
    assert!(seconds("kill -9") > 1.5 && seconds("SIGSTOP") > 1.5, "{measured}");
    let picture = bench.read("take-over.svg");
    assert!(picture.contains("kill -9") && picture.contains("SIGSTOP"), "{picture}");
    nothing_is_left().await;
}

fn row<'t>(table: &'t Value, name: &str) -> &'t Value {
    let rows = table["rows"].as_array().expect("rows");
    rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no row {name}: {table:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_of_the_table_is_measured_with_balanced_books() {
    let _turn = support::alone();
    let table = Bench::start(&["--quick", "--commands", "20000", "--rounds", "1"]).ends_with(0);
    let rows = table["rows"].as_array().expect("rows");
    let names: Vec<&str> = rows.iter().filter_map(|row| row["name"].as_str()).collect();
    assert_eq!(names, ["consume", "copy", "commit", "per-command", "per-poll", "rust", "sql"]);
    for row in rows {
        assert!(row["void"].is_null(), "{row:#}");
        assert!(number(&row["commands_per_second"]["median"]) > 0.0, "{row:#}");
        assert!(row["cpu_seconds_per_100k"]["postgres"].is_object(), "Postgres runs on this machine: {row:#}");
    }
    // a batch is a transaction, and so is each command of the other; how many of the few fall between two
    // outcomes depends on how far outcomes are behind
    let transactions = |name| number(&row(&table, name)["transaction_ids_per_command"]["median"]);
    assert!(transactions("per-command") > 10.0 * transactions("rust"), "{table:#}");
    assert_eq!(number(&row(&table, "per-command")["ratio_to_per_command"]), 1.0);
    assert_eq!(number(&row(&table, "copy")["share_of_copy"]), 1.0);
    assert!(number(&table["machine"]["cores"]) > 0.0, "{table:#}");
    nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_book_voids_its_row() {
    let _turn = support::alone();
    let database = Database::fresh("bench").await;
    // this row settles a hundredth of them
    let mut bench = Bench::start(&["--commands", "300000", "--rounds", "1", "--rows", "per-command"]);
    let mut accounts = None;
    wait_until("the first account", PATIENCE, async || {
        let made = "select n.nspname as schema from pg_class c join pg_namespace n on n.oid = c.relnamespace
                     where starts_with(n.nspname::text, 'solewriter_bench_') and c.relname = 'accounts'";
        let made = database.rows(made).await;
        accounts = made.first().and_then(|row| Some(format!("{}.accounts", row["schema"].as_str()?)));
        match &accounts {
            Some(accounts) => database.count(accounts).await > 0,
            None => false,
        }
    })
    .await;
    let accounts = accounts.expect("a table");
    let first = format!("(select min(account_id) from {accounts})");
    database.execute(&format!("update {accounts} set balance = balance + 1 where account_id = {first}")).await;
    let table = bench.ends_with(3);
    let row = row(&table, "per-command");
    assert!(row["void"].as_str().is_some_and(|void| !void.is_empty()), "{row:#}");
    assert!(row["ratio_to_per_command"].is_null(), "{row:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_point_of_a_sweep_is_measured_with_balanced_books() {
    let _turn = support::alone();
    let short = ["--values", "0,50", "--commands", "10000", "--rounds", "1", "--svg", "repeats.svg"];
    let mut bench = Bench::start(&[&["sweep", "duplicates"], &short[..]].concat());
    let sweep = bench.ends_with(0);
    let points = sweep["points"].as_array().expect("points");
    assert_eq!(points.len(), 2, "{sweep:#}");
    for point in points {
        assert!(point["void"].is_null() && number(&point["commands_per_second"]["median"]) > 0.0, "{point:#}");
    }
    assert!(bench.read("repeats.svg").contains("</svg>"));
    nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_run_again_and_the_waits_beside_that_and_beside_checkpoints_are_measured() {
    let _turn = support::alone();
    let short = ["--pace", "200", "--for", "2s", "--partitions", "2"];
    let verify = ["verify", "--commands", "4000", "--rounds", "1", "--rate", "1000"];
    let measured = Bench::start(&[&verify[..], &short].concat()).ends_with(0);
    assert_eq!(measured["void"], Value::Null);
    assert!(number(&measured["verified_to_live"]) > 0.0, "{measured}");
    let ways = measured["beside"].as_array().expect("a list");
    let records: Vec<f64> = ways.iter().map(|way| number(&way["records_per_second"])).collect();
    assert!(records.len() == 3 && records[0] == 0.0 && records[1] > 0.0 && records[2] > 0.0, "{measured}");
    assert!(records[1] <= 1_000.0, "no more than the limit: {measured}");

    let checkpoint = ["checkpoint", "--accounts", "2000"];
    let measured = Bench::start(&[&checkpoint[..], &short].concat()).ends_with(0);
    assert_eq!(measured["void"], Value::Null);
    assert!(!measured["checkpoint_seconds"].as_array().expect("a list").is_empty(), "{measured}");
    assert!(number(&measured["beside"]["durable_ms"]["p99"]) > 0.0, "{measured}");
    nothing_is_left().await;
}
