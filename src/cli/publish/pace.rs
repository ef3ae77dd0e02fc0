//! Not more than so many a second.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// What a late start may catch up with: the timer's own coarseness, and no stall of the input.
const CATCH_UP_MAX: Duration = Duration::from_millis(20);

/// Paces a loop.
pub(super) struct Pace {
    gap: Option<Duration>,
    next: Instant,
}

impl Pace {
    /// Without a rate it never waits.
    pub(super) fn new(per_second: Option<NonZeroU32>) -> Self {
        Self { gap: per_second.map(|rate| Duration::from_secs(1) / rate.get()), next: Instant::now() }
    }

    /// Waits for the next turn.
    pub(super) async fn next(&mut self) {
        let Some(gap) = self.gap else { return };
        let now = Instant::now();
        self.next = self.next.max(now.checked_sub(CATCH_UP_MAX).unwrap_or(now));
        if self.next > now {
            sleep_until(self.next).await;
        }
        self.next += gap;
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
            pace.next().await;
        }
        assert!(begin.elapsed() >= Duration::from_millis(95 - 20), "{:?}", begin.elapsed());
        let begin = Instant::now();
        let mut pace = Pace::new(None);
        for _ in 0..100_000 {
            pace.next().await;
        }
        assert!(begin.elapsed() < Duration::from_secs(1));
    }
}
