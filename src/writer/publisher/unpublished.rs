//! One limit in bytes for what all partitions have settled and not yet delivered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::outcome::{Ending, Publication};
use crate::steps::commit::{Due, Durable};

/// What a record costs beside its value while it waits: bytes.
const PUBLICATION_OVERHEAD_BYTES: usize = 1500;

/// What all partitions of a worker have settled and is not yet delivered.
#[derive(Debug, Default)]
pub struct Unpublished {
    bytes: AtomicUsize,
    freed: Notify,
}

impl Unpublished {
    pub(super) fn hold(self: &Arc<Self>, bytes: usize) -> Waiting {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        Waiting { bytes, of: self.clone() }
    }

    /// Waits until less than `bytes_max` wait to be delivered.
    pub(super) async fn room(&self, bytes_max: usize) {
        loop {
            let freed = self.freed.notified();
            if self.bytes.load(Ordering::Acquire) < bytes_max {
                return;
            }
            freed.await;
        }
    }
}

/// A batch's share of what waits to be delivered, given back when it is dropped:
/// delivered, or thrown away to be read from the database again.
pub(super) struct Waiting {
    bytes: usize,
    of: Arc<Unpublished>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.of.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.of.freed.notify_waiters();
    }
}

/// What a settled batch costs until it is delivered, in bytes.
pub(super) fn settled_bytes(durable: &Durable) -> usize {
    let bytes = |due: Due<'_>| match due {
        Due::Outcome(outcome) => match &outcome.ending {
            Ending::Applied { reply, events } => {
                let events = events.iter().map(|event| event.data.get().len() + PUBLICATION_OVERHEAD_BYTES);
                reply.get().len() + PUBLICATION_OVERHEAD_BYTES + events.sum::<usize>()
            }
            Ending::Rejected { .. } => PUBLICATION_OVERHEAD_BYTES,
        },
        Due::Repeat(_) => PUBLICATION_OVERHEAD_BYTES,
        Due::Dead(letter, _) => letter.record.size_bytes() + PUBLICATION_OVERHEAD_BYTES,
    };
    durable.due().map(bytes).sum()
}

/// The same for one that was read back from the database.
pub(super) fn owed_bytes<'a>(publications: impl Iterator<Item = Publication<'a>>) -> usize {
    let bytes = |publication: Publication<'_>| publication.value.as_deref().map_or(0, <[u8]>::len);
    publications.map(|publication| bytes(publication) + PUBLICATION_OVERHEAD_BYTES).sum()
}
