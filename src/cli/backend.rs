//! The seam between the verbs and what they speak of: every look at Kafka or Postgres that a verb
//! takes is one function here.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::check::Check;
use super::migrate::Migrated;
use super::operator::Change;
use super::operator::Target;
use super::resume::Choices;
use super::status::PartitionStatus;
use crate::config::Config;
use crate::telemetry::Health;
use crate::worker::Worker;

/// Runs the worker until `shutdown`, drains, and returns; waits for dependencies that are not there.
pub(super) async fn run(
    _worker: Worker,
    _config: Config,
    _health: Arc<Health>,
    _shutdown: CancellationToken,
) -> anyhow::Result<()> {
    unimplemented!("comes with the core")
}

/// The statements that `migrate` would run on an empty database.
pub(super) fn migration_sql(_config: &Config) -> anyhow::Result<String> {
    unimplemented!("comes with the core")
}

/// Creates or upgrades the schema.
pub(super) async fn migrate(_config: &Config) -> anyhow::Result<Migrated> {
    unimplemented!("comes with the core")
}

/// Looks at every dependency, topic, partition count, permission and handler. A dependency that
/// cannot be reached is a failed check, not an error.
pub(super) async fn check(_worker: &Worker, _config: &Config) -> anyhow::Result<Vec<Check>> {
    unimplemented!("comes with the core")
}

/// Every partition of the configured topics, in order.
pub(super) async fn status(_config: &Config) -> anyhow::Result<Vec<PartitionStatus>> {
    unimplemented!("comes with the core")
}

/// Halts partitions with code `operator` and audits it.
pub(super) async fn halt(
    _config: &Config,
    _target: &Target,
    _reason: &str,
) -> anyhow::Result<Vec<Change>> {
    unimplemented!("comes with the core")
}

/// Lifts halts whose question the choices answer, and audits it.
pub(super) async fn resume(
    _config: &Config,
    _target: &Target,
    _reason: &str,
    _choices: &Choices,
) -> anyhow::Result<Vec<Change>> {
    unimplemented!("comes with the core")
}
