//! Who holds the horizon back: told once, and again when it is another one.

use crate::horizon::Pass;
use crate::outcome::rfc3339;
use crate::postgres::LogTime;

/// How much older than the window demands the horizon may be before that is told: an hour. A
/// restart, or a partition that lags a little, passes by itself.
const TOLD_AFTER_MS: i64 = 3_600_000;

/// Passes in a row with the same culprit before it is told: after a restart the logs have yet to be
/// looked at.
const TOLD_AFTER_PASSES: u32 = 10;

/// Who holds the horizon back, and for how many passes.
#[derive(Debug, Default)]
pub(super) struct HeldBack {
    by: Option<(String, i32)>,
    passes: u32,
}

impl HeldBack {
    /// The horizon stays where it is.
    pub(super) fn tell(&mut self, pass: &Pass, log_times: &[LogTime]) {
        let behind_ms = pass.database_time_ms - pass.window_ms - pass.horizon_ms;
        let Some(oldest) = oldest(log_times).filter(|_| behind_ms > TOLD_AFTER_MS) else {
            *self = Self::default();
            return;
        };
        if self.is_due(oldest) {
            tracing::warn!(
                topic = oldest.topic,
                partition = oldest.partition,
                settled_and_published_up_to = oldest.time_ms.map_or_else(|| "never looked at".to_owned(), rfc3339),
                "this partition holds the horizon back: no id expires and no day is dropped; type: solewriter status"
            );
        }
    }

    /// Counts a pass; whether this is the one at which it is told.
    fn is_due(&mut self, oldest: &LogTime) -> bool {
        let by = (oldest.topic.clone(), oldest.partition);
        if self.by.as_ref() != Some(&by) {
            *self = Self { by: Some(by), passes: 0 };
        }
        self.passes = self.passes.saturating_add(1);
        self.passes == TOLD_AFTER_PASSES
    }
}

/// `None` sorts first: never looked at.
fn oldest(log_times: &[LogTime]) -> Option<&LogTime> {
    log_times.iter().min_by_key(|log| log.time_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 24 * TOLD_AFTER_MS;

    fn log(partition: i32, time_ms: Option<i64>) -> LogTime {
        LogTime { topic: "t".to_owned(), partition, partition_count: 2, time_ms }
    }

    fn pass(behind_ms: i64) -> Pass {
        let (now, window_ms) = (100 * DAY_MS, 7 * DAY_MS);
        let horizon_ms = now - window_ms - behind_ms;
        Pass { horizon_ms, database_time_ms: now, worker_time_ms: now, log_times_ms: Vec::new(), window_ms }
    }

    #[test]
    fn the_partition_that_is_furthest_behind_is_told_once() {
        let (zero, one) = (log(0, None), log(1, Some(4)));
        assert_eq!(oldest(&[log(0, Some(5)), one.clone()]).map(|log| log.partition), Some(1));
        assert_eq!(oldest(&[one.clone(), zero.clone()]).map(|log| log.partition), Some(0), "nobody has looked at it");
        let mut held_back = HeldBack::default();
        let due: Vec<u32> = (1..=3 * TOLD_AFTER_PASSES).filter(|_| held_back.is_due(&one)).collect();
        assert_eq!(due, [TOLD_AFTER_PASSES]);
        let due: Vec<u32> = (1..=3 * TOLD_AFTER_PASSES).filter(|_| held_back.is_due(&zero)).collect();
        assert_eq!(due, [TOLD_AFTER_PASSES], "another one is told again");
    }

    #[test]
    fn nothing_is_told_of_a_horizon_that_is_where_it_should_be() {
        let mut held_back = HeldBack::default();
        held_back.tell(&pass(2 * DAY_MS), &[log(0, Some(5))]);
        assert_eq!((held_back.by.is_some(), held_back.passes), (true, 1));
        held_back.tell(&pass(TOLD_AFTER_MS), &[log(0, Some(5))]);
        assert_eq!((held_back.by, held_back.passes), (None, 0));
    }
}
