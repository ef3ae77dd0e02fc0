#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
#[cfg(feature = "cli")]
pub mod server;
pub mod telemetry;
pub mod worker;
