//! What operators want done with dead letters: done by the owner, in batches of their own, under the
//! same fence, deduplication and cursor as what comes from the log. Nothing can overtake them.

use super::{Ended, Step, Writer, stale};
use crate::postgres::{LetterSpan, Result};
use crate::record::Record;
use crate::steps::decide::RequestedLetter;
use crate::writer::backoff;
use crate::writer::batch::Batch;

/// Letters that are read at a time: bytes of their values, and one letter more.
const LETTERS_BYTES_MAX: i64 = 16 << 20;

/// A batch that begins with the same letter and was begun more often than this has probably ended the
/// process: from here on one letter at a time.
const ONE_BY_ONE_AFTER: i32 = 1;
/// A letter is not begun more often than this. Workers are also killed for reasons of their own.
const BEGINNINGS_MAX: i32 = 5;

impl Writer<'_> {
    /// The next dead letters of which something is requested. `None`: there are none (any more), or
    /// none that run.
    pub(super) async fn requested_letters(&mut self) -> Step<Option<Batch>> {
        let mut letters = self.read_requested().await?;
        let Some((_, first)) = letters.first() else {
            (self.letters_begun_with, self.letters_one_by_one) = (None, false);
            self.partition.letters_requested(false);
            return Ok(None);
        };
        let (dead_letter_id, request_id) = (first.dead_letter_id, first.request_id);
        // what a letter's row owes is published before the row changes
        tokio::select! {
            biased;
            () = self.stop.revoked.cancelled() => return Err(Ended::Stopped),
            () = self.stop.draining.cancelled() => return Err(Ended::Stopped),
            () = self.partition.poke.notified() => return Err(Ended::Poked),
            published = self.publisher.wait_for(self.cursor.batch_seq) => published.map_err(|_| stale())?,
        }
        if self.letters_begun_with != Some(dead_letter_id) {
            // what is begun anew by the same owner has not ended its process
            let last = letters.last().map(|(_, letter)| letter.dead_letter_id);
            let beginnings = self.begin_letters(dead_letter_id, last.unwrap_or(dead_letter_id)).await?;
            self.letters_begun_with = Some(dead_letter_id);
            self.letters_one_by_one = beginnings > ONE_BY_ONE_AFTER;
            if beginnings > BEGINNINGS_MAX {
                let why = format!(
                    "its owner's process has ended {} times while letter {dead_letter_id} ran alone (out of memory, \
                     stack overflow, abort, or killed): correct its handler, its data (--edit), or discard it",
                    BEGINNINGS_MAX - ONE_BY_ONE_AFTER
                );
                self.letters_begun_with = None;
                self.refuse(&[(request_id, why)]).await?;
                return Ok(None);
            }
        }
        if self.letters_one_by_one {
            letters.truncate(1);
        }
        self.again.push_front(Batch::of_letters(letters, &self.rules));
        // of those that can be settled together
        Ok(self.again.take(self.batch_size.commands_max()))
    }

    async fn read_requested(&mut self) -> Step<Vec<(Record, RequestedLetter)>> {
        let letters_max = match self.letters_one_by_one {
            true => 1,
            false => i64::try_from(self.batch_size.commands_max()).unwrap_or(i64::MAX),
        };
        let span = LetterSpan { letters_max, bytes_max: LETTERS_BYTES_MAX };
        let mut waits = backoff(self.partition.worker.limits.database_backoff_max);
        loop {
            let read = async {
                let store = &self.partition.worker.store;
                store.end_requests(&self.claim.row.claimed).await?;
                let letters = store.requested_letters(&self.partition.source, span).await?;
                if letters.is_empty() {
                    store.end_letters(&self.claim.row.claimed).await?;
                }
                Result::Ok(letters)
            };
            match read.await {
                Ok(letters) => return Ok(letters),
                Err(error) => self.read_again(error, &mut waits).await?,
            }
        }
    }

    /// How often a batch that begins with this letter was begun, this time included.
    async fn begin_letters(&mut self, first: i64, last: i64) -> Step<i32> {
        let mut waits = backoff(self.partition.worker.limits.database_backoff_max);
        loop {
            match self.partition.worker.store.begin_letters(&self.claim.row.claimed, first, last).await {
                Ok(Some(beginnings)) => return Ok(beginnings),
                Ok(None) => return Err(stale()),
                Err(error) => self.read_again(error, &mut waits).await?,
            }
        }
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
