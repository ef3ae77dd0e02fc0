//! The bank with everything it stands on: topic, schema, workers, traffic, and the audit of it all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use fastrand::Rng;
use serde_json::json;

use super::books::{Balances, Books};
use super::kafka::Cluster;
use super::patience::{PATIENCE, wait_until};
use super::postgres::Database;
use super::producer::{Producer, Record};
use super::worker::{Worker, WorkerOptions, stock_binary};
use super::{consumer, kafka, topics};

/// A topic of commands, a migrated schema, and how their workers are configured.
pub struct Bank {
    pub cluster: Cluster,
    pub database: Database,
    pub topic: String,
    pub options: WorkerOptions,
    pub producer: Producer,
}

impl Bank {
    /// On the shared broker and the shared Postgres.
    pub async fn open(name: &str, partitions: i32) -> Self {
        let database = Database::fresh(&name.replace('-', "_")).await;
        Self::open_on(kafka::shared(), database, name, partitions).await
    }

    /// On another broker or another Postgres.
    pub async fn open_on(cluster: Cluster, database: Database, name: &str, partitions: i32) -> Self {
        let topic = topics::fresh(&cluster, name, partitions).await;
        let options = WorkerOptions::new(&cluster, &database, &topic);
        Self::with(cluster, database, topic, options)
    }

    /// An example of commands in SQL, on the shared broker and the shared Postgres.
    pub async fn in_sql(example: &str, file: &str, entity: &str, partitions: i32) -> Self {
        let file = super::example(example).join(file);
        let name = format!("{example}-{entity}");
        let database = Database::fresh(&name.replace('-', "_")).await;
        let cluster = kafka::shared();
        let topic = topics::fresh(&cluster, &name, partitions).await;
        let options = WorkerOptions::new(&cluster, &database, &topic).in_sql(entity, &[file]);
        Self::with(cluster, database, topic, options)
    }

    /// With these options, migrated.
    pub fn with(cluster: Cluster, database: Database, topic: String, options: WorkerOptions) -> Self {
        let migrated = options.run_verb(&["migrate"]);
        assert_eq!(migrated.code, Some(0), "{migrated:?}");
        let producer = Producer::new(&cluster);
        Self { cluster, database, topic, options, producer }
    }

    /// Starts a worker and waits until it is ready.
    pub fn worker(&self) -> Worker {
        let mut worker = Worker::start(&self.options);
        worker.wait_ready();
        worker
    }

    pub fn send(&self, records: &[Record]) {
        self.producer.send(&self.topic, records);
    }

    /// Sends from a thread of its own; it ends when all are in the log.
    pub fn send_in_background(&self, records: Vec<Record>) -> JoinHandle<()> {
        let (cluster, topic) = (self.cluster.clone(), self.topic.clone());
        thread::spawn(move || {
            Producer::new(&cluster).send(&topic, &records);
        })
    }

    /// How many offsets are settled, over all partitions.
    pub async fn settled_count(&self) -> i64 {
        let sum = "select sum(next_offset)::bigint from partitions";
        self.database.number(sum).await.unwrap_or(0)
    }

    /// Waits until everything that is in the log now is settled and published.
    pub async fn settled(&self) {
        for partition in 0..topics::partition_count(&self.cluster, &self.topic) {
            self.partition_settled(partition).await;
        }
    }

    /// The same for one partition.
    pub async fn partition_settled(&self, partition: i32) {
        let topic = &self.topic;
        let (_, end) = topics::watermarks(&self.cluster, topic, partition);
        let done = format!(
            "partitions where topic = '{topic}' and partition = {partition}
                and next_offset = {end} and published_offset = {end}"
        );
        let what = format!("{topic}:{partition} to be settled and published up to {end}");
        wait_until(what, PATIENCE, async || end == 0 || self.database.count(&done).await == 1).await;
    }

    /// Waits until `count` more offsets are settled than were.
    pub async fn settled_beyond(&self, count: i64) {
        wait_until(format!("{count} settled offsets"), PATIENCE, async || self.settled_count().await > count).await;
    }

    /// The owner of a partition, as its row names it.
    pub async fn owner(&self, partition: i32) -> Option<String> {
        let sql = format!("select owner from partitions where partition = {partition}");
        let row = self.database.rows(&sql).await.pop()?;
        row["owner"].as_str().map(str::to_owned)
    }

    /// Everything is settled and published, and tables and topics say exactly what the log demands.
    pub async fn audit(&self) {
        self.settled().await;
        let books = Books::reckon(&consumer::read_all(&self.cluster, &self.topic));
        let balances = if self.options.program == stock_binary() { Balances::InTable } else { Balances::InState };
        books.check_tables(&self.database, balances).await;
        let published = |kind| consumer::read_all(&self.cluster, &format!("{}.{kind}", self.topic));
        books.check_outcomes(&published("outcomes"));
        books.check_events(&published("events"));
        assert_eq!(self.database.count("partitions where halted_code is not null").await, 0);
    }
}

/// Commands for some accounts, one in twenty a repeat of an earlier one. The same seed gives the
/// same commands, but for their ids.
pub struct Traffic {
    random: Rng,
    accounts: usize,
    /// Some that were sent, to be sent again: young ones and, ever fewer, old ones.
    repeatable: Vec<Record>,
}

impl Traffic {
    const REPEATABLE_MAX: usize = 4096;

    pub fn new(seed: u64, accounts: usize) -> Self {
        Self { random: Rng::with_seed(seed), accounts, repeatable: Vec::new() }
    }

    pub fn commands(&mut self, count: usize) -> Vec<Record> {
        (0..count).map(|_| self.command()).collect()
    }

    fn command(&mut self) -> Record {
        if !self.repeatable.is_empty() && self.random.u32(..100) < 5 {
            return self.repeatable[self.random.usize(..self.repeatable.len())].clone();
        }
        let key = format!("acct-{}", self.random.usize(..self.accounts));
        // 0 is refused by the business rule
        let amount = self.random.i64(0..100);
        let record = match self.random.u32(..10) {
            0 => Record::command("account.open", &key, &json!({ "initial": amount })),
            1..=5 => Record::command("account.deposit", &key, &json!({ "amount": amount })),
            _ => Record::command("account.withdraw", &key, &json!({ "amount": amount })),
        };
        self.remember(record.clone());
        record
    }

    fn remember(&mut self, record: Record) {
        if self.repeatable.len() < Self::REPEATABLE_MAX {
            self.repeatable.push(record);
        } else {
            self.repeatable[self.random.usize(..Self::REPEATABLE_MAX)] = record;
        }
    }
}

/// A steady stream of commands from a thread of its own, until it is ended.
pub struct Stream {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Stream {
    /// The pace: so many commands, then a pause.
    const COMMANDS: usize = 20;
    const PAUSE: Duration = Duration::from_millis(20);

    pub fn start(bank: &Bank, seed: u64) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let (topic, producer) = (bank.topic.clone(), Producer::new(&bank.cluster));
        let mut traffic = Traffic::new(seed, 200);
        let until = Arc::clone(&ended);
        let thread = thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                producer.send(&topic, &traffic.commands(Self::COMMANDS));
                thread::sleep(Self::PAUSE);
            }
        });
        Self { ended, thread: Some(thread) }
    }

    /// Returns when the last command is in the log.
    pub fn end(mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the stream of commands");
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // a failing test must not leave its stream behind
        self.ended.store(true, Ordering::Relaxed);
    }
}
