//! `[kafka]`: the cluster.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::{Error, Invalid};
use super::kafka_properties::KafkaProperties;

/// How to reach Kafka, and as which group.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Kafka {
    /// host:port of one or more brokers, separated by commas. No default; KAFKA_BOOTSTRAP_SERVERS
    /// counts where this is silent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootstrap_servers: Option<String>,
    /// The consumer group. All copies of one worker share it; it is stored with the cursors, and
    /// another group is refused.
    pub group_id: String,
    /// Any other librdkafka property, quoted, text or number, e.g. "session.timeout.ms" = 6000.
    /// Refused are those that solewriter sets itself and those that load code or run programs.
    pub properties: KafkaProperties,
}

impl Default for Kafka {
    fn default() -> Self {
        Self { bootstrap_servers: None, group_id: "solewriter".to_owned(), properties: KafkaProperties::default() }
    }
}

impl Kafka {
    /// The brokers to ask first.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] if nobody set them.
    pub fn require_bootstrap_servers(&self) -> Result<&str, Error> {
        self.bootstrap_servers.as_deref().ok_or(Error::Missing {
            key: "kafka.bootstrap_servers",
            cure: "set KAFKA_BOOTSTRAP_SERVERS, SOLEWRITER__KAFKA__BOOTSTRAP_SERVERS, or bootstrap_servers under [kafka]",
        })
    }

    pub(super) fn validate(&self) -> Result<(), Invalid> {
        let servers = self.bootstrap_servers.as_deref();
        if servers.is_some_and(|servers| servers.split(',').any(|server| server.trim().is_empty())) {
            return Err(Invalid::new(
                "kafka.bootstrap_servers",
                "an empty entry: write host:port, separated by commas",
            ));
        }
        if self.group_id.trim().is_empty() {
            return Err(Invalid::new("kafka.group_id", "empty"));
        }
        self.properties.validate()
    }
}
