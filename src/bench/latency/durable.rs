//! When each command became durable, from the worker's own log.
//!
//! The worker logs `settled` as soon as it knows that a batch is committed, before it publishes
//! anything: topic, partition, and from which offset to which. The line's time has microseconds, and
//! is that of this machine's clock, so it can be set beside the time at which a command was due. It
//! stands a little after the commit: what the answer's way takes, and what the writer still does for
//! the next batch, is counted against us. An outcome's Kafka timestamp would say the same, but in whole
//! milliseconds.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

use super::super::Error;
use super::super::paced::Position;

/// What the worker is to log.
pub(super) const LOG_DIRECTIVES: &str = "warn,librdkafka=off,solewriter::writer::report=debug";

/// So much may they drift apart in a run while a time server slews one of them.
const DRIFT_MAX: Duration = Duration::from_millis(1);

/// How often both clocks are read, so that one reading is without an interruption. A count.
const READINGS: usize = 20;

/// One moment by both clocks of this machine: that which only measures, and that of log lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clocks {
    instant: Instant,
    unix_us: u64,
}

impl Clocks {
    /// Reads both several times, and keeps the reading that the least time has passed in: nothing came
    /// between the two.
    pub(super) fn read() -> Self {
        let read = || {
            let instant = Instant::now();
            let unix_us = unix_us();
            (instant.elapsed(), Self { instant, unix_us })
        };
        let again = (1..READINGS).map(|_| read());
        again.fold(read(), |best, next| if next.0 < best.0 { next } else { best }).1
    }

    /// How long after an instant a time of the log is. A line's time is cut off, so it is rounded up.
    fn wait(&self, from: Instant, unix_us: u64) -> Duration {
        let read_after = from.saturating_duration_since(self.instant);
        Duration::from_micros((unix_us + 1).saturating_sub(self.unix_us)).saturating_sub(read_after)
    }

    /// An error if the clock of the log was set since.
    pub(super) fn check(&self) -> Result<(), Error> {
        let now = Self::read();
        let drift = self.wait(self.instant, now.unix_us).abs_diff(now.instant - self.instant);
        if drift < DRIFT_MAX { Ok(()) } else { Err(Error::ClockSet { by_us: drift.as_micros() as u64 }) }
    }
}

fn unix_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

fn unix_us_of(timestamp: &str) -> Option<u64> {
    let at: jiff::Timestamp = timestamp.parse().ok()?;
    u64::try_from(at.as_microsecond()).ok()
}

/// A line of the log.
#[derive(Deserialize)]
struct Line<'a> {
    timestamp: &'a str,
    message: &'a str,
    partition: i32,
    first_offset: i64,
    next_offset: i64,
}

/// Batches by partition, in order of offset: the first, the one behind the last, and when.
#[derive(Debug, Default)]
pub(super) struct Settled {
    batches: HashMap<i32, Vec<(i64, i64, u64)>>,
}

impl Settled {
    /// Reads a worker's log; other lines are none of its business.
    pub(super) fn read(log: &str) -> Self {
        let mut settled = Self::default();
        for line in log.lines().filter_map(|line| serde_json::from_str::<Line<'_>>(line).ok()) {
            if let (Some(at_us), "settled") = (unix_us_of(line.timestamp), line.message) {
                settled.batches.entry(line.partition).or_default().push((line.first_offset, line.next_offset, at_us));
            }
        }
        for batches in settled.batches.values_mut() {
            batches.sort_unstable();
        }
        settled
    }

    /// How long after `due` the command at a position was durable, if it is settled.
    pub(super) fn wait(&self, clocks: &Clocks, due: Instant, (partition, offset): Position) -> Option<Duration> {
        let batches = self.batches.get(&partition)?;
        let behind = batches.partition_point(|(first, ..)| *first <= offset);
        let (_, next, at_us) = batches.get(behind.checked_sub(1)?)?;
        (offset < *next).then(|| clocks.wait(due, *at_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = r#"
{"timestamp":"2026-11-22T22:00:00.000500Z","level":"DEBUG","message":"settled","topic":"a","partition":3,"first_offset":10,"next_offset":12,"target":"solewriter::writer::report"}
{"timestamp":"2026-11-22T22:00:00.001000Z","level":"WARN","message":"dead letter","at":"a:3:11"}
{"timestamp":"2026-11-22T22:00:00.002500Z","level":"DEBUG","message":"settled","topic":"a","partition":3,"first_offset":12,"next_offset":13,"target":"solewriter::writer::report"}
a line that a library has written
"#;

    fn clocks() -> Clocks {
        let at: jiff::Timestamp = "2026-11-22T22:00:00Z".parse().expect("a time");
        Clocks { instant: Instant::now(), unix_us: at.as_microsecond() as u64 }
    }

    #[test]
    fn a_command_is_durable_with_its_batch() {
        let (settled, clocks) = (Settled::read(LOG), clocks());
        let wait = |position| settled.wait(&clocks, clocks.instant, position).map(|wait| wait.as_micros());
        assert_eq!(wait((3, 10)), Some(501));
        assert_eq!(wait((3, 11)), Some(501));
        assert_eq!(wait((3, 12)), Some(2_501));
    }

    #[test]
    fn what_is_in_no_batch_is_not_durable() {
        let (settled, clocks) = (Settled::read(LOG), clocks());
        for position in [(3, 9), (3, 13), (4, 10)] {
            assert_eq!(settled.wait(&clocks, clocks.instant, position), None);
        }
    }

    #[test]
    fn the_wait_counts_from_when_the_command_was_due() {
        let (settled, clocks) = (Settled::read(LOG), clocks());
        let due = clocks.instant + Duration::from_millis(2);
        assert_eq!(settled.wait(&clocks, due, (3, 12)), Some(Duration::from_micros(501)));
    }

    #[test]
    fn a_clock_that_was_set_is_found() {
        let clocks = Clocks::read();
        clocks.check().expect("nobody sets the clock");
        let before = Clocks { unix_us: clocks.unix_us - 10_000, ..clocks };
        assert!(matches!(before.check(), Err(Error::ClockSet { by_us: 9_000..=11_000 })));
    }
}
