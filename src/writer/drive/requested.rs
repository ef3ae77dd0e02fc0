//! What operators want done with dead letters: done by the owner, in batches of their own, under the
//! same fence, deduplication and cursor as what comes from the log. Nothing can overtake them.

use super::{Ended, Step, Writer};
use crate::writer::backoff;
use crate::writer::batch::Batch;

impl Writer<'_> {
    /// The next dead letters of which something is requested. `None`: there are none (any more).
    pub(super) async fn requested(&mut self) -> Step<Option<Batch>> {
        // what a letter's row owes is published before the row changes
        tokio::select! {
            biased;
            () = self.stop.revoked.cancelled() => return Err(Ended::Stopped),
            () = self.stop.draining.cancelled() => return Err(Ended::Stopped),
            () = self.partition.poke.notified() => return Err(Ended::Poked),
            () = self.publisher.wait_for(self.cursor.batch_seq) => {}
        }
        let letters_max = i64::try_from(self.batch_size.commands_max()).unwrap_or(i64::MAX);
        let mut waits = backoff(self.partition.worker.limits.database_backoff_max);
        let letters = loop {
            match self.partition.worker.store.requested(&self.partition.source, letters_max).await {
                Ok(letters) => break letters,
                Err(error) => self.read_again(error, &mut waits).await?,
            }
        };
        if letters.is_empty() {
            self.partition.requested(false);
            return Ok(None);
        }
        // of those that can be settled together
        self.again.push_front(Batch::requested(letters, &self.rules));
        Ok(self.again.take(self.batch_size.commands_max()))
    }

    /// Ends requests that can't be done.
    pub(super) async fn refuse(&mut self, refused: &[(i64, String)]) -> Step<()> {
        if refused.is_empty() {
            return Ok(());
        }
        for (request_id, why) in refused {
            tracing::warn!(source = %self.partition.source, request_id, why, "a request ends here");
        }
        let mut waits = backoff(self.partition.worker.limits.database_backoff_max);
        loop {
            match self.partition.worker.store.refuse_requests(&self.claim.row.claimed, refused).await {
                Ok(()) => return Ok(()),
                Err(error) => self.read_again(error, &mut waits).await?,
            }
        }
    }
}
