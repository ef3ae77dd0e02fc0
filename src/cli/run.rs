//! `run`: the worker, with its signals, its health and its metrics.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinHandle;
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::exit::Exit;
use super::{backend, signals};
use crate::config::Config;
use crate::server;
use crate::telemetry::Health;
use crate::worker::Worker;

/// A scraper that is slow to read its last answer does not hold up the exit for longer.
const SERVER_STOP_MAX: Duration = Duration::from_secs(1);

/// Run the worker
///
/// Settles the commands of the configured topics until SIGTERM or SIGINT, then finishes what is in
/// flight (at most worker.drain_timeout); a second signal stops at once, which loses nothing either.
/// Waits for a database or broker that is not there yet.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  DATABASE_URL=postgres://localhost/app KAFKA_BOOTSTRAP_SERVERS=localhost:9092 \\
    solewriter run --config config/solewriter.toml")]
pub(super) struct Args {}

pub(super) async fn run(worker: Worker, config: Config) -> anyhow::Result<Exit> {
    config.validate_for_run()?;
    // Signals first: what arrives while dependencies are awaited is a wish to stop, too.
    let (shutdown, health) = (CancellationToken::new(), Arc::new(Health::new()));
    signals::stop_on_signal(shutdown.clone(), health.clone())?;
    let endpoint = Endpoint::open(&config, health.clone()).await?;
    let result = backend::run(worker, config, health, shutdown).await;
    // Only now: probes and the last scrape see the drain.
    endpoint.close().await?;
    result?;
    tracing::info!("stopped");
    Ok(Exit::Done)
}

/// Health and metrics, served beside the worker.
struct Endpoint {
    stop: CancellationToken,
    serving: JoinHandle<Result<(), server::Error>>,
}

impl Endpoint {
    async fn open(config: &Config, health: Arc<Health>) -> anyhow::Result<Self> {
        let metrics = server::prometheus::install().context("metrics cannot be kept")?;
        let listener = server::bind(config.http.listen).await?;
        tracing::info!(address = %listener.local_addr()?, "serving health and metrics");
        let stop = CancellationToken::new();
        let serving = tokio::spawn(server::serve(listener, health, metrics, stop.clone()));
        Ok(Self { stop, serving })
    }

    async fn close(self) -> anyhow::Result<()> {
        self.stop.cancel();
        match time::timeout(SERVER_STOP_MAX, self.serving).await {
            Ok(served) => Ok(served.context("the HTTP endpoint panicked")??),
            Err(_) => Ok(()),
        }
    }
}
