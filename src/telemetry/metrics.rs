//! Every metric, by name, with one function that emits it. No entity and no command id in a label:
//! labels cost memory for as long as the process lives.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use super::partition_state::PartitionState;
use crate::parked_keys::ParkedKeys;

/// Settled deliveries. Labels: topic, `command_type` (`unknown` for an unknown type), outcome.
pub const COMMANDS_TOTAL: &str = "solewriter_commands_total";
/// Commands per batch (histogram).
pub const BATCH_COMMANDS: &str = "solewriter_batch_commands";
/// Seconds from sending a batch to its answer (histogram).
pub const COMMIT_SECONDS: &str = "solewriter_commit_seconds";
/// Seconds from a record's timestamp to its being durable (histogram).
pub const COMMAND_AGE_SECONDS: &str = "solewriter_command_age_seconds";
/// Records between the cursor and the end of the log. Labels: topic, partition.
pub const PARTITION_LAG: &str = "solewriter_partition_lag";
/// Age in seconds of the oldest unsettled record. Labels: topic, partition.
pub const PARTITION_LAG_SECONDS: &str = "solewriter_partition_lag_seconds";
/// 1 for the state that a partition is in, 0 for the others. Labels: topic, partition, state.
pub const PARTITION_STATE: &str = "solewriter_partition_state";
/// 1 for the code that a partition is halted with, 0 for one that it was. Labels: topic, partition, code.
pub const PARTITION_HALTED: &str = "solewriter_partition_halted";
/// The token that this process holds, 0 when it holds none. Labels: topic, partition.
pub const FENCING_TOKEN: &str = "solewriter_fencing_token";
/// Writes that the database refused because the token was stale.
pub const FENCED_TOTAL: &str = "solewriter_fenced_total";
/// Claims of a partition. Label: reason.
pub const CLAIMS_TOTAL: &str = "solewriter_claims_total";
/// Rebalances that this process took part in.
pub const REBALANCES_TOTAL: &str = "solewriter_rebalances_total";
/// Outcomes that are committed and not yet on their topic. Labels: topic, partition.
pub const UNPUBLISHED_OUTCOMES: &str = "solewriter_unpublished_outcomes";
/// Keys that wait behind a dead letter. Labels: topic, partition.
pub const PARKED_KEYS: &str = "solewriter_parked_keys";
/// Commands that wait behind parked keys. Labels: topic, partition.
pub const WAITING_COMMANDS: &str = "solewriter_waiting_commands";
/// Seconds by which the horizon is older than the window demands, as this process has last read it.
pub const HORIZON_LAG_SECONDS: &str = "solewriter_horizon_lag_seconds";
/// Passes of the maintenance duty that this process has made from end to end.
pub const MAINTENANCE_PASSES_TOTAL: &str = "solewriter_maintenance_passes_total";
/// 1. Label: version.
pub const BUILD_INFO: &str = "solewriter_build_info";

/// The label of a type that no handler knows; the real name would be chosen by whoever sends it.
pub const UNKNOWN_COMMAND_TYPE: &str = "unknown";

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Settled {
    /// It changed its entity.
    Applied,
    /// A rule said no.
    Rejected,
    /// Its id was settled before.
    Duplicate,
    /// It had no effect.
    Dead,
}

impl Settled {
    /// The value of the label `outcome`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Rejected => "rejected",
            Self::Duplicate => "duplicate",
            Self::Dead => "dead",
        }
    }
}

/// Counts `n` settled deliveries of one type and outcome.
pub fn commands(topic: &str, command_type: &str, outcome: Settled, n: u64) {
    counter!(
        COMMANDS_TOTAL,
        "topic" => topic.to_owned(),
        "command_type" => command_type.to_owned(),
        "outcome" => outcome.as_str(),
    )
    .increment(n);
}

/// Records one committed batch: its size, and the time from sending it to the answer.
pub fn batch(commands: usize, commit: Duration) {
    // Batches are far below 2^52 commands, so nothing is lost.
    histogram!(BATCH_COMMANDS).record(commands as f64);
    histogram!(COMMIT_SECONDS).record(commit);
}

/// Records how old a command was when it became durable.
pub fn command_age(age: Duration) {
    histogram!(COMMAND_AGE_SECONDS).record(age);
}

/// Counts a write that was refused because the token was stale.
pub fn fenced() {
    counter!(FENCED_TOTAL).increment(1);
}

/// Counts a claim; `reason` is one of a fixed few words, such as `assigned` or `fenced`.
pub fn claimed(reason: &'static str) {
    counter!(CLAIMS_TOTAL, "reason" => reason).increment(1);
}

/// Counts a rebalance.
pub fn rebalanced() {
    counter!(REBALANCES_TOTAL).increment(1);
}

/// By how many milliseconds the horizon is older than the window demands.
pub fn horizon_lag(milliseconds: i64) {
    gauge!(HORIZON_LAG_SECONDS).set(milliseconds as f64 / 1000.0);
}

/// Counts a pass of the maintenance duty.
pub fn maintenance_pass() {
    counter!(MAINTENANCE_PASSES_TOTAL).increment(1);
}

/// The gauges of one partition; its writer owns it.
#[derive(Clone, Debug)]
pub struct Partition {
    topic: String,
    partition: String,
    halted: Arc<Mutex<Option<String>>>,
}

impl Partition {
    /// The gauges of one partition of one topic.
    #[must_use]
    pub fn new(topic: &str, partition: i32) -> Self {
        Self { topic: topic.to_owned(), partition: partition.to_string(), halted: Arc::default() }
    }

    /// Records between the cursor and the end, and the age of the oldest of them.
    pub fn lag(&self, records: u64, age: Duration) {
        self.set(PARTITION_LAG, records as f64);
        self.set(PARTITION_LAG_SECONDS, age.as_secs_f64());
    }

    /// The state it is in now.
    pub fn state(&self, now: PartitionState) {
        self.only_state(Some(now));
    }

    /// Why it is halted, if it is.
    pub fn halted(&self, code: Option<&str>) {
        let mut halted = self.halted.lock().unwrap_or_else(PoisonError::into_inner);
        for (code, value) in [(halted.as_deref(), 0.0), (code, 1.0)] {
            let Some(code) = code else { continue };
            gauge!(
                PARTITION_HALTED,
                "topic" => self.topic.clone(),
                "partition" => self.partition.clone(),
                "code" => code.to_owned(),
            )
            .set(value);
        }
        *halted = code.map(str::to_owned);
    }

    /// The token it was claimed with.
    pub fn fencing_token(&self, token: i64) {
        self.set(FENCING_TOKEN, token as f64);
    }

    /// Outcomes that wait for publication.
    pub fn unpublished_outcomes(&self, outcomes: usize) {
        self.set(UNPUBLISHED_OUTCOMES, outcomes as f64);
    }

    /// Keys that wait behind a dead letter, and the commands that wait with them.
    pub fn parked(&self, keys: &ParkedKeys) {
        self.set(PARKED_KEYS, keys.len() as f64);
        self.set(WAITING_COMMANDS, keys.waiting_in_all() as f64);
    }

    /// Back to nothing when the partition is given up: another process reports it from now on, and
    /// a gauge that stays would be counted twice.
    pub fn released(&self) {
        self.lag(0, Duration::ZERO);
        self.only_state(None);
        self.halted(None);
        self.fencing_token(0);
        self.unpublished_outcomes(0);
        self.parked(&ParkedKeys::default());
    }

    fn only_state(&self, now: Option<PartitionState>) {
        for state in PartitionState::ALL {
            gauge!(
                PARTITION_STATE,
                "topic" => self.topic.clone(),
                "partition" => self.partition.clone(),
                "state" => state.as_str(),
            )
            .set(if now == Some(state) { 1.0 } else { 0.0 });
        }
    }

    fn set(&self, name: &'static str, value: f64) {
        gauge!(name, "topic" => self.topic.clone(), "partition" => self.partition.clone()).set(value);
    }
}

/// Describes every metric to the recorder, and starts the ones without labels at 0 so that a rate
/// over them sees their first increment. Call it once, after a recorder is installed.
pub fn describe() {
    describe_counters();
    describe_histograms();
    describe_gauges();
    counter!(FENCED_TOTAL).increment(0);
    counter!(REBALANCES_TOTAL).increment(0);
    counter!(MAINTENANCE_PASSES_TOTAL).increment(0);
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

fn describe_counters() {
    describe_counter!(COMMANDS_TOTAL, "settled deliveries, by what became of them");
    describe_counter!(FENCED_TOTAL, "writes refused because the fencing token was stale");
    describe_counter!(CLAIMS_TOTAL, "claims of a partition, by reason");
    describe_counter!(REBALANCES_TOTAL, "rebalances that this process took part in");
    describe_counter!(MAINTENANCE_PASSES_TOTAL, "passes of the maintenance duty that this process has made");
}

fn describe_histograms() {
    describe_histogram!(BATCH_COMMANDS, Unit::Count, "commands per committed batch");
    describe_histogram!(COMMIT_SECONDS, Unit::Seconds, "from sending a batch to its answer");
    describe_histogram!(COMMAND_AGE_SECONDS, Unit::Seconds, "from a record's timestamp to its being durable");
}

fn describe_gauges() {
    describe_gauge!(PARTITION_LAG, Unit::Count, "records between the cursor and the end of the log");
    describe_gauge!(PARTITION_LAG_SECONDS, Unit::Seconds, "age of the oldest unsettled record");
    describe_gauge!(PARTITION_STATE, "1 for the state that a partition is in");
    describe_gauge!(PARTITION_HALTED, "1 for the code that the partition is halted with");
    describe_gauge!(FENCING_TOKEN, "the token that this process holds, 0 when it holds none");
    describe_gauge!(UNPUBLISHED_OUTCOMES, Unit::Count, "outcomes committed and not yet on their topic");
    describe_gauge!(PARKED_KEYS, Unit::Count, "keys that wait behind a dead letter");
    describe_gauge!(WAITING_COMMANDS, Unit::Count, "commands that wait behind parked keys");
    describe_gauge!(HORIZON_LAG_SECONDS, Unit::Seconds, "by how much the horizon is older than the window demands");
    describe_gauge!(BUILD_INFO, "1, labelled with the version");
}
