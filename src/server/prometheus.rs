//! The recorder that a program installs to serve `/metrics`.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::telemetry::metrics;

/// A commit on this machine takes a millisecond; one that waits for a lock takes the time-out.
const COMMIT_SECONDS: [f64; 13] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// From a commit that found the worker idle to a day of backlog.
const AGE_SECONDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0, 3_600.0, 21_600.0, 86_400.0];

/// Powers of about two and a half up to beyond the default of `worker.batch_commands_max`.
const BATCH_COMMANDS: [f64; 12] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_000.0, 5_000.0];

/// Makes this process keep its metrics for Prometheus, and describes them. For a `main`, once.
///
/// # Errors
///
/// If a recorder is already installed.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = builder()?.install_recorder()?;
    metrics::describe();
    Ok(handle)
}

pub(super) fn builder() -> Result<PrometheusBuilder, BuildError> {
    let of = |name: &str| Matcher::Full(name.to_owned());
    PrometheusBuilder::new()
        .set_buckets_for_metric(of(metrics::COMMIT_SECONDS), &COMMIT_SECONDS)?
        .set_buckets_for_metric(of(metrics::COMMAND_AGE_SECONDS), &AGE_SECONDS)?
        .set_buckets_for_metric(of(metrics::BATCH_COMMANDS), &BATCH_COMMANDS)
}
