//! One budget in bytes for all records in flight: received, not yet durable.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;

/// Bounds what a worker holds in memory, whatever the lag.
#[derive(Debug)]
pub struct Budget {
    bytes_max: usize,
    in_flight_bytes: AtomicUsize,
    /// The poll thread: it waits when the budget is spent.
    waiter: OnceLock<Thread>,
}

/// One partition's share of the budget while it is fetched. When the last
/// handle is dropped, what it still holds goes back.
#[derive(Debug)]
pub struct Lane {
    budget: Arc<Budget>,
    queued_bytes: AtomicUsize,
    /// In all: tells whether its writer moves.
    given_back_bytes: AtomicUsize,
}

impl Budget {
    /// A budget of `bytes_max`.
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, in_flight_bytes: AtomicUsize::new(0), waiter: OnceLock::new() })
    }

    /// A share for one partition.
    pub fn lane(self: &Arc<Self>) -> Arc<Lane> {
        Arc::new(Lane {
            budget: self.clone(),
            queued_bytes: AtomicUsize::new(0),
            given_back_bytes: AtomicUsize::new(0),
        })
    }

    /// Names the thread that waits for room.
    pub(super) fn waits_here(&self) {
        let _ = self.waiter.set(std::thread::current());
    }

    /// Whether nothing more should be received.
    pub fn is_spent(&self) -> bool {
        self.in_flight_bytes.load(Ordering::Relaxed) >= self.bytes_max
    }

    fn give_back(&self, bytes: usize) {
        let before = self.in_flight_bytes.fetch_sub(bytes, Ordering::Relaxed);
        // wake the poll thread once, when room is made, not at each record
        if before >= self.bytes_max / 2
            && let Some(waiter) = self.waiter.get()
        {
            waiter.unpark();
        }
    }
}

impl Lane {
    /// A record was received.
    pub fn take(&self, bytes: usize) {
        self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.budget.in_flight_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Records are settled.
    pub fn give_back(&self, bytes: usize) {
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.given_back_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.budget.give_back(bytes);
    }

    /// What this partition holds.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes.load(Ordering::Relaxed)
    }

    /// What its writer has settled, in all.
    pub fn given_back_bytes(&self) -> usize {
        self.given_back_bytes.load(Ordering::Relaxed)
    }

    /// Whether this partition alone holds half of the budget: its neighbours
    /// must not starve.
    pub fn is_greedy(&self) -> bool {
        self.queued_bytes() >= self.budget.bytes_max / 2
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.budget.give_back(*self.queued_bytes.get_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_lane_held_goes_back_when_it_ends() {
        let budget = Budget::new(100);
        let (lane, other) = (budget.lane(), budget.lane());
        lane.take(60);
        other.take(40);
        assert!(budget.is_spent() && lane.is_greedy() && !other.is_greedy());
        lane.give_back(20);
        assert!(!budget.is_spent());
        drop(lane);
        assert_eq!(budget.in_flight_bytes.load(Ordering::Relaxed), 40);
    }
}
