//! librdkafka's log lines, at the level that they deserve here.

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// What librdkafka calls a warning and is part of every rebalance or restart of
/// a broker: a commit for a generation that has just ended (the offset in the
/// group is advisory), a connection that is tried again.
const ORDINARY: &[&str] = &["COMMITFAIL", "CONFWARN", "FAIL", "GETPID", "REQTMOUT"];
/// Said of each producer: the guarantees test what is relied on.
const OF_NO_USE: &str = "enable.gapless.guarantee is experimental";

/// Hands a line on.
pub(super) fn forward(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Debug | RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => {
            tracing::debug!(target: "librdkafka", facility, "{message}")
        }
        _ if message.contains(OF_NO_USE) => tracing::debug!(target: "librdkafka", facility, "{message}"),
        _ if ORDINARY.contains(&facility) => tracing::info!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, "{message}"),
        _ => tracing::error!(target: "librdkafka", facility, "{message}"),
    }
}

/// The context of clients whose calls report what they could not do.
pub(super) struct Reported;

impl ClientContext for Reported {
    fn error(&self, error: KafkaError, reason: &str) {
        use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, PartitionEOF, Resolve};
        match error.rdkafka_error_code() {
            // whoever reads is told, and asked for it
            Some(PartitionEOF) => {}
            // said hundreds of times a second while nobody answers, and by the call in its time
            Some(AllBrokersDown | BrokerTransportFailure | Resolve) => tracing::debug!(%error, reason, "kafka client"),
            // credentials, certificates: the call only says that it got no answer
            _ => tracing::warn!(%error, reason, "kafka client"),
        }
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        forward(level, facility, message);
    }
}

impl ConsumerContext for Reported {}
