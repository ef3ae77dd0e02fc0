//! The watermark and the log time: carried by settlements, recorded while there
//! are none.

use std::time::Duration;

use super::{LOG_TIME_STEP_MS, Step, Writer, stale};
use crate::cursor::Published;
use crate::postgres::Progress;

impl Writer<'_> {
    /// How far everything is published. An operator may have moved the cursor
    /// while older batches still owed publications.
    pub(super) fn published(&self) -> Published {
        let published = self.publisher.published();
        let cursor = self.cursor;
        let next_offset = if published.batch_seq >= cursor.batch_seq {
            cursor.next_offset
        } else {
            published.next_offset.min(cursor.next_offset)
        };
        Published { next_offset, ..published }
    }

    pub(super) fn progress(&mut self) -> Progress {
        if let Some(look) = self.partition.look() {
            self.looks.looked(look);
        }
        let published = self.published();
        if let Some(log_time_ms) = self.looks.satisfied(published.next_offset) {
            self.log_time_ms = Some(log_time_ms);
        }
        let progress = Progress { published, log_time_ms: self.log_time_ms };
        self.recorded = progress;
        progress
    }

    /// Nothing to settle: record the watermark, if it has moved.
    pub(super) async fn tick(&mut self) -> Step<()> {
        let before = self.recorded;
        let progress = self.progress();
        let log_time_moved = progress.log_time_ms.unwrap_or(0) - before.log_time_ms.unwrap_or(0) >= LOG_TIME_STEP_MS;
        if progress.published == before.published && !log_time_moved {
            self.recorded = before;
            return Ok(());
        }
        match self.partition.worker.store.record_progress(&self.claim.row.claimed, self.cursor, progress).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(stale()),
            Err(error) => {
                tracing::warn!(source = %self.partition.source, %error, "recording what is published");
                self.recorded = before;
                Ok(())
            }
        }
    }

    /// Told to stop: a process that ends also waits until everything is published.
    pub(super) async fn wind_up(&mut self) {
        if self.stop.draining.is_cancelled() {
            tokio::select! {
                // replaced or not, this owner has nothing more to do
                _ = self.publisher.wait_for(self.cursor.batch_seq) => {}
                () = self.stop.revoked.cancelled() => {}
            }
        }
        let progress = self.progress();
        let recorded = self.partition.worker.store.record_progress(&self.claim.row.claimed, self.cursor, progress);
        // the next owner publishes again what is not recorded here
        let _ = tokio::time::timeout(Duration::from_secs(1), recorded).await;
    }
}
