//! solewriter
pub mod assignment;
#[cfg(feature = "cli")]
pub mod cli;
pub mod command;
pub mod config;
pub mod cursor;
pub mod dead_letter;
#[cfg(feature = "dev")]
pub mod dev;
pub mod fencing_token;
pub mod halt;
pub mod handlers;
pub mod horizon;
pub mod kafka;
#[cfg(feature = "dev")]
pub mod local;
pub mod maintenance;
pub mod outcome;
pub mod postgres;
pub mod record;
pub mod runtime;
#[cfg(feature = "cli")]
pub mod server;
pub mod steps;
pub mod telemetry;
pub mod worker;
pub mod writer;

pub use handlers::{Context, Rejection};
pub use record::TopicPartition;
pub use worker::Worker;
