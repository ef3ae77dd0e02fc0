//! A bank with two partitions, one of which halts.

use std::collections::BTreeMap;

use serde_json::json;

use crate::support::bank::Bank;
use crate::support::halted::{Told, halted};
use crate::support::producer::Record;
use crate::support::worker::Worker;

pub const PARTITIONS: i32 = 2;

/// A bank whose accounts are open, and keys by the partition that they live on.
pub struct Scene {
    pub bank: Bank,
    pub keys: BTreeMap<i32, Vec<String>>,
}

impl Scene {
    /// Some commands of every partition are settled; no worker runs.
    pub async fn prepare(name: &str) -> Self {
        Self::prepare_on(Bank::open(name, PARTITIONS).await).await
    }

    /// The same of another bank.
    pub async fn prepare_on(bank: Bank) -> Self {
        let scene = Self { keys: open_accounts(&bank), bank };
        scene.deposit(0, 10);
        scene.deposit(1, 10);
        let mut worker = scene.bank.worker();
        scene.bank.audit().await;
        assert_eq!(worker.sigterm_and_wait().code(), Some(0));
        scene
    }

    /// Deposits to accounts of one partition.
    pub fn deposit(&self, partition: i32, count: usize) {
        let keys = self.keys[&partition].iter().cycle().take(count);
        let deposit = |key: &String| Record::command("account.deposit", key, &json!({ "amount": 1 }));
        self.bank.send(&keys.map(deposit).collect::<Vec<_>>());
    }

    pub async fn next_offset(&self, partition: i32) -> i64 {
        let sql = format!("select next_offset from partitions where partition = {partition}");
        self.bank.database.number(&sql).await.expect("a cursor")
    }

    pub async fn token(&self, partition: i32) -> i64 {
        let sql = format!("select fencing_token from partitions where partition = {partition}");
        self.bank.database.number(&sql).await.expect("a token")
    }

    pub async fn halted_code(&self, partition: i32) -> Option<String> {
        let sql = format!("select halted_code from partitions where partition = {partition}");
        let row = self.bank.database.rows(&sql).await.pop()?;
        row["halted_code"].as_str().map(str::to_owned)
    }

    /// The partition halts, for that reason; the worker stays ready and alive.
    pub async fn halts(&self, partition: i32, code: &str, worker: &Worker) -> Told {
        let told = halted(&self.bank, worker, partition).await;
        assert_eq!(told.code, code, "{told:?}");
        let said = |path| worker.get(path).map(|(code, _)| code);
        assert_eq!((said("/readyz"), said("/healthz")), (Some(200), Some(200)));
        told
    }

    /// The other partition settles what comes.
    pub async fn goes_on(&self, partition: i32) {
        self.deposit(partition, 10);
        self.bank.partition_settled(partition).await;
        assert_eq!(self.halted_code(partition).await, None);
    }

    /// Types what the halt says, with a reason.
    pub async fn resolve(&self, partition: i32, told: &Told) {
        let audited =
            format!("operator_actions where action = 'resume' and partition = {partition} and reason = 'tested'");
        let before = self.bank.database.count(&audited).await;
        self.type_it(told);
        assert_eq!(self.bank.database.count(&audited).await, before + 1);
    }

    pub fn type_it(&self, told: &Told) {
        let words = told.resolve.split_whitespace().skip(1);
        let words: Vec<&str> = words.map(|word| if word == "…" { "tested" } else { word }).collect();
        let said = self.bank.options.run_verb(&words);
        assert_eq!(said.code, Some(0), "{told:?}: {said:?}");
    }

    /// The plain resume is refused: the halt asks a question.
    pub fn asks_for_a_choice(&self, partition: i32) {
        let at = format!("{}:{partition}", self.bank.topic);
        let said = self.bank.options.run_verb(&["resume", &at, "--reason", "hasty"]);
        assert_eq!(said.code, Some(2), "{said:?}");
    }

    /// Asks for a choice, and goes on once it is made.
    pub async fn resumes(&self, partition: i32, told: &Told) {
        self.asks_for_a_choice(partition);
        self.resolve(partition, told).await;
        self.goes_on(partition).await;
    }

    pub async fn update(&self, partition: i32, set: &str) {
        let sql = format!("update partitions set {set} where partition = {partition}");
        self.bank.database.execute(&sql).await;
    }
}

/// Twenty accounts, opened; by partition.
fn open_accounts(bank: &Bank) -> BTreeMap<i32, Vec<String>> {
    let names: Vec<String> = (0..20).map(|n| format!("acct-{n}")).collect();
    let open = |name: &String| Record::command("account.open", name, &json!({ "initial": 100 }));
    let opens: Vec<Record> = names.iter().map(open).collect();
    let mut keys: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    for (name, stored) in names.into_iter().zip(bank.producer.send(&bank.topic, &opens)) {
        keys.entry(stored.partition).or_default().push(name);
    }
    keys
}
