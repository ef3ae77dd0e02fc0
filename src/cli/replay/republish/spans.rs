//! Which batches are meant: those that the same command has begun and not ended, or those of the range.

use std::sync::Arc;

use super::Args;
use crate::cli::inspect::SCAN_TIMEOUT;
use crate::cli::replay::range::resolved;
use crate::config::Config;
use crate::kafka::Inspector;
use crate::postgres::{Kept, Republication, Store};
use crate::replay::resolve::{Lost, Stretch};
use crate::runtime::worker_time_ms;

/// A partition's batches that are published again.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) row: Republication,
    /// An earlier run of the same command has begun it.
    pub(super) goes_on: bool,
    /// Offsets whose batches are dropped.
    pub(super) dropped: Option<Lost>,
    /// Settled batches of the range whose first publication the worker still owes.
    pub(super) left_to_worker: i64,
    /// What of the range is unknown, in words.
    pub(super) notes: Vec<String>,
}

impl Span {
    /// How many batches are to be published.
    pub(super) fn batches_left(&self) -> u64 {
        u64::try_from(self.row.through_seq - self.row.done_seq).unwrap_or(0)
    }
}

pub(super) async fn of(
    args: &Args,
    asked: &str,
    config: &Config,
    store: &Store,
    inspector: &Arc<Inspector>,
) -> anyhow::Result<Vec<Span>> {
    if !args.restart {
        let begun = store.republications(asked).await?;
        if !begun.is_empty() {
            return Ok(begun.into_iter().map(goes_on).collect());
        }
    }
    let stretches = resolved(config, inspector, &args.range.range()?).await?;
    let mut spans = Vec::with_capacity(stretches.len());
    for stretch in stretches {
        // whether or not the log still has them: the tables are asked, not the log
        let (from, to) = stretch.asked();
        let kept = store.kept_batches(&stretch.source, from, to, SCAN_TIMEOUT).await?;
        spans.push(begins(&stretch, (from, to), kept));
    }
    Ok(spans)
}

fn goes_on(row: Republication) -> Span {
    Span { row, goes_on: true, dropped: None, left_to_worker: 0, notes: Vec::new() }
}

fn begins(stretch: &Stretch, (from, to): (i64, i64), kept: Option<Kept>) -> Span {
    let source = &stretch.source;
    let mut notes = Vec::new();
    if stretch.lost.is_some_and(|lost| lost.from.is_none()) {
        notes.extend(stretch.missing());
        notes.push(format!("{source}: to publish what is older, name its offsets: {source}:FROM-TO"));
    }
    let settled = kept.map_or(0, |kept| kept.next_offset);
    if settled < to {
        notes.push(format!("{source}: the cursor stands at {settled}: what is not settled has no outcome yet"));
    }
    let dropped = kept.and_then(|kept| dropped(&kept, from, to));
    if let Some(Lost { from: Some(from), to }) = dropped {
        notes.push(format!(
            "{source}: offsets {from} to {} were settled so long ago that their batches are dropped \
             (deduplication.window): what they owed, and in which order, is no longer known",
            to - 1
        ));
    }
    let (after_seq, through, published) = match kept {
        Some(Kept { after_seq: Some(after), through_seq: Some(through), published_seq, .. }) => {
            (after, through.max(after), published_seq)
        }
        // nothing of it is settled, or nothing of it is kept
        _ => (0, 0, 0),
    };
    let through_seq = through.min(published).max(after_seq);
    let row = Republication {
        topic: source.topic.to_string(),
        partition: source.partition,
        begun_at_ms: worker_time_ms(),
        from_offset: from,
        to_offset: to,
        after_seq,
        through_seq,
        done_seq: after_seq,
    };
    Span { row, goes_on: false, dropped, left_to_worker: through - through_seq, notes }
}

/// Offsets of the range below the oldest batch that is kept, if older ones were.
fn dropped(kept: &Kept, from: i64, to: i64) -> Option<Lost> {
    let upto = match (kept.oldest_seq, kept.oldest_offset) {
        // the first batch ever
        (Some(..=1), _) => from,
        (Some(_), Some(offset)) => offset.min(to),
        // none is kept: whatever was settled is dropped, if anything was
        _ if kept.published_seq > 0 => kept.next_offset.min(to),
        _ => from,
    };
    (from < upto).then_some(Lost { from: Some(from), to: upto })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::TopicPartition;

    fn kept() -> Kept {
        Kept {
            after_seq: Some(4),
            through_seq: Some(9),
            published_seq: 9,
            oldest_seq: Some(3),
            oldest_offset: Some(30),
            next_offset: 100,
        }
    }

    fn stretch(from: i64, end: i64) -> Stretch {
        Stretch { source: TopicPartition::new("t", 0), from, end, lost: None, hidden: None }
    }

    #[test]
    fn a_span_ends_where_the_worker_has_published() {
        let span = begins(&stretch(40, 80), (40, 80), Some(Kept { published_seq: 7, ..kept() }));
        assert_eq!((span.row.after_seq, span.row.through_seq, span.left_to_worker), (4, 7, 2));
        assert_eq!((span.batches_left(), span.dropped), (3, None));
        let unclaimed = begins(&stretch(0, 80), (0, 80), None);
        assert_eq!(unclaimed.batches_left(), 0);
        let to_come = Kept { after_seq: None, ..kept() };
        assert_eq!(begins(&stretch(100, 120), (100, 120), Some(to_come)).batches_left(), 0);
        let behind = Kept { after_seq: Some(9), published_seq: 7, ..kept() };
        let span = begins(&stretch(90, 99), (90, 99), Some(behind));
        assert_eq!((span.batches_left(), span.left_to_worker), (0, 0), "nothing of it is published yet");
    }

    #[test]
    fn dropped_batches_are_said() {
        assert_eq!(dropped(&kept(), 10, 80), Some(Lost { from: Some(10), to: 30 }));
        assert_eq!(dropped(&kept(), 30, 80), None);
        assert_eq!(dropped(&Kept { oldest_seq: Some(1), ..kept() }, 10, 80), None, "nothing was before it");
        let none = Kept { oldest_seq: None, oldest_offset: None, ..kept() };
        assert_eq!(dropped(&none, 10, 80), Some(Lost { from: Some(10), to: 80 }));
    }
}
