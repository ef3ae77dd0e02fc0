//! A topic whose partitions were added while its producers run: what was placed for the layout that
//! the claim knows is settled, the first record that was not halts the partition.

use std::time::Duration;

use super::{Ended, Step, Writer};
use crate::assignment::layout_changed;
use crate::halt::Halt;
use crate::writer::batch::Batch;

/// So long a halt waits for the publication of what is settled.
const PUBLISHED_WAIT_MAX: Duration = Duration::from_secs(10);

impl Writer<'_> {
    /// Metadata can be minutes old: before a record is called misrouted, the first being the n-th, the
    /// partition count is asked afresh. Has it changed, the batch ends before that record; while the
    /// old layout is drained, before the first that was placed for the new one.
    pub(super) async fn check_layout(&mut self, batch: &mut Batch, n: usize) -> Step<()> {
        let expected = self.rules.partition_count;
        let found = self.partition.partition_count_now(&self.stop.revoked).await.ok_or(Ended::Stopped)?;
        if found == expected {
            return Ok(());
        }
        let (partitioner, partition) = (self.rules.partitioner, self.rules.source.partition);
        let ends_before = match self.claim.row.draining {
            false => Some(n),
            true => batch.first_misrouted_that(|letter| {
                partitioner.partition(letter.record.key().unwrap_or_default(), found) == partition
            }),
        };
        if let Some(n) = ends_before {
            self.lane.give_back(batch.split_off(n).size_bytes());
            self.halts = Some(layout_changed(expected, found));
        }
        Ok(())
    }

    /// Everything before the halt is settled. It is published too, as far as that can be had, and on
    /// record as that: nobody publishes for a halted partition, and keys move only from partitions
    /// that owe nothing.
    pub(super) async fn halted_at_last(&mut self, halt: Halt) -> Ended {
        tokio::select! {
            biased;
            () = self.stop.revoked.cancelled() => return Ended::Stopped,
            () = self.stop.draining.cancelled() => return Ended::Stopped,
            () = self.partition.poke.notified() => return Ended::Poked,
            _ = tokio::time::timeout(PUBLISHED_WAIT_MAX, self.publisher.wait_for(self.cursor.batch_seq)) => {}
        }
        match self.tick().await {
            Ok(()) => Ended::Halted(halt),
            Err(ended) => ended,
        }
    }
}
