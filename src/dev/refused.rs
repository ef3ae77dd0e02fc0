//! Writes that the fence has refused: this process's, which its workers count as a metric, and the
//! zombie's, which stand in its log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

use crate::telemetry::metrics::FENCED_TOTAL;

/// How many there were. Cheap to clone: all clones count the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Refused(Arc<AtomicU64>);

impl Refused {
    /// Counts this process's from now on. `dev` serves no metrics, so the recorder keeps this one.
    pub(super) fn counting() -> Self {
        let refused = Self::default();
        if metrics::set_global_recorder(Only(refused.clone())).is_err() {
            tracing::warn!("this program keeps its metrics elsewhere: only the zombie's refused writes are shown");
        }
        refused
    }

    /// So many more.
    pub(super) fn add(&self, writes: u64) {
        self.0.fetch_add(writes, Ordering::Relaxed);
    }

    /// All so far.
    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A recorder of a single counter.
struct Only(Refused);

impl Recorder for Only {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match key.name() {
            FENCED_TOTAL => Counter::from_arc(self.0.0.clone()),
            _ => Counter::noop(),
        }
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics as emitted;

    #[test]
    fn what_a_worker_counts_as_fenced_is_what_is_shown() {
        let refused = Refused::default();
        metrics::with_local_recorder(&Only(refused.clone()), || {
            emitted::fenced();
            emitted::rebalanced();
        });
        refused.add(2);
        assert_eq!(refused.count(), 3);
    }
}
