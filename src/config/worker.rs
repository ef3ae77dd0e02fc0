//! `[worker]`: the limits of one worker process.

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration;
use super::duration::{DURATION_MIN, TIMEOUT_MAX};
use super::error::Invalid;

/// How much one process takes on at once, and how long it takes to stop.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Worker {
    /// Commands that one commit settles at most, per partition.
    pub batch_commands_max: NonZeroUsize,
    /// Bytes of records that are fetched and not yet settled, over all partitions.
    pub in_flight_bytes_max: NonZeroUsize,
    /// How long a stop waits for work in flight, with its unit. What is left is settled by the
    /// next owner.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub drain_timeout: Duration,
    /// Bytes of one command's value; a longer one is dead, payload-too-large.
    pub payload_bytes_max: NonZeroUsize,
    /// Entities that are kept in memory, per partition.
    pub entity_cache_entries_max: NonZeroUsize,
    /// Bytes of outcomes and events that are committed and not yet published, over all partitions;
    /// deciding waits at this limit.
    pub unpublished_bytes_max: NonZeroUsize,
    /// The longest pause between two attempts to reach the database, with its unit.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub database_backoff_max: Duration,
    /// How long a command in SQL that waits for a foreign lock, or runs into
    /// database.statement_timeout, is run again before it has failed on its own account, with its
    /// unit. The topic's on_failure says what follows.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub timed_out_retry_max: Duration,
    /// How often the maintenance duty makes days ahead, raises the horizon and drops what is
    /// behind it, with its unit. One worker at a time has that duty.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub maintenance_interval: Duration,
    /// Commands that wait behind one parked key at most; at one more the partition halts,
    /// parked-limit.
    pub waiting_per_key_max: NonZeroU64,
    /// Parked keys of a partition, and commands that wait behind them, at most; at one more it
    /// halts, parked-limit.
    pub waiting_max: NonZeroU64,
    /// Records, of which more than dead_letter_flood_percent are dead: the partition halts,
    /// dead-letter-flood. Commands behind a parked key are not counted.
    pub dead_letter_flood_records: NonZeroU64,
    /// See dead_letter_flood_records; with 100 nothing halts for this.
    pub dead_letter_flood_percent: u8,
}

const MEBIBYTE: usize = 1024 * 1024;

impl Default for Worker {
    fn default() -> Self {
        Self {
            batch_commands_max: const { NonZeroUsize::new(2_000).unwrap() },
            in_flight_bytes_max: const { NonZeroUsize::new(16 * MEBIBYTE).unwrap() },
            drain_timeout: Duration::from_secs(20),
            payload_bytes_max: const { NonZeroUsize::new(MEBIBYTE).unwrap() },
            entity_cache_entries_max: const { NonZeroUsize::new(20_000).unwrap() },
            unpublished_bytes_max: const { NonZeroUsize::new(32 * MEBIBYTE).unwrap() },
            database_backoff_max: Duration::from_secs(5),
            timed_out_retry_max: Duration::from_secs(30),
            maintenance_interval: Duration::from_secs(30),
            waiting_per_key_max: const { NonZeroU64::new(10_000).unwrap() },
            waiting_max: const { NonZeroU64::new(100_000).unwrap() },
            dead_letter_flood_records: const { NonZeroU64::new(1_000).unwrap() },
            dead_letter_flood_percent: 50,
        }
    }
}

impl Worker {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        if self.payload_bytes_max > self.in_flight_bytes_max {
            let problem = format!(
                "{} is more than worker.in_flight_bytes_max ({}), so such a command could never be read",
                self.payload_bytes_max, self.in_flight_bytes_max
            );
            return Err(Invalid::new("worker.payload_bytes_max", problem));
        }
        if self.dead_letter_flood_percent > 100 {
            let problem = format!("{} is more than 100", self.dead_letter_flood_percent);
            return Err(Invalid::new("worker.dead_letter_flood_percent", problem));
        }
        [
            ("worker.drain_timeout", self.drain_timeout),
            ("worker.database_backoff_max", self.database_backoff_max),
            ("worker.timed_out_retry_max", self.timed_out_retry_max),
            ("worker.maintenance_interval", self.maintenance_interval),
        ]
        .into_iter()
        .try_for_each(|(key, value)| duration::within(key, value, DURATION_MIN, TIMEOUT_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_of_zero_is_refused() {
        let worker = Worker { drain_timeout: Duration::ZERO, ..Worker::default() };
        let invalid = worker.validate().expect_err("zero");
        assert_eq!(invalid.key, "worker.drain_timeout");
        assert_eq!(invalid.problem, "0s is not between 1ms and 1d");
    }

    #[test]
    fn a_payload_has_to_fit_into_the_budget() {
        let worker = Worker { in_flight_bytes_max: NonZeroUsize::MIN, ..Worker::default() };
        assert!(worker.validate().is_err());
    }
}
