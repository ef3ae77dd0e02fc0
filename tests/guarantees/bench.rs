//! `bench`: what is measured is what was sent, the books balance, and nothing is left behind.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use solewriter::local::guarded::Program;

use crate::support;
use crate::support::kafka;
use crate::support::patience::PATIENCE;
use crate::support::postgres::{Database, shared_url};
use crate::support::scratch::Scratch;
use crate::support::worker::stock_binary;

/// A dead worker's partitions shall move within seconds.
const PROPERTIES: &str = "\"session.timeout.ms\" = \"2000\"\n\"heartbeat.interval.ms\" = \"300\"\n";

/// Runs a part of `bench` on the Kafka and the Postgres of the tests. What it has measured.
fn measured(scratch: &Scratch, arguments: &[&str]) -> Value {
    let config = scratch.path().join("solewriter.toml");
    let servers = kafka::shared().bootstrap_servers;
    let url = shared_url();
    let written = format!(
        "[database]\nurl = {url:?}\n[kafka]\nbootstrap_servers = {servers:?}\n[kafka.properties]\n{PROPERTIES}"
    );
    fs::write(&config, written).expect("write the configuration");
    let command = [stock_binary(), "bench".into()].into_iter().chain(arguments.iter().map(PathBuf::from));
    let command = command.chain(["-o".into(), "json".into(), "--config".into(), config]);
    let (stdout, stderr) = (scratch.path().join("stdout"), scratch.path().join("stderr"));
    let program = Program {
        directory: scratch.path().to_owned(),
        stdout: stdout.clone(),
        stderr: stderr.clone(),
        ..Program::new(command)
    };
    let ended = program.spawn().expect("run the benchmark").wait(PATIENCE * 5).expect("wait for the benchmark");
    let [stdout, stderr] = [stdout, stderr].map(|file| fs::read_to_string(file).unwrap_or_default());
    assert_eq!(ended.and_then(|status| status.code()), Some(0), "{stdout}{stderr}");
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"))
}

async fn nothing_is_left() {
    let database = Database::fresh("bench").await;
    assert_eq!(database.count("pg_namespace where starts_with(nspname::text, 'solewriter_bench_')").await, 0);
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_a_pace_is_measured_until_it_is_durable_and_until_its_outcome() {
    let _turn = support::heavy();
    let scratch = Scratch::new("latency");
    let short = ["--rate", "200,400", "--for", "2s", "--warm-up", "1s", "--accounts", "100"];
    let measured = measured(&scratch, &[&["latency", "--svg", "latency.svg"], &short[..]].concat());
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
    let picture = fs::read_to_string(scratch.path().join("latency.svg")).expect("a picture");
    assert!(picture.contains("durable, 200/s") && picture.contains("outcome, 400/s"), "{picture}");
    nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_that_the_worker_has_not_seen_are_settled_as_well() {
    let _turn = support::heavy();
    let scratch = Scratch::new("latency");
    let short = ["latency", "--cold", "--accounts", "60000", "--rate", "200", "--for", "2s", "--warm-up", "1s"];
    for handlers in ["rust", "sql"] {
        let measured = measured(&scratch, &[&short[..], &["--handlers", handlers]].concat());
        assert_eq!((&measured["void"], &measured["cold"]), (&Value::Null, &Value::Bool(true)), "{handlers}");
    }
    nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_s_partitions_have_no_writer_until_its_session_has_timed_out() {
    let _turn = support::heavy();
    let scratch = Scratch::new("take-over");
    let measured = measured(&scratch, &["take-over", "--times", "1", "--rate", "200", "--svg", "take-over.svg"]);
    assert_eq!((&measured["void"], number(&measured["session_timeout_ms"])), (&Value::Null, 2_000.0));
    let ways = measured["take_overs"].as_array().expect("a list");
    let seconds = |way: &str| {
        let found = ways.iter().find(|found| found["after"] == way).unwrap_or_else(|| panic!("{way}: {measured}"));
        number(&found["seconds_without_a_writer"]["median"])
    };
    assert!(seconds("SIGTERM") > 0.0);
    // less a heartbeat: from the last one on the session counts
    assert!(seconds("kill -9") > 1.5 && seconds("SIGSTOP") > 1.5, "{measured}");
    let picture = fs::read_to_string(scratch.path().join("take-over.svg")).expect("a picture");
    assert!(picture.contains("kill -9") && picture.contains("SIGSTOP"), "{picture}");
    nothing_is_left().await;
}
