//! P6, for those who are called at night: `status` says what a partition is doing, and why it does
//! not go on.

use serde_json::Value;

use crate::support;
use crate::support::bank::Bank;
use crate::support::commands::open;
use crate::support::patience::{PATIENCE, wait_until};

impl Bank {
    /// What `status` says of partition 0.
    fn status(&self) -> Value {
        let said = self.options.run_verb(&["status", "-o", "json"]);
        assert_eq!(said.code, Some(0), "{said:?}");
        let status: Value = serde_json::from_str(&said.stdout).expect("one JSON document");
        status["partitions"][0].clone()
    }
}

/// The row still names the dead owner; the consumer group does not.
#[tokio::test]
async fn a_partition_whose_owner_died_is_shown_as_owned_by_nobody() {
    let _turn = support::heavy();
    let mut bank = Bank::open("nobody", 1).await;
    bank.options = bank.options.clone().property("session.timeout.ms", "2000");
    let mut worker = bank.worker();
    bank.send(&[open("first", 1)]);
    bank.settled().await;
    assert_eq!(bank.status()["state"], "running");

    worker.kill9();
    bank.send(&[open("second", 1)]);
    wait_until("nobody to own the partition", PATIENCE, async || bank.status()["state"] == "claiming").await;
    let status = bank.status();
    assert_eq!(status["lag_records"], 1, "{status}");
    assert!(status["lag_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{status}");
    let table = bank.options.run_verb(&["status"]).stdout;
    assert!(table.contains("has no live owner"), "{table}");

    let _worker = bank.worker();
    bank.audit().await;
    let status = bank.status();
    assert_eq!((&status["state"], &status["lag_records"]), (&"running".into(), &0.into()), "{status}");
}
