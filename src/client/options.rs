//! What a client is told beside the brokers' address.

use std::time::Duration;

use crate::config::{self, Config, KafkaProperties, Partitioner};
use crate::kafka;

/// Brokers know this group only as one that is never joined.
const GROUP_ID: &str = "solewriter-client";

/// The default of `delivery_timeout`.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);

/// The options of a client, with the command topic that it publishes to.
#[derive(Clone, Debug)]
pub struct Options {
    pub(super) topic: String,
    outcomes_topic: Option<String>,
    pub(super) partitioner: Partitioner,
    pub(super) source: String,
    pub(super) delivery_timeout: Duration,
    client_id: String,
    properties: Vec<(String, String)>,
}

impl Options {
    /// For this command topic, with every default.
    #[must_use]
    pub fn new(topic: impl Into<String>) -> Self {
        Self {
            topic: topic.into(),
            outcomes_topic: None,
            partitioner: Partitioner::Murmur2,
            source: "solewriter-client".to_owned(),
            delivery_timeout: DELIVERY_TIMEOUT,
            client_id: "solewriter-client".to_owned(),
            properties: Vec::new(),
        }
    }

    /// Where outcomes appear, if the worker's configuration says another topic than
    /// `<command topic>.outcomes`.
    #[must_use]
    pub fn outcomes_topic(&self) -> String {
        self.outcomes_topic.clone().unwrap_or_else(|| format!("{}.outcomes", self.topic))
    }

    /// Outcomes appear on this topic.
    #[must_use]
    pub fn with_outcomes_topic(mut self, topic: impl Into<String>) -> Self {
        self.outcomes_topic = Some(topic.into());
        self
    }

    /// All producers of a topic choose partitions in the same way; the default is `murmur2`, as
    /// Java's do.
    #[must_use]
    pub fn with_partitioner(mut self, partitioner: Partitioner) -> Self {
        self.partitioner = partitioner;
        self
    }

    /// Who sends: the CloudEvents source of each command, such as `/orders`.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<String>) -> Self {
        self.source = source.into();
        self
    }

    /// How long a command may take to be in the log; 30 s by default. Afterwards its delivery has
    /// failed, and it can be published again.
    #[must_use]
    pub fn with_delivery_timeout(mut self, timeout: Duration) -> Self {
        self.delivery_timeout = timeout;
        self
    }

    /// Names this process in the brokers' logs and quotas.
    #[must_use]
    pub fn with_client_id(mut self, client_id: impl Into<String>) -> Self {
        self.client_id = client_id.into();
        self
    }

    /// Any librdkafka property that no promise rests on: TLS, SASL, time-outs. Those that would break
    /// one are refused when the client connects, with the reason.
    #[must_use]
    pub fn with_property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.push((name.into(), value.into()));
        self
    }

    /// Checked as the worker's own are.
    pub(super) fn settings(&self, bootstrap_servers: &str) -> Result<kafka::Client, config::Error> {
        let kafka = config::Kafka {
            bootstrap_servers: Some(bootstrap_servers.to_owned()),
            group_id: GROUP_ID.to_owned(),
            properties: KafkaProperties::from_iter(self.properties.iter().cloned()),
        };
        let config = Config { kafka, ..Config::default() };
        config.validate()?;
        kafka::Client::new(&config.kafka, &self.client_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_that_would_break_a_promise_is_refused_with_the_reason() {
        let refused = |name: &str, value: &str| {
            let settings = Options::new("t").with_property(name, value).settings("localhost:9092");
            settings.err().map(|error| error.to_string())
        };
        assert!(refused("enable.idempotence", "false").is_some_and(|why| why.contains("refused")));
        assert!(refused("no.such.thing", "1").is_some());
        assert_eq!(refused("security.protocol", "ssl"), None);
        assert!(Options::new("t").settings("").is_err());
    }

    #[test]
    fn outcomes_are_beside_the_commands_unless_said_otherwise() {
        assert_eq!(Options::new("accounts").outcomes_topic(), "accounts.outcomes");
        assert_eq!(Options::new("accounts").with_outcomes_topic("answers").outcomes_topic(), "answers");
    }
}
