//! The Kafka adapter: the consumer's poll thread, the producer, a second client
//! that looks at topics, and what upstream services need: a producer of commands
//! and a reader that follows outcomes.

mod blocking;
mod budget;
mod client;
mod command_producer;
mod consumer;
mod copy;
mod in_order;
mod inspector;
mod log;
mod log_reader;
mod producer;
mod tail;
mod topic_id;
mod topics;

pub(crate) use blocking::blocking;
pub use budget::{Budget, Lane};
pub use client::Client;
pub use command_producer::{CommandProducer, Delivery, Placed};
pub use consumer::{Consumer, Notice, Ownership};
pub use in_order::Introduced;
pub use inspector::{InspectError, Inspector, LogEnd, RecordAt};
pub use log_reader::{LogReader, ReadError};
pub use producer::{BatchDelivery, Producer, SendError, Session};
pub use tail::{Tail, TailError};
pub use topics::{Settings, TopicError, Topics, create_command, how_to_alter, how_to_create};
