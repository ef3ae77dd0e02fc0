pub mod config;
#[cfg(feature = "cli")]
pub mod server;
pub mod telemetry;
