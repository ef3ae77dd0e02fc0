//! Health and metrics over HTTP: `/healthz`, `/readyz`, `/metrics`.
//!
//! The recorder behind `/metrics` is installed by a program's `main` ([`prometheus::install`]),
//! never by the library: an embedding service keeps its own.

pub mod prometheus;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::telemetry::Health;

/// Histograms keep their samples until they are tended to; a scrape may never come.
const UPKEEP_PERIOD: Duration = Duration::from_secs(5);

/// Prometheus's text format, by its registered name.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is taken, or not this machine's. The process ends: an operator who cannot see a
    /// worker must not believe that nothing is wrong with it.
    #[error("http.listen = \"{listen}\" cannot be used (another: SOLEWRITER__HTTP__LISTEN=127.0.0.1:9401)")]
    Listen {
        /// The address, as configured.
        listen: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The listening socket failed while serving.
    #[error("serving health and metrics failed")]
    Serve(#[source] io::Error),
}

/// What the handlers answer from.
#[derive(Clone)]
struct Endpoint {
    health: Arc<Health>,
    metrics: PrometheusHandle,
}

/// Takes the address: apart from [`serve`], so that a worker finds out before it claims anything.
///
/// # Errors
///
/// [`Error::Listen`] if the address is taken or not this machine's.
pub async fn bind(listen: SocketAddr) -> Result<TcpListener, Error> {
    let listener = TcpListener::bind(listen).await;
    listener.map_err(|source| Error::Listen { listen, source })
}

/// Answers until `shutdown`, then lets the requests that have begun finish.
///
/// # Errors
///
/// [`Error::Serve`] if the socket fails.
pub async fn serve(
    listener: TcpListener,
    health: Arc<Health>,
    metrics: PrometheusHandle,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let upkeep = tend(metrics.clone());
    let app = router(Endpoint { health, metrics });
    let answering = axum::serve(listener, app).with_graceful_shutdown(shutdown.cancelled_owned());
    tokio::select! {
        answered = answering => answered.map_err(Error::Serve),
        () = upkeep => Ok(()),
    }
}

fn router(endpoint: Endpoint) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(endpoint)
}

/// Never returns; the caller drops it.
async fn tend(metrics: PrometheusHandle) {
    let mut period = time::interval(UPKEEP_PERIOD);
    loop {
        period.tick().await;
        metrics.run_upkeep();
    }
}

async fn healthz(State(endpoint): State<Endpoint>) -> (StatusCode, &'static str) {
    match endpoint.health.is_alive() {
        true => (StatusCode::OK, "alive\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "the poll loop has not turned for 30 s\n"),
    }
}

async fn readyz(State(endpoint): State<Endpoint>) -> (StatusCode, String) {
    let missing = endpoint.health.missing();
    match missing.is_empty() {
        true => (StatusCode::OK, "ready\n".to_owned()),
        false => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", missing.join("; "))),
    }
}

async fn metrics(State(endpoint): State<Endpoint>) -> impl IntoResponse {
    ([(CONTENT_TYPE, METRICS_TYPE)], endpoint.metrics.render())
}

#[cfg(test)]
mod tests;
