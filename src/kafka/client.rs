//! Client settings. Everything that solewriter relies on is set here, explicitly;
//! the configuration refuses to change those.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;

use crate::config;
use crate::config::Partitioner;

/// Where the brokers are, and how to speak with them.
#[derive(Clone)]
pub struct Client {
    /// `host:port,…`
    pub bootstrap_servers: String,
    /// The consumer group.
    pub group_id: String,
    /// Names this process in the broker's logs and quotas.
    pub client_id: String,
    /// Any librdkafka setting that solewriter does not own.
    pub properties: BTreeMap<String, String>,
}

impl Client {
    /// As configured.
    ///
    /// # Errors
    /// If nobody said where the brokers are.
    pub fn new(kafka: &config::Kafka, client_id: &str) -> Result<Self, config::Error> {
        Ok(Self {
            bootstrap_servers: kafka.require_bootstrap_servers()?.to_owned(),
            group_id: kafka.group_id.clone(),
            client_id: client_id.to_owned(),
            properties: kafka.properties.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        })
    }
}

/// How old may be what an inspector knows of a topic: milliseconds.
const METADATA_MS_MAX: &str = "5000";
/// What one answer of the broker may hold, compressed: bytes.
const FETCH_BYTES_MAX: u64 = 1_048_576;

/// Settings that mean something to consumers only: a producer warns of each.
const CONSUMER_ONLY: &[&str] = &[
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "max.poll.interval.ms",
    "group.",
    "fetch.",
    "max.partition.fetch.bytes",
    "queued.",
    "check.crcs",
];

/// And to producers only.
const PRODUCER_ONLY: &[&str] = &[
    "compression.",
    "queue.buffering.",
    "batch.",
    "request.required.acks",
    "request.timeout.ms",
    "retry.backoff",
    "sticky.partitioning.linger.ms",
    "transaction",
];

/// A batch of commands stays below the limit that brokers have by default
/// (1,048,588 bytes), so that none is refused for its neighbours. Bytes.
const COMMAND_BATCH_BYTES_MAX: usize = 1_000_000;

/// What the client itself refuses to send: 64 MiB.
const RECORD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Each as it hashes a key; what has none goes anywhere.
fn librdkafka_name(partitioner: Partitioner) -> &'static str {
    match partitioner {
        Partitioner::Murmur2 => "murmur2_random",
        Partitioner::Crc32 => "consistent_random",
        Partitioner::Fnv1a => "fnv1a_random",
    }
}

impl Client {
    fn base(&self, foreign: &[&str]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap_servers)
            .set("client.id", &self.client_id)
            .set("socket.keepalive.enable", "true")
            .set("socket.nagle.disable", "true")
            // librdkafka waits up to 10 s between attempts by default
            .set("reconnect.backoff.max.ms", "2000");
        for (key, value) in &self.properties {
            if !foreign.iter().any(|prefix| key.starts_with(prefix)) {
                config.set(key, value);
            }
        }
        config
    }

    /// The consumer of the group.
    pub fn consumer(&self) -> ClientConfig {
        let mut config = self.base(PRODUCER_ONLY);
        let defaults = [
            ("session.timeout.ms", "15000"),
            // how late a member hears that another has left
            ("heartbeat.interval.ms", "500"),
            ("max.poll.interval.ms", "300000"),
            // counts values only: each record costs some 600 bytes more
            ("queued.max.messages.kbytes", "4096"),
            ("queued.min.messages", "5000"),
            // compressed: what one answer may unfold to
            ("max.partition.fetch.bytes", "131072"),
            ("fetch.max.bytes", &self.fetch_bytes_max()),
            // the default of a second stalls a consumer whose queue is small
            ("fetch.queue.backoff.ms", "20"),
            ("fetch.wait.max.ms", "100"),
            ("check.crcs", "true"),
            ("topic.metadata.refresh.interval.ms", "30000"),
        ];
        for (key, value) in defaults {
            if !self.properties.contains_key(key) {
                config.set(key, value);
            }
        }
        if self.properties.get("group.protocol").is_some_and(|protocol| protocol == "consumer") {
            // KIP-848: the broker sets these, librdkafka refuses them
            config.remove("session.timeout.ms").remove("heartbeat.interval.ms");
        } else {
            config.set("partition.assignment.strategy", "cooperative-sticky");
        }
        self.explicit(&mut config);
        config
    }

    /// What everyone who reads relies on.
    fn explicit(&self, config: &mut ClientConfig) {
        config
            .set("group.id", &self.group_id)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // never guess where to go on: the cursor in Postgres says it
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "false")
            .set("allow.auto.create.topics", "false");
    }

    /// A client that reads logs and never joins the group, though it may ask what
    /// the group has committed.
    pub fn reader(&self) -> ClientConfig {
        let mut config = self.base(PRODUCER_ONLY);
        for of_members in ["group.protocol", "group.instance.id", "session.timeout.ms", "heartbeat.interval.ms"] {
            config.remove(of_members);
        }
        self.explicit(&mut config);
        config.set("fetch.wait.max.ms", "10");
        config
    }

    /// A reader that looks at single records.
    pub fn inspector(&self) -> ClientConfig {
        let mut config = self.reader();
        config
            .set("enable.partition.eof", "true")
            .set("queued.max.messages.kbytes", "1024")
            // it wants one record; the broker answers with a whole batch at least
            .set("queued.min.messages", "1")
            // and the next as soon as that one is read: by default a second later
            .set("fetch.queue.backoff.ms", "1")
            .set("max.partition.fetch.bytes", "16384")
            .set("fetch.max.bytes", self.fetch_bytes_max())
            // what it knows of a topic is asked again soon: a partition that was added is unknown to it until
            // then, by default for a quarter of an hour, and so long nobody could claim it
            .set("topic.metadata.refresh.interval.ms", METADATA_MS_MAX)
            .set("metadata.max.age.ms", METADATA_MS_MAX);
        config
    }

    /// A reader of long stretches: it fetches ahead, within bounds.
    pub fn log_reader(&self) -> ClientConfig {
        let mut config = self.reader();
        config
            // how a stretch ends whose last offsets are transaction markers
            .set("enable.partition.eof", "true")
            // counts values only: each record costs some 600 bytes more
            .set("queued.max.messages.kbytes", "4096")
            .set("queued.min.messages", "5000")
            .set("max.partition.fetch.bytes", "524288")
            .set("fetch.max.bytes", self.fetch_bytes_max())
            // the default of a second stalls a consumer whose queue is small
            .set("fetch.queue.backoff.ms", "5");
        config
    }

    /// The longest record that this client sends: bytes.
    pub fn record_bytes_max(&self) -> usize {
        let told = self.properties.get("message.max.bytes").and_then(|bytes| bytes.parse().ok());
        told.unwrap_or(RECORD_BYTES_MAX)
    }

    /// librdkafka refuses a consumer whose `fetch.max.bytes` is below its
    /// `message.max.bytes` (rdkafka_conf.c), which a team sets for large outcomes.
    fn fetch_bytes_max(&self) -> String {
        let message_bytes_max = self.properties.get("message.max.bytes").and_then(|bytes| bytes.parse().ok());
        message_bytes_max.unwrap_or(0).max(FETCH_BYTES_MAX).to_string()
    }

    /// The producer of outcomes and events, to topics that take batches of up to
    /// `batch_bytes_max`.
    pub fn producer(&self, batch_bytes_max: usize) -> ClientConfig {
        let mut config = self.base(CONSUMER_ONLY);
        if !self.properties.contains_key("compression.codec") && !self.properties.contains_key("compression.type") {
            config.set("compression.type", "lz4");
        }
        // counts values only: each record's headers cost more than a kilobyte
        for (key, value) in [("queue.buffering.max.kbytes", "32768"), ("queue.buffering.max.messages", "20000")] {
            if !self.properties.contains_key(key) {
                config.set(key, value);
            }
        }
        if !self.properties.contains_key("message.max.bytes") {
            // how long a record may be is the topic's to say
            config.set("message.max.bytes", RECORD_BYTES_MAX.to_string());
        }
        let batch_bytes = self.properties.get("batch.size").and_then(|bytes| bytes.parse().ok()).unwrap_or(usize::MAX);
        config
            // a topic's limit is on whole batches: a larger one would be refused for ever
            .set("batch.size", batch_bytes.min(batch_bytes_max).to_string())
            .set("enable.idempotence", "true")
            // a batch that is refused must not be overtaken by the next one
            .set("enable.gapless.guarantee", "true")
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            // a batch is sent at once: records queue up by themselves meanwhile
            .set("linger.ms", "0")
            // after an expiry librdkafka goes on with later records: never expire
            .set("message.timeout.ms", "0")
            .set("allow.auto.create.topics", "false");
        config
    }

    /// The producer of commands, on the upstream's side.
    pub fn command_producer(&self, partitioner: Partitioner, delivery_timeout: Duration) -> ClientConfig {
        let mut config = self.producer(COMMAND_BATCH_BYTES_MAX);
        config
            .set("partitioner", librdkafka_name(partitioner))
            // a command that is refused concerns its sender; the others go on
            .set("enable.gapless.guarantee", "false")
            // its sender waits, and can send it again under the same id
            .set("message.timeout.ms", delivery_timeout.as_millis().max(1).to_string());
        config
    }

    /// The reader that follows a topic, in no group.
    pub fn tail(&self) -> ClientConfig {
        let mut config = self.reader();
        config
            // what retention has deleted before it was read cannot be had: go on with the oldest
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "100")
            .set("queued.max.messages.kbytes", "4096")
            .set("queued.min.messages", "1000");
        config
    }

    /// The admin client.
    pub fn admin(&self) -> ClientConfig {
        let foreign: Vec<&str> = CONSUMER_ONLY.iter().chain(PRODUCER_ONLY).copied().collect();
        self.base(&foreign)
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::consumer::BaseConsumer;
    use rdkafka::producer::BaseProducer;

    use super::*;

    #[test]
    fn a_team_s_limits_on_messages_stop_no_client() {
        let properties = BTreeMap::from([("message.max.bytes".to_owned(), "4194304".to_owned())]);
        let (bootstrap_servers, group_id) = ("127.0.0.1:1".to_owned(), "g".to_owned());
        let client = Client { bootstrap_servers, group_id, client_id: "c".into(), properties };
        for config in [client.consumer(), client.reader(), client.inspector(), client.log_reader(), client.tail()] {
            config.create::<BaseConsumer>().expect("a consumer");
        }
        client.producer(1_000_000).create::<BaseProducer>().expect("a producer");
    }
}
