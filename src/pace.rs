//! Not more than so many a second.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// What a late start may catch up with: the timer's own coarseness, and no stall of the input.
const CATCH_UP_MAX: Duration = Duration::from_millis(20);

/// Paces a loop.
#[derive(Debug)]
pub struct Pace {
    gap: Option<Duration>,
    due: Instant,
}

impl Pace {
    /// So many turns a second. Without a rate it never waits.
    pub fn new(per_second: Option<NonZeroU32>) -> Self {
        Self { gap: per_second.map(|rate| Duration::from_secs(1) / rate.get()), due: Instant::now() }
    }

    /// How many to take at a time so that a slow rate goes evenly: what a tenth of a second allows, at most `max`.
    pub fn even(per_second: Option<NonZeroU32>, max: usize) -> usize {
        per_second.map_or(max, |rate| rate.get() as usize / 10).clamp(1, max)
    }

    /// Waits for the next turn.
    pub async fn turn(&mut self) {
        self.turns(1).await;
    }

    /// Waits for a turn that counts as so many: the one after it waits the longer. A caller may drop the
    /// wait (a stop): the turn is not counted then.
    pub async fn turns(&mut self, count: u32) {
        let Some(gap) = self.gap else { return };
        let now = Instant::now();
        self.due = self.due.max(now.checked_sub(CATCH_UP_MAX).unwrap_or(now));
        if self.due > now {
            sleep_until(self.due).await;
        }
        self.due += gap * count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_rate_is_kept_over_many_commands() {
        let begin = Instant::now();
        let mut pace = Pace::new(NonZeroU32::new(1_000));
        for _ in 0..100 {
            pace.turn().await;
        }
        assert!(begin.elapsed() >= Duration::from_millis(95 - 20), "{:?}", begin.elapsed());
        let begin = Instant::now();
        let mut pace = Pace::new(None);
        for _ in 0..100_000 {
            pace.turn().await;
        }
        assert!(begin.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test]
    async fn a_turn_that_counts_as_many_is_paid_by_the_next() {
        let begin = Instant::now();
        let mut pace = Pace::new(NonZeroU32::new(1_000));
        pace.turns(100).await;
        pace.turn().await;
        assert!(begin.elapsed() >= Duration::from_millis(100 - 20), "{:?}", begin.elapsed());
    }
}
