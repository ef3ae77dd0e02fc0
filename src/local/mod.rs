//! Kafka and Postgres on this machine, without Docker: for `dev`, the tests and `bench`.
//!
//! Nothing here runs in production. What it starts is private (a free port of the loopback
//! interface, a directory of its own) and ends with this process, however this process ends.

pub mod broker;
pub(crate) mod directory;
pub mod fetched;
pub mod guarded;
pub(crate) mod itself;
pub mod kafka;
pub mod own_schema;
pub mod port;
pub mod postgres;
