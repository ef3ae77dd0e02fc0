//! SIGTERM and SIGINT: the first asks the worker to stop, the second stops the process.

use std::io::Write as _;
use std::process;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::exit::Exit;
use crate::replay::progress::Progress;
use crate::telemetry::Health;

/// Cancels `shutdown` at the first signal, and ends the process at the second.
pub(super) fn stop_on_signal(shutdown: CancellationToken, health: Arc<Health>) -> anyhow::Result<()> {
    // Registered before the task runs, so that no signal falls in between.
    let mut signals = Signals::register().context("signals cannot be caught")?;
    tokio::spawn(async move {
        let name = signals.next().await;
        tracing::info!(signal = name, "stopping; a second signal stops at once");
        // Before the drain begins, so that no load balancer counts on this process meanwhile.
        health.set_draining();
        shutdown.cancel();
        let name = signals.next().await;
        // Nothing is lost: what is in flight was not acknowledged, and its next owner settles it.
        let message = "stopped at once; the next owner settles what was in flight";
        let _ = writeln!(std::io::stderr(), "error: a second signal ({name}): {message}");
        process::exit(Exit::Failed as i32);
    });
    Ok(())
}

/// Stops long work at the first signal, and ends the process at the second.
pub(super) fn stop_work(progress: &Progress) -> anyhow::Result<()> {
    let mut signals = Signals::register().context("signals cannot be caught")?;
    let progress = progress.clone();
    tokio::spawn(async move {
        let name = signals.next().await;
        // stderr may be closed; the work stops all the same
        let _ = writeln!(std::io::stderr(), "{name}: stopping; a second signal stops at once");
        progress.stop();
        signals.next().await;
        process::exit(Exit::Failed as i32);
    });
    Ok(())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn register() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
