//! librdkafka's log lines, at the level that they deserve here.

use rdkafka::config::RDKafkaLogLevel;

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
