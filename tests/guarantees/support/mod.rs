//! What the tests stand on: a real broker, a real Postgres, a proxy that breaks connections, and
//! workers that can be killed. Every test takes topics and a schema of its own, so they run side by
//! side.
//!
//! A test that runs a worker or a private broker or database is heavy: it begins with `let _turn =
//! support::heavy();`. One that measures, or counts what all tests share (shadow databases), runs `alone`.

// A helper is here for all promises; those written so far may not need each of them.
#![allow(dead_code)]

pub mod backup;
pub mod bank;
pub mod books;
pub mod commands;
pub mod consumer;
pub mod crashes;
pub mod declared;
pub mod halted;
pub mod http;
pub mod kafka;
pub mod patience;
pub mod postgres;
pub mod producer;
pub mod proxy;
pub mod scratch;
pub mod tls;
pub mod topics;
pub mod turn;
pub mod worker;

pub use turn::{alone, heavy};

/// The folder of an example of commands in SQL.
pub fn example(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/sql").join(name)
}
