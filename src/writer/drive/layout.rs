//! A topic whose partitions were added while its producers run: what was placed for the layout that
//! the claim knows is settled, the first record that was not halts the partition.

use super::{Ended, Step, Writer};
use crate::assignment::layout_changed;
use crate::halt::Halt;
use crate::writer::batch::Batch;

impl Writer<'_> {
    /// Metadata can be minutes old: before the n-th record is called misrouted, the partition count is
    /// asked afresh. Has it changed, the batch ends before that record.
    pub(super) async fn check_layout(&mut self, batch: &mut Batch, n: usize) -> Step<()> {
        let expected = self.rules.partition_count;
        let found = self.partition.partition_count_now(&self.stop.revoked).await.ok_or(Ended::Stopped)?;
        if found != expected {
            self.lane.give_back(batch.split_off(n).size_bytes());
            self.halts = Some(layout_changed(expected, found));
        }
        Ok(())
    }

    /// Everything before the halt is settled. It is published too, and on record as that: keys move
    /// only from partitions that owe nothing.
    pub(super) async fn halted_at_last(&mut self, halt: Halt) -> Ended {
        tokio::select! {
            biased;
            () = self.stop.revoked.cancelled() => return Ended::Stopped,
            () = self.stop.draining.cancelled() => return Ended::Stopped,
            () = self.partition.poke.notified() => return Ended::Poked,
            () = self.publisher.wait_for(self.cursor.batch_seq) => {}
        }
        match self.tick().await {
            Ok(()) => Ended::Halted(halt),
            Err(ended) => ended,
        }
    }
}
