//! A halt, as each of the four that tell of it says: row, metric, log, `status`.

use serde_json::Value;

use super::bank::Bank;
use super::patience::{PATIENCE, wait_until};
use super::worker::Worker;

/// What everybody says of a halt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub code: String,
    pub detail: String,
    pub resolve: String,
}

/// Waits until a partition is halted and all four say the same of it.
pub async fn halted(bank: &Bank, worker: &Worker, partition: i32) -> Told {
    let what = format!("a halt of {}:{partition}", bank.topic);
    wait_until(&what, PATIENCE, async || in_row(bank, partition).await.is_some()).await;
    let told = in_row(bank, partition).await.expect("it is halted");
    wait_until("the metrics to say so", PATIENCE, async || in_metrics(worker, partition, &told)).await;
    wait_until("the log to say so", PATIENCE, async || in_log(bank, worker, partition, &told)).await;
    let document = bank.options.run_verb(&["status", "-o", "json"]);
    assert_eq!(document.code, Some(0), "{document:?}");
    let status: Value = serde_json::from_str(&document.stdout).expect("JSON");
    let rows = status["partitions"].as_array().expect("partitions");
    let row = rows.iter().find(|row| row["partition"] == partition).expect("its row");
    assert_eq!((row["state"].as_str(), told_by(&row["halt"])), (Some("halted"), Some(told.clone())), "{row}");
    let Told { code, detail, resolve } = &told;
    let lines = format!("{}:{partition} halted, {code}: {detail}\n  resolve: {resolve}\n", bank.topic);
    let shown = bank.options.run_verb(&["status"]).stdout;
    assert!(shown.contains(&lines), "{shown}");
    told
}

async fn in_row(bank: &Bank, partition: i32) -> Option<Told> {
    let sql = format!(
        "select halted_code as code, halted_detail as detail, halted_resolve as resolve
           from partitions where partition = {partition} and halted_code is not null"
    );
    told_by(bank.database.rows(&sql).await.first()?)
}

fn in_metrics(worker: &Worker, partition: i32, told: &Told) -> bool {
    let (metrics, partition) = (worker.metrics(), partition.to_string());
    let is =
        |name: &str, label: &str, value: &str| metrics.sum(name, &[("partition", &partition), (label, value)]) == 1.0;
    is("solewriter_partition_state", "state", "halted") && is("solewriter_partition_halted", "code", &told.code)
}

fn in_log(bank: &Bank, worker: &Worker, partition: i32, told: &Told) -> bool {
    let source = format!("{}:{partition}", bank.topic);
    let output = worker.output();
    let mut lines = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.any(|line| line["source"] == *source && told_by(&line).as_ref() == Some(told))
}

fn told_by(value: &Value) -> Option<Told> {
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    Some(Told { code: text("code")?, detail: text("detail")?, resolve: text("resolve")? })
}
