//! The partition writer: one task per assigned partition, which performs the
//! eight steps and owns its state. No locks: nobody else touches it.
//!
//! `drive` is the data path; the rest of this room is what it keeps between
//! batches (`cache`) and what follows it (`publisher`).

pub(crate) mod batch;
pub(crate) mod batch_size;
pub(crate) mod cache;
mod clock;
mod drive;
pub(crate) mod flood;
pub(crate) mod judged;
pub(crate) mod prefetch;
mod publisher;
mod report;
mod settle;

pub use drive::{Ended, Stop, Writer};
pub use flood::FloodMax;
pub use publisher::{DeadLetterTopic, PublishTo, Unpublished};
pub(crate) use settle::backoff;
