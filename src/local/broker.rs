//! The embedded broker: librdkafka's mock cluster, for `dev` and for tests that need no JVM.
//!
//! Other processes of this machine can join it (it listens on the loopback interface). It is not
//! Kafka: nothing is stored on disk, transactions are a stub, topics cannot be made through the
//! admin protocol, and each partition keeps about 5 MiB and then drops its oldest records without a
//! word.
//!
//! Who consumes from it wants `fetch.wait.max.ms` small: an idle fetch waits all of it, even when
//! records arrive.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer};

/// By default the first member of a group waits 3 s for others, which is the whole start-up time of
/// `dev`. Long enough for a second one that starts at the same time: a later one costs a rebalance.
const INITIAL_REBALANCE_DELAY: Duration = Duration::from_millis(250);

/// An embedded broker that could not be had, or refused a topic.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A fault of this machine (no sockets, no memory) or a topic name that Kafka does not allow.
    #[error("the embedded broker could not {doing}: {source}")]
    Kafka {
        /// What was tried.
        doing: String,
        /// What librdkafka says.
        source: KafkaError,
    },
    /// The librdkafka that this program is linked to has no mock cluster.
    #[error("this librdkafka has no mock cluster: build it without dynamic linking, or use a Kafka that runs")]
    Unsupported,
}

/// A running embedded broker; it ends, and forgets everything, when this value is dropped.
pub struct Embedded {
    /// Owns the mock cluster. Never used to produce.
    owner: BaseProducer,
    bootstrap_servers: String,
}

impl Embedded {
    /// Starts that many brokers on free ports.
    pub fn start(brokers: u16) -> Result<Self, Error> {
        let owner: BaseProducer = ClientConfig::new()
            .set("client.id", "solewriter-embedded-broker")
            // The cluster lives inside this client. librdkafka notes that at every start; nobody
            // needs to read it.
            .set("test.mock.num.brokers", brokers.to_string())
            .set("log_level", "3")
            .create()
            .map_err(|source| Error::Kafka { doing: "start".to_owned(), source })?;
        shorten_first_rebalance(&owner)?;
        let cluster = owner.client().mock_cluster().ok_or(Error::Unsupported)?;
        let bootstrap_servers = cluster.bootstrap_servers();
        drop(cluster);
        Ok(Self { owner, bootstrap_servers })
    }

    /// For `bootstrap.servers` of any client on this machine.
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }

    /// Makes a topic. The admin protocol cannot: the mock cluster does not answer it.
    pub fn create_topic(&self, name: &str, partitions: u16) -> Result<(), Error> {
        let cluster = self.owner.client().mock_cluster().ok_or(Error::Unsupported)?;
        cluster
            .create_topic(name, i32::from(partitions), 1)
            .map_err(|source| Error::Kafka { doing: format!("make the topic {name}"), source })
    }
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Embedded").field(&self.bootstrap_servers).finish()
    }
}

/// The one setting of the mock cluster that rdkafka has no safe function for.
fn shorten_first_rebalance(owner: &BaseProducer) -> Result<(), Error> {
    let delay_ms = i32::try_from(INITIAL_REBALANCE_DELAY.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client is alive, and owns the cluster that the first call returns; the second
    // only sends the cluster a message with a number.
    unsafe {
        let cluster = rdkafka_sys::rd_kafka_handle_mock_cluster(owner.client().native_ptr());
        if cluster.is_null() {
            return Err(Error::Unsupported);
        }
        rdkafka_sys::rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, delay_ms);
    }
    Ok(())
}
