//! Who holds the horizon back: told once, and again when it is another one.

use crate::horizon::Pass;
use crate::outcome::rfc3339;
use crate::postgres::LogTime;

/// How much older than the window demands the horizon may be before that is told: an hour. A
/// restart, or a partition that lags a little, passes by itself.
const TOLD_AFTER_MS: i64 = 3_600_000;

/// What was told last.
#[derive(Debug, Default)]
pub(super) struct HeldBack {
    told: Option<(String, i32)>,
}

impl HeldBack {
    /// The horizon stays where it is.
    pub(super) fn tell(&mut self, pass: &Pass, log_times: &[LogTime]) {
        let behind_ms = pass.database_time_ms - pass.window_ms - pass.horizon_ms;
        let Some(oldest) = oldest(log_times).filter(|_| behind_ms > TOLD_AFTER_MS) else {
            self.told = None;
            return;
        };
        let by = (oldest.topic.clone(), oldest.partition);
        if self.told.as_ref() != Some(&by) {
            tracing::warn!(
                topic = by.0,
                partition = by.1,
                settled_and_published_up_to = oldest.time_ms.map_or_else(|| "never looked at".to_owned(), rfc3339),
                "this partition holds the horizon back: no id expires and no day is dropped; type: solewriter status"
            );
            self.told = Some(by);
        }
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
    fn the_partition_that_is_furthest_behind_is_told() {
        let mut held_back = HeldBack::default();
        held_back.tell(&pass(2 * DAY_MS), &[log(0, Some(5)), log(1, Some(4))]);
        assert_eq!(held_back.told, Some(("t".to_owned(), 1)));
        held_back.tell(&pass(2 * DAY_MS), &[log(0, None), log(1, Some(4))]);
        assert_eq!(held_back.told, Some(("t".to_owned(), 0)), "one that nobody has looked at");
    }

    #[test]
    fn nothing_is_told_of_a_horizon_that_is_where_it_should_be() {
        let mut held_back = HeldBack { told: Some(("t".to_owned(), 0)) };
        held_back.tell(&pass(TOLD_AFTER_MS), &[log(0, Some(5))]);
        assert_eq!(held_back.told, None, "and it will be told again");
    }
}
