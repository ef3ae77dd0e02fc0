//! A range of the log as people write it: which partitions, from where to where, and which records of it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::record::Record;

/// A range, before the broker was asked what it means (see [`resolve`](super::resolve)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The partitions, each perhaps with offsets of its own. None: all partitions of all topics.
    pub places: Vec<Place>,
    /// Where every place begins that does not say so itself; `None`: at the beginning of its log.
    pub from: Option<Bound>,
    /// Where it ends, likewise; `None`: at the end that its log has now.
    pub to: Option<Bound>,
    /// Which of its records are meant.
    pub only: Only,
}

/// Where a range begins (the first record that belongs to it) or ends (the first that does not).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// At this offset.
    Offset(i64),
    /// At the first record as new as this, in milliseconds since 1970.
    TimeMs(i64),
}

/// Which records of a range are meant; with nothing set, all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Only {
    /// Of this entity: its id, which is the record's key.
    pub entity_id: Option<String>,
    /// Of this command type.
    pub command_type: Option<String>,
}

impl Only {
    /// Whether this record is meant; `command_type` is what could be read of it.
    pub fn means(&self, record: &Record, command_type: Option<&str>) -> bool {
        self.entity_id.as_ref().is_none_or(|id| record.key() == Some(id.as_bytes()))
            && self.command_type.as_ref().is_none_or(|wanted| command_type == Some(wanted))
    }
}

/// `TOPIC`, `TOPIC:PARTITION` or `TOPIC:PARTITION:FROM-TO`, where either end of the offsets may be left out and
/// TO is the first offset that does not belong to it. A topic's name has no colon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The command topic.
    pub topic: String,
    /// One partition, or all of them.
    pub partition: Option<i32>,
    /// The first offset.
    pub from: Option<i64>,
    /// The offset behind the last.
    pub to: Option<i64>,
}

impl Place {
    /// Whether it says itself where it begins or ends.
    pub fn has_offsets(&self) -> bool {
        self.from.is_some() || self.to.is_some()
    }
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str =
            "write TOPIC, TOPIC:PARTITION or TOPIC:PARTITION:FROM-TO, such as accounts.commands:3:8400-8500";
        let number = |text: &str| text.parse::<i64>().ok().filter(|number| *number >= 0).ok_or(FORM);
        let optional = |text: &str| if text.is_empty() { Ok(None) } else { number(text).map(Some) };
        let mut parts = text.splitn(3, ':');
        let topic = parts.next().filter(|topic| !topic.is_empty()).ok_or(FORM)?.to_owned();
        let partition = parts.next().map(|text| number(text).and_then(|n| i32::try_from(n).map_err(|_| FORM)));
        let partition = partition.transpose()?;
        let (from, to) = match parts.next() {
            None => (None, None),
            Some(offsets) => {
                let (from, to) = offsets.split_once('-').ok_or(FORM)?;
                (optional(from)?, optional(to)?)
            }
        };
        match (from, to) {
            (Some(from), Some(to)) if to <= from => Err("the range ends before it begins: TO is the offset behind it"),
            _ => Ok(Self { topic, partition, from, to }),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.topic)?;
        if let Some(partition) = self.partition {
            write!(f, ":{partition}")?;
        }
        if self.has_offsets() {
            let end = |offset: Option<i64>| offset.map(|offset| offset.to_string()).unwrap_or_default();
            write!(f, ":{}-{}", end(self.from), end(self.to))?;
        }
        Ok(())
    }
}

/// What is wrong with a range as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RangeError {
    /// Its end is not behind its beginning.
    #[error("the range ends before it begins")]
    Empty,
    /// A place says where it begins or ends, and the range says it for all of them.
    #[error("give the offsets once: in TOPIC:PARTITION:FROM-TO, or with --from-… and --to-…")]
    Twice,
}

impl Range {
    /// Whether it can be meant.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn checked(self) -> Result<Self, RangeError> {
        let ends_before = match (self.from, self.to) {
            (Some(Bound::Offset(from)), Some(Bound::Offset(to))) => to <= from,
            (Some(Bound::TimeMs(from)), Some(Bound::TimeMs(to))) => to <= from,
            _ => false,
        };
        if ends_before {
            return Err(RangeError::Empty);
        }
        if (self.from.is_some() || self.to.is_some()) && self.places.iter().any(Place::has_offsets) {
            return Err(RangeError::Twice);
        }
        Ok(self)
    }

    /// Where a place of it begins.
    pub fn from_of(&self, place: &Place) -> Option<Bound> {
        place.from.map(Bound::Offset).or(self.from)
    }

    /// Where a place of it ends.
    pub fn to_of(&self, place: &Place) -> Option<Bound> {
        place.to.map(Bound::Offset).or(self.to)
    }
}

/// A time as RFC 3339 writes it: milliseconds since 1970.
///
/// # Errors
/// How to write one.
pub fn time_ms(text: &str) -> Result<i64, &'static str> {
    let time = text.parse::<jiff::Timestamp>().map(|time| time.as_millisecond());
    time.map_err(|_| "write a time with its zone, such as 2026-01-31T00:00:00Z")
}

/// A duration as people write it (`2h`, `3d`), or as Kafka's tools do (`PT2H`).
///
/// # Errors
/// How to write one.
pub fn duration(text: &str) -> Result<Duration, &'static str> {
    const FORM: &str = "write a duration such as 2h, 3d or PT2H";
    let iso = || -> Result<Duration, &'static str> {
        let span: jiff::Span = text.parse().map_err(|_| FORM)?;
        let length = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| FORM)?;
        Duration::try_from(length).map_err(|_| FORM)
    };
    humantime::parse_duration(text).or_else(|_| iso())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_written_as_it_is_shown() {
        for text in ["a.commands", "a.commands:3", "a.commands:3:7-9", "a.commands:3:7-", "a.commands:3:-9"] {
            assert_eq!(text.parse::<Place>().map(|place| place.to_string()).as_deref(), Ok(text));
        }
        for wrong in
            ["", ":3", "a:x", "a:-1", "a:3:", "a:3:7", "a:3:9-7", "a:3:7-7", "a:3:x-9", "a:3:1-2-3", "a:3:-1-9"]
        {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_range_says_once_where_it_begins() {
        let place: Place = "a:0:7-9".parse().expect("a place");
        let range = Range { places: vec![place], from: Some(Bound::TimeMs(1)), ..Range::default() };
        assert_eq!(range.checked(), Err(RangeError::Twice));
        let range = Range { from: Some(Bound::Offset(9)), to: Some(Bound::Offset(9)), ..Range::default() };
        assert_eq!(range.checked(), Err(RangeError::Empty));
        assert!(Range::default().checked().is_ok());
    }

    #[test]
    fn times_and_durations_are_read_as_people_and_as_kafka_s_tools_write_them() {
        assert_eq!(time_ms("1970-01-01T00:00:02Z"), Ok(2_000));
        assert!(time_ms("1970-01-01T00:00:02").is_err(), "without a zone it could be any time");
        for text in ["2h", "PT2H", "120min", "P0DT2H"] {
            assert_eq!(duration(text), Ok(Duration::from_secs(7_200)), "{text}");
        }
        assert_eq!(duration("P1D"), duration("1d"));
        assert!(duration("-PT1H").is_err() && duration("yesterday").is_err());
    }

    #[test]
    fn a_record_is_meant_by_its_key_and_its_type() {
        let record = Record::copied(0, 0, Some(b"acct-1"), None, &[]);
        let only = |entity: Option<&str>, command_type: Option<&str>| Only {
            entity_id: entity.map(str::to_owned),
            command_type: command_type.map(str::to_owned),
        };
        assert!(only(None, None).means(&record, None) && only(Some("acct-1"), None).means(&record, None));
        assert!(!only(Some("acct-2"), None).means(&record, None) && !only(None, Some("a")).means(&record, None));
        assert!(only(Some("acct-1"), Some("a")).means(&record, Some("a")));
    }
}
