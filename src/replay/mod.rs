//! Replay: a range of the log is read again, and set against what the tables say.
//!
//! The log is the truth about what was asked, the tables about what was done. What is asked of both starts
//! with a [`range`]: offsets, times, an entity or a command type, which [`resolve`] turns into stretches of
//! partitions as the broker has them now, saying what of them is gone. Whoever reads for long tells its
//! [`progress`] and hears a stop.
//!
//! Nothing here runs a command against the live tables. [`survey`] says the [`fate`] of every record of a
//! stretch, [`republish`] makes the records of settled batches again. [`mod@verify`] and [`mod@run`] run commands again in a
//! [`shadow`], a database of its own: the one to prove the tables, or to try other handlers, the other before a restored
//! database goes on.

mod asked;
mod error;
pub mod fate;
mod partition;
pub mod progress;
pub mod range;
pub mod republish;
pub mod resolve;
pub mod run;
mod session;
pub mod shadow;
pub mod survey;
pub mod verify;

pub use error::ReplayError;
