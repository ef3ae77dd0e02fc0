//! The bank with everything it stands on: topic, schema, workers, traffic, and the audit of it all.

use super::kafka::Cluster;
use super::patience::{PATIENCE, wait_until};
use super::postgres::Database;
use super::producer::{Producer, Record};
use super::worker::{Worker, WorkerOptions};
use super::{kafka, topics};

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
}
