//! Commands arrive on Kafka keyed by entity id, each partition has exactly one
//! writer, and each command has exactly one effect in Postgres, with no
//! distributed lock.
//!
//! A fencing token stops the paused owner that wakes up late; a table with unique
//! keys answers redeliveries; a cursor in the same commit loses nothing.
//!
//! # The data path
//!
//! ```text
//! receive -> route -> fence -> deduplicate -> decide -> commit -> publish -> acknowledge
//! ```
//!
//! | step | module | what |
//! |---|---|---|
//! | 1 | [`steps::receive`] | bytes and headers become a command, or a dead letter with a code |
//! | 2 | [`steps::route`] | the key must hash to the partition that it came from |
//! | 3 | [`steps::fence`] | the writer holds the token that it claimed |
//! | 4 | [`steps::deduplicate`] | an id already settled gets its stored outcome again |
//! | 5 | [`steps::decide`] | handlers run in offset order over prefetched state |
//! | 6 | [`steps::commit`] | one call writes everything or nothing |
//! | 7 | [`steps::publish`] | outcomes and events go to Kafka, after the commit, in order |
//! | 8 | [`steps::acknowledge`] | the offset goes to Kafka, after the commit |
//!
//! The steps are values in, values out. [`writer`] performs them, a task per
//! partition; [`assignment`] decides who owns what; [`kafka`] and [`postgres`]
//! are the only places that speak to either.
//!
//! # A worker
//!
//! ```no_run
//! use serde::{Deserialize, Serialize};
//! use solewriter::{Context, Rejection, Worker};
//!
//! const NOT_ENOUGH: Rejection = Rejection::new("not-enough");
//!
//! #[derive(Clone, Default, Serialize, Deserialize)]
//! struct Stock { pieces: u64 }
//!
//! #[derive(Serialize, Deserialize)]
//! struct Pieces { pieces: u64 }
//!
//! impl Stock {
//!     fn add(&mut self, add: Pieces, _: &mut Context) -> Result<Self, Rejection> {
//!         self.pieces += add.pieces;
//!         Ok(self.clone())
//!     }
//!
//!     fn take(&mut self, take: Pieces, cx: &mut Context) -> Result<Self, Rejection> {
//!         self.pieces = self.pieces.checked_sub(take.pieces).ok_or(NOT_ENOUGH)?;
//!         cx.emit("stock.taken", &take);
//!         Ok(self.clone())
//!     }
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     Worker::new()
//!         .entity::<Stock>("stock", |e| e.on("stock.add", Stock::add).on("stock.take", Stock::take))
//!         .main()
//! }
//! ```
//!
//! The stored state, the reply and the event are the handlers' own types; a `no`
//! is a [`Rejection`]. A panic is caught, the state untouched, the command dead.
//!
//! The service that asks for all this uses [`client`].

#![warn(missing_docs)]

#[cfg(all(feature = "jemalloc", target_os = "linux"))]
mod allocator;
pub mod assignment;
#[cfg(feature = "bench")]
mod bench;
#[cfg(feature = "cli")]
pub mod cli;
pub mod client;
pub mod command;
pub mod config;
pub mod cursor;
pub mod dead_letter;
pub mod declared;
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
pub mod pace;
pub mod parked_keys;
pub mod postgres;
pub mod record;
pub mod replay;
pub mod runtime;
#[cfg(feature = "cli")]
pub mod server;
pub mod steps;
pub mod telemetry;
pub mod worker;
pub mod writer;

pub use handlers::{Context, Rejection};
pub use record::TopicPartition;
pub use worker::{RunError, Worker};

/// Compiles what docs/your-worker.md shows.
#[cfg(doctest)]
#[doc = include_str!("../docs/your-worker.md")]
mod your_worker {}
