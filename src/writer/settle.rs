//! Sends a settlement until the database has answered it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio_util::sync::CancellationToken;

use crate::postgres::{Error, Progress, Refusal, Settling, Store};
use crate::steps::commit::Settlement;

/// A settlement that waits for a lock, or takes too long, is sent again as it is
/// for this long; then with fewer commands.
const TIMED_OUT_MAX: Duration = Duration::from_secs(2);

/// How a settlement ended.
pub(super) type Answered = Result<Settling, Refusal>;

/// Everything that sending needs; owned, as it runs in a task of its own that is
/// never aborted: a future dropped in the middle of a call would leave the
/// connection, and the answer, unknown.
pub(super) struct Sending {
    pub store: Store,
    pub settlement: Settlement,
    pub progress: Progress,
    pub type_ids: Arc<dyn Fn(&str) -> i16 + Send + Sync>,
    /// The client gives up on an answer after this, and sends again.
    pub answer_wait_max: Duration,
    pub backoff_max: Duration,
    /// Ends the sending between two attempts; the fence covers the last one.
    pub give_up: CancellationToken,
}

impl Sending {
    /// Sends the same compare-and-set again after a lost connection or a
    /// time-out: its decision id tells whether an earlier sending won. `None`:
    /// given up.
    pub async fn until_answered(self) -> Option<Answered> {
        let mut waits = backoff(self.backoff_max);
        let began = Instant::now();
        loop {
            let call = self.store.settle(&self.settlement, self.progress, &*self.type_ids);
            let error = match tokio::time::timeout(self.answer_wait_max, call).await {
                Ok(Ok(settling)) => return Some(Ok(settling)),
                Ok(Err(error)) => error,
                Err(_) => Error::unanswered(self.answer_wait_max),
            };
            match error {
                Error::Refused(Refusal::DayMissing) => {
                    if let Err(Error::Refused(refusal)) =
                        self.store.make_days_of(self.settlement.decision.final_ids()).await
                    {
                        tracing::warn!(%refusal, "making a day of the idempotency table");
                    }
                }
                Error::Refused(refusal @ Refusal::TimedOut(_)) if began.elapsed() < TIMED_OUT_MAX => {
                    self.report(&refusal)
                }
                Error::Refused(refusal) => return Some(Err(refusal)),
                Error::Unavailable { .. } => self.report(&error),
            }
            let wait = waits.next().unwrap_or(self.backoff_max);
            tokio::select! {
                () = self.give_up.cancelled() => return None,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn report(&self, error: &dyn std::fmt::Display) {
        let source = self.settlement.claimed.source();
        tracing::warn!(%source, next_offset = self.settlement.cursor.next_offset, %error, "the batch is not settled yet: sent again");
    }
}

/// Growing waits with jitter, for ever, up to `max`.
pub(crate) fn backoff(max: Duration) -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(max)
        .without_max_times()
        .with_jitter()
        .build()
}
