//! Whether the process is alive, and whether it is ready; asks nobody, only remembers.
//!
//! The poll thread, the writers and the shutdown write; the HTTP endpoint and embedding services
//! read. A halted partition changes neither answer: restarting would not help it, and its
//! neighbours go on.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

/// A poll loop that has not turned for longer is stuck: Kafka will take its partitions anyway.
pub const POLL_TURN_MAX: Duration = Duration::from_secs(30);

/// Stands for "has not turned yet" in `last_turn_ms`.
const NEVER: u64 = u64::MAX;

/// Shared by reference; every field is a fact on its own, so relaxed atomics are enough.
#[derive(Debug)]
pub struct Health {
    /// Origin of `last_turn_ms`: monotonic, so that setting the clock kills nobody.
    born: Instant,
    /// Milliseconds from `born` to the last turn of the poll loop, or `NEVER`.
    last_turn_ms: AtomicU64,
    /// The database has the tables that this version needs.
    schema_ok: AtomicBool,
    /// The last statement was answered.
    database_ok: AtomicBool,
    /// The broker counts this process as a member of its group.
    group_joined: AtomicBool,
    /// The process is stopping; never taken back.
    draining: AtomicBool,
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// Alive, and not ready.
    #[must_use]
    pub fn new() -> Self {
        Self {
            born: Instant::now(),
            last_turn_ms: AtomicU64::new(NEVER),
            schema_ok: AtomicBool::new(false),
            database_ok: AtomicBool::new(false),
            group_joined: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        }
    }

    /// The poll loop came round once more.
    pub fn poll_turned(&self) {
        self.poll_turned_at(Instant::now());
    }

    /// The database has the right schema, or has not.
    pub fn set_schema_ok(&self, ok: bool) {
        self.schema_ok.store(ok, Relaxed);
    }

    /// The database answers, or does not.
    pub fn set_database_ok(&self, ok: bool) {
        self.database_ok.store(ok, Relaxed);
    }

    /// The process is a member of its consumer group, or is not.
    pub fn set_group_joined(&self, joined: bool) {
        self.group_joined.store(joined, Relaxed);
    }

    /// The process is stopping.
    pub fn set_draining(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Whether the poll loop turned within [`POLL_TURN_MAX`]. Before its first turn the process is
    /// alive: it may be waiting for a database, and a restart would not make that any faster.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.is_alive_at(Instant::now())
    }

    /// What keeps the process from being ready, in words; empty when it is ready.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let facts = [
            (self.schema_ok.load(Relaxed), "the schema is not verified"),
            (self.database_ok.load(Relaxed), "the database does not answer"),
            (self.group_joined.load(Relaxed), "the consumer group is not joined"),
            (!self.draining.load(Relaxed), "the worker is draining"),
        ];
        facts.into_iter().filter(|(holds, _)| !holds).map(|(_, otherwise)| otherwise).collect()
    }

    fn poll_turned_at(&self, now: Instant) {
        self.last_turn_ms.store(self.age_ms(now), Relaxed);
    }

    fn is_alive_at(&self, now: Instant) -> bool {
        let last = self.last_turn_ms.load(Relaxed);
        let since = Duration::from_millis(self.age_ms(now).saturating_sub(last));
        last == NEVER || since <= POLL_TURN_MAX
    }

    fn age_ms(&self, now: Instant) -> u64 {
        let age = now.saturating_duration_since(self.born).as_millis();
        u64::try_from(age).unwrap_or(NEVER - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_alive_until_its_poll_loop_stands_still() {
        let health = Health::new();
        let after = |seconds| health.born + Duration::from_secs(seconds);
        assert!(health.is_alive_at(after(3_600)), "has not started to poll");
        health.poll_turned_at(after(3_600));
        assert!(health.is_alive_at(after(3_630)));
        assert!(!health.is_alive_at(after(3_631)));
        health.poll_turned_at(after(3_640));
        assert!(health.is_alive_at(after(3_641)));
    }

    #[test]
    fn a_process_is_ready_when_nothing_is_missing() {
        let health = Health::new();
        assert_eq!(health.missing().len(), 3);
        health.set_schema_ok(true);
        health.set_database_ok(true);
        health.set_group_joined(true);
        assert!(health.missing().is_empty());
        health.set_database_ok(false);
        assert_eq!(health.missing(), ["the database does not answer"]);
    }

    #[test]
    fn a_draining_process_is_not_ready_any_more() {
        let health = Health::new();
        health.set_draining();
        assert!(health.missing().contains(&"the worker is draining"));
    }
}
