//! What can go wrong between an upstream and its outcome, each with the next step.

use std::time::Duration;

use rdkafka::error::KafkaError;
use uuid::Uuid;

use crate::config;
use crate::kafka::TailError;

/// An error of the client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option cannot be used. Nothing was connected: correct it.
    #[error("the client's options cannot be used")]
    Settings(#[from] config::Error),
    /// The command topic is never created by accident.
    #[error(
        "topic {topic} does not exist on {bootstrap_servers}: correct its name, or create it with the partition \
         count that all its producers will use"
    )]
    NoTopic {
        /// The command topic.
        topic: String,
        /// Where it was looked for.
        bootstrap_servers: String,
    },
    /// No broker answers: check the address, TLS and credentials, or try again later.
    #[error("Kafka at {bootstrap_servers} does not answer: check the address, and TLS and credentials if it has them")]
    Unreachable {
        /// Where.
        bootstrap_servers: String,
        /// What the client says.
        source: KafkaError,
    },
    /// The broker has refused the record, or has not confirmed it in time. It may nevertheless be in
    /// the log: publish the same command again, which has one effect.
    #[error(
        "the delivery of command {command_id} to {topic} is not confirmed: publish it again under the same id, \
         which has one effect"
    )]
    NotDelivered {
        /// The command.
        command_id: Uuid,
        /// The command topic.
        topic: String,
        /// What the client says.
        source: KafkaError,
    },
    /// Time is up. The command may have run, or run later: ask again with the same command.
    #[error(
        "no outcome of command {command_id} on {outcomes_topic} within {timeout:?}; it may have run, or run later: \
         ask again under the same id, or look with: solewriter inspect command {command_id} (which tells, too, \
         whether the id was reused for another command: that publishes no outcome)"
    )]
    NoOutcome {
        /// The command.
        command_id: Uuid,
        /// Where its outcome is to appear.
        outcomes_topic: String,
        /// How long was waited.
        timeout: Duration,
    },
    /// The id was used for another command before: this one will never run. Make a new one.
    #[error("the id {command_id} belongs to another command ({command_type} of {entity_id:?}): make a new command")]
    IdReuse {
        /// The id.
        command_id: Uuid,
        /// The other command's type.
        command_type: String,
        /// The other command's entity.
        entity_id: String,
    },
    /// Outcomes cannot be read. What was published meanwhile is in the log: ask again with the same
    /// command, which begins a new reader.
    #[error("the outcomes on {topic} cannot be read: {why}; ask again under the same id")]
    NotListening {
        /// The outcomes topic.
        topic: String,
        /// What happened.
        why: String,
        /// What Kafka says, if it said something.
        source: Option<Box<TailError>>,
    },
}
