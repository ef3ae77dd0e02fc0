//! The Kafka adapter: the consumer's poll thread, the producer, and a second
//! client that looks at topics.

mod budget;
mod client;
mod consumer;
mod copy;
mod inspector;
mod log;
mod producer;
mod topic_id;
mod topics;

pub use budget::{Budget, Lane};
pub use client::Client;
pub use consumer::{Consumer, Notice, Ownership};
pub use inspector::{InspectError, Inspector, LogEnd, RecordAt};
pub use producer::{BatchDelivery, Producer, SendError, Session};
pub use topics::{TopicError, Topics};
