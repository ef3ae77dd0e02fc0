//! What a range means on the logs as they are now: offsets, and what of it cannot be read.

use serde::Serialize;

use super::range::{Bound, Place, Range};
use crate::kafka::{InspectError, Inspector, LogEnd};
use crate::record::TopicPartition;

/// A stretch of one partition, with what is missing of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The partition.
    pub source: TopicPartition,
    /// The first offset that can be read.
    pub from: i64,
    /// The offset behind the last that can be read; [`Self::from`] if there is none.
    pub end: i64,
    /// What the log has lost of it.
    pub lost: Option<Lost>,
    /// What an open transaction hides of it.
    pub hidden: Option<Hidden>,
}

/// Offsets of a stretch that the log no longer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// The first of them; `None`: the range begins at a time, and the log only has what is newer, so that
    /// nobody can say what or whether.
    pub from: Option<i64>,
    /// The offset behind the last of them.
    pub to: i64,
}

/// Offsets of a stretch behind the log's last stable offset: nobody who reads committed records has seen them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Hidden {
    /// The first of them.
    pub from: i64,
    /// The offset behind the last of them.
    pub to: i64,
}

impl Stretch {
    /// How many offsets can be read. Some may hold no record: transaction markers.
    pub fn offsets(&self) -> u64 {
        u64::try_from(self.end - self.from).unwrap_or(0)
    }

    /// The offsets that were asked for, from the first to the one behind the last, whether or not the log still
    /// has them; of a range that begins at a time before the log does, those that it has.
    pub fn asked(&self) -> (i64, i64) {
        let from = self.lost.and_then(|lost| lost.from).unwrap_or(self.from);
        let hidden_to = self.hidden.map_or(self.end, |hidden| hidden.to);
        match self.lost {
            Some(lost) if self.offsets() == 0 && self.hidden.is_none() => (from, lost.to),
            _ => (from, hidden_to),
        }
    }

    /// In words, what of the range cannot be read, and why.
    pub fn missing(&self) -> Vec<String> {
        let source = &self.source;
        let lost = self.lost.map(|lost| match lost.from {
            Some(from) => {
                format!(
                    "{source}: offsets {from} to {} are no longer in the log (retention or DeleteRecords)",
                    lost.to - 1
                )
            }
            None => format!(
                "{source}: the log begins at offset {}, later than the range: what was older is no longer in it",
                lost.to
            ),
        });
        let hidden = self
            .hidden
            .map(|hidden| format!("{source}: an open transaction hides offsets {} to {}", hidden.from, hidden.to - 1));
        lost.into_iter().chain(hidden).collect()
    }
}

/// A range cannot be resolved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// There is no such partition.
    #[error("{0} does not exist on this cluster")]
    NoPartition(String),
    /// The broker does not tell.
    #[error("{place}: {error}")]
    Kafka {
        /// The partition.
        place: String,
        /// What it says.
        #[source]
        error: InspectError,
    },
}

impl ResolveError {
    fn of(place: &impl ToString, error: InspectError) -> Self {
        match error {
            InspectError::NoTopic => Self::NoPartition(place.to_string()),
            error => Self::Kafka { place: place.to_string(), error },
        }
    }
}

/// The stretches of a range, in order of topic and partition as they are named; without a place, all partitions
/// of `topics`. Asks the broker: it blocks.
///
/// # Errors
/// If a partition does not exist, or the broker does not answer.
pub fn resolve(inspector: &Inspector, range: &Range, topics: &[&str]) -> Result<Vec<Stretch>, ResolveError> {
    let whole = |topic: &&str| Place { topic: (*topic).to_owned(), partition: None, from: None, to: None };
    let all: Vec<Place> = topics.iter().map(whole).collect();
    let places = if range.places.is_empty() { &all } else { &range.places };
    let mut stretches = Vec::new();
    for place in places {
        let count = inspector.partition_count(&place.topic).map_err(|error| ResolveError::of(&place.topic, error))?;
        let partitions = place.partition.map_or(0..count, |partition| partition..partition + 1);
        for partition in partitions {
            let source = TopicPartition::new(&*place.topic, partition);
            if partition >= count {
                return Err(ResolveError::NoPartition(source.to_string()));
            }
            let stretch = stretch(inspector, &source, range.from_of(place), range.to_of(place));
            stretches.push(stretch.map_err(|error| ResolveError::of(&source, error))?);
        }
    }
    Ok(stretches)
}

fn stretch(
    inspector: &Inspector,
    source: &TopicPartition,
    from: Option<Bound>,
    to: Option<Bound>,
) -> Result<Stretch, InspectError> {
    // the stable end first: it is never beyond the end that is asked afterwards
    let stable = inspector.stable_end(source)?;
    let log = inspector.log_end(source)?;
    let (asked, begins_late) = match from {
        None => (0, false),
        Some(Bound::Offset(offset)) => (offset, false),
        Some(Bound::TimeMs(time_ms)) => {
            let offset = inspector.offset_at(source, time_ms)?;
            let begins_late = log.low > 0
                && offset <= log.low
                && inspector.first_time_from(source, log.low)?.is_none_or(|first_ms| first_ms > time_ms);
            (offset, begins_late)
        }
    };
    let end = match to {
        None => log.high,
        Some(Bound::Offset(offset)) => offset,
        Some(Bound::TimeMs(time_ms)) => inspector.offset_at(source, time_ms)?,
    };
    Ok(cut(source, asked, begins_late, end, log, stable))
}

/// What of the offsets from `asked` to the one before `end` can be read.
fn cut(source: &TopicPartition, asked: i64, begins_late: bool, end: i64, log: LogEnd, stable: i64) -> Stretch {
    let end = end.min(log.high);
    let from = asked.max(log.low).min(end.max(log.low));
    let lost = match asked < log.low && asked < end {
        true => Some(Lost { from: (!begins_late).then_some(asked), to: log.low.min(end) }),
        false => begins_late.then_some(Lost { from: None, to: log.low }),
    };
    let readable = end.min(stable).max(from);
    let hidden = (readable < end).then_some(Hidden { from: readable, to: end });
    Stretch { source: source.clone(), from, end: readable, lost, hidden }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a log from 10 to 100 whose stable end is 90.
    fn of(asked: i64, end: i64) -> Stretch {
        cut(&TopicPartition::new("t", 0), asked, false, end, LogEnd { low: 10, high: 100 }, 90)
    }

    #[test]
    fn what_is_gone_or_hidden_is_said_and_not_read() {
        let whole = of(0, i64::MAX);
        assert_eq!((whole.from, whole.end), (10, 90));
        assert_eq!(whole.lost, Some(Lost { from: Some(0), to: 10 }));
        assert_eq!(whole.hidden, Some(Hidden { from: 90, to: 100 }));
        assert_eq!(whole.offsets(), 80);
        let inside = of(20, 30);
        assert_eq!((inside.from, inside.end, inside.lost, inside.hidden), (20, 30, None, None));
        assert!(inside.missing().is_empty());
        assert_eq!((whole.asked(), inside.asked()), ((0, 100), (20, 30)));
    }

    #[test]
    fn a_range_before_or_behind_the_log_is_empty() {
        let before = of(2, 5);
        assert_eq!((before.offsets(), before.lost), (0, Some(Lost { from: Some(2), to: 5 })));
        assert_eq!(before.asked(), (2, 5));
        let behind = of(200, 300);
        assert_eq!((behind.offsets(), behind.lost, behind.hidden), (0, None, None));
        let hidden = of(95, 100);
        assert_eq!((hidden.offsets(), hidden.hidden), (0, Some(Hidden { from: 95, to: 100 })));
    }

    #[test]
    fn of_a_range_by_time_nobody_knows_what_is_gone() {
        let cut = cut(&TopicPartition::new("t", 0), 10, true, 100, LogEnd { low: 10, high: 100 }, 100);
        assert_eq!((cut.from, cut.lost), (10, Some(Lost { from: None, to: 10 })));
    }
}
