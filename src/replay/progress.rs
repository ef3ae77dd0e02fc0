//! How far long work is, and whether it shall stop: told by whoever works, read by whoever watches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio_util::sync::CancellationToken;

/// Shared by the workers of one piece of work and those who watch it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    counts: Arc<Counts>,
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct Counts {
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// Of work whose size is this; it is called an offset, a record or whatever else is counted.
    pub fn of(total: u64) -> Self {
        let progress = Self::default();
        progress.expect(total);
        progress
    }

    /// There is so much more to do than was known.
    pub fn expect(&self, more: u64) {
        self.counts.total.fetch_add(more, Ordering::Relaxed);
    }

    /// So much more is done.
    pub fn add(&self, done: u64) {
        self.counts.done.fetch_add(done, Ordering::Relaxed);
    }

    /// How much is done.
    pub fn done(&self) -> u64 {
        self.counts.done.load(Ordering::Relaxed)
    }

    /// How much there is to do in all.
    pub fn total(&self) -> u64 {
        self.counts.total.load(Ordering::Relaxed)
    }

    /// Asks the workers to stop where what they have done stays done.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Whether they are asked to.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Returns when they are asked to.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// The token behind [`Self::stop`], for those who wait on one.
    pub fn stop_token(&self) -> &CancellationToken {
        &self.stop
    }
}
