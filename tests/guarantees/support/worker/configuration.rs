//! The configuration file that a test's worker gets.

use std::net::SocketAddr;
use std::path::PathBuf;

use toml::{Table, Value};

use crate::support::kafka::Cluster;
use crate::support::postgres::{Database, tables_schema};
use crate::support::scratch::unique;

/// What a worker is started with. Two workers of one test share it: same group, same schema.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// The bank in Rust, or the stock binary.
    pub program: PathBuf,
    pub cluster: Cluster,
    pub database_url: String,
    pub schema: String,
    pub group_id: String,
    /// Name and entity type of each command topic.
    pub topics: Vec<(String, String)>,
    /// The topics' policy; the default if it is empty.
    pub on_failure: String,
    /// For `[kafka.properties]`; win over the quick ones chosen here.
    pub properties: Vec<(String, String)>,
    /// Any further keys, merged over the generated ones: `[worker]`, `[deduplication]`.
    pub settings: Table,
    /// Added to the worker's environment.
    pub environment: Vec<(String, String)>,
}

impl WorkerOptions {
    /// Accounts on one topic, a fresh group.
    pub fn new(cluster: &Cluster, database: &Database, topic: &str) -> Self {
        Self {
            program: super::bank(),
            cluster: cluster.clone(),
            database_url: database.url.clone(),
            schema: database.schema.clone(),
            group_id: unique("group"),
            topics: vec![(topic.to_owned(), "account".to_owned())],
            on_failure: String::new(),
            properties: Vec::new(),
            settings: Table::new(),
            environment: Vec::new(),
        }
    }

    /// The stock binary with commands in SQL on this entity type; their tables are in the schema of
    /// the test.
    pub fn in_sql(self, entity: &str, files: &[PathBuf]) -> Self {
        self.in_sql_of(entity).declared(files)
    }

    /// The stock binary, and this entity type on its topic.
    pub fn in_sql_of(mut self, entity: &str) -> Self {
        self.program = super::stock_binary();
        self.topics[0].1 = entity.to_owned();
        self
    }

    /// Files of commands, or of writes for handlers in Rust.
    pub fn declared(mut self, files: &[PathBuf]) -> Self {
        let files = files.iter().map(|file| Value::String(file.display().to_string())).collect();
        self.settings.insert("commands".to_owned(), Value::Array(files));
        let database = table([("tables_schema", &*tables_schema(&self.schema))]);
        merge(&mut self.settings, Table::from_iter([("database".to_owned(), Value::Table(database))]));
        self
    }

    /// By way of a proxy, or to another database.
    pub fn database_url(mut self, url: impl Into<String>) -> Self {
        self.database_url = url.into();
        self
    }

    pub fn property(mut self, name: &str, value: &str) -> Self {
        self.properties.push((name.to_owned(), value.to_owned()));
        self
    }

    /// TOML text merged over the generated configuration: `setting("[worker]\nbatch_commands_max =
    /// 10")`.
    pub fn setting(mut self, text: &str) -> Self {
        let more = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        merge(&mut self.settings, more);
        self
    }

    pub fn on_failure(mut self, policy: &str) -> Self {
        policy.clone_into(&mut self.on_failure);
        self
    }

    pub(super) fn to_toml(&self, listen: SocketAddr) -> String {
        let topic = |(name, entity): &(String, String)| {
            let mut topic = table([("name", name.as_str()), ("entity", entity)]);
            if !self.on_failure.is_empty() {
                topic.insert("on_failure".to_owned(), Value::String(self.on_failure.clone()));
            }
            topic
        };
        let mut kafka =
            table([("bootstrap_servers", self.cluster.bootstrap_servers.as_str()), ("group_id", &self.group_id)]);
        kafka.insert("properties".to_owned(), Value::Table(self.kafka_properties()));
        let mut config = Table::new();
        let database = [("url", self.database_url.as_str()), ("schema", &self.schema)];
        config.insert("database".to_owned(), Value::Table(table(database)));
        config.insert("kafka".to_owned(), Value::Table(kafka));
        let topics = self.topics.iter().map(topic).map(Value::Table).collect();
        config.insert("topics".to_owned(), Value::Array(topics));
        // most of these tests send mostly nonsense
        let calm = Table::from_iter([("dead_letter_flood_percent".to_owned(), Value::Integer(100))]);
        config.insert("worker".to_owned(), Value::Table(calm));
        config.insert("http".to_owned(), Value::Table(table([("listen", &*listen.to_string())])));
        merge(&mut config, self.settings.clone());
        toml::to_string(&config).expect("a table is TOML")
    }

    /// A dead worker's partitions shall move within seconds, not within the default of 45 s.
    fn kafka_properties(&self) -> Table {
        let mut properties = table([("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "500")]);
        for (name, value) in self.cluster.properties.iter().chain(&self.properties) {
            properties.insert(name.clone(), Value::String(value.clone()));
        }
        properties
    }
}

fn table<const N: usize>(entries: [(&str, &str); N]) -> Table {
    entries.into_iter().map(|(name, value)| (name.to_owned(), Value::String(value.to_owned()))).collect()
}

/// Tables are merged key by key; anything else is replaced.
fn merge(into: &mut Table, from: Table) {
    for (name, value) in from {
        match (into.get_mut(&name), value) {
            (Some(Value::Table(inner)), Value::Table(value)) => merge(inner, value),
            (_, value) => {
                into.insert(name, value);
            }
        }
    }
}
