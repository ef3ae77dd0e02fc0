//! What a worker says about itself: metrics, health, logs.
//!
//! The library only emits. Who keeps the numbers (a `metrics` recorder) and the lines (a `tracing`
//! subscriber) is chosen by the program: solewriter's own `main` chooses, an embedding service
//! keeps its own.

pub mod health;
#[cfg(feature = "cli")]
pub mod logging;
pub mod metrics;
pub mod partition_state;

pub use self::health::Health;
pub use self::partition_state::PartitionState;
