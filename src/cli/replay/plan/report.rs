//! What `replay plan` prints.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::{Stretch, Surveyed, Tally};
use crate::cli::output;
use crate::cli::status::Halt;
use crate::dead_letter::text_or_base64;
use crate::outcome::rfc3339;
use crate::record::TopicPartition;
use crate::replay::fate::Fate;
use crate::replay::resolve::{Hidden, Lost};

/// The cells of a bar.
const BAR_CELLS: usize = 32;
/// The most codes that are listed.
const CODES_MAX: usize = 30;

/// A line of JSON Lines.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub(super) enum Line<'a> {
    Record(RecordLine<'a>),
    Partition(&'a PartitionLine),
}

/// A record with its fate.
#[derive(Debug, Serialize)]
pub(super) struct RecordLine<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    time: String,
    key: Option<Value>,
    command_id: Option<Uuid>,
    command_type: Option<&'a str>,
    fate: Fate,
    code: Option<&'a str>,
    detail: Option<&'a str>,
    version: Option<i64>,
    settled_at: Option<SettledAt<'a>>,
    redriven: bool,
}

/// The delivery that a duplicate repeats, or the copy of a misrouted one.
#[derive(Debug, Serialize)]
struct SettledAt<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
}

/// A partition's stretch in numbers.
#[derive(Debug, Serialize)]
pub(super) struct PartitionLine {
    topic: String,
    partition: i32,
    /// The first offset that was read, and the one behind the last that could be.
    from: i64,
    end: i64,
    records: u64,
    fates: BTreeMap<Fate, u64>,
    codes: Vec<CodeCount>,
    /// The cursor; null where no worker has claimed the partition yet.
    next_offset: Option<i64>,
    /// Offsets that the log no longer holds.
    lost: Option<Lost>,
    /// Offsets that an open transaction hides.
    hidden: Option<Hidden>,
    /// Why its worker does not go on; null where it is not halted.
    halt: Option<Halt>,
    /// False if it was stopped before its end.
    complete: bool,
    #[serde(skip)]
    missing: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct CodeCount {
    fate: Fate,
    code: String,
    count: u64,
}

/// All partitions.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) partitions: Vec<PartitionLine>,
    /// Only an entity's records, or those of a type, are meant.
    pub(super) is_filtered: bool,
}

impl<'a> RecordLine<'a> {
    pub(super) fn of(source: &'a TopicPartition, record: &'a Surveyed) -> Self {
        let concluded = &record.concluded;
        let settled_at = concluded.settled_at.as_ref();
        Self {
            topic: &source.topic,
            partition: source.partition,
            offset: record.offset,
            time: rfc3339(record.time_ms),
            key: record.key.as_deref().map(text_or_base64),
            command_id: record.command_id,
            command_type: record.command_type.as_deref(),
            fate: concluded.fate,
            code: concluded.code.as_deref(),
            detail: concluded.detail.as_deref(),
            version: concluded.version,
            settled_at: settled_at.map(|(source, offset)| SettledAt {
                topic: &source.topic,
                partition: source.partition,
                offset: *offset,
            }),
            redriven: concluded.redriven,
        }
    }
}

impl PartitionLine {
    pub(super) fn of(stretch: &Stretch, tally: Tally, halt: Option<Halt>) -> Self {
        let codes = tally.codes.into_iter().map(|((fate, code), count)| CodeCount { fate, code, count });
        Self {
            topic: stretch.source.topic.to_string(),
            partition: stretch.source.partition,
            from: stretch.from,
            end: stretch.end,
            records: tally.records,
            fates: tally.fates,
            codes: codes.collect(),
            next_offset: tally.next_offset,
            lost: stretch.lost,
            hidden: stretch.hidden,
            halt,
            complete: tally.read_to >= stretch.end,
            missing: stretch.missing(),
        }
    }

    fn of_fate(&self, fate: Fate) -> u64 {
        self.fates.get(&fate).copied().unwrap_or(0)
    }
}

/// How a fate is drawn.
fn cell(fate: Fate) -> char {
    match fate {
        Fate::Applied => '█',
        Fate::Rejected => '▓',
        Fate::Duplicate => '░',
        Fate::Dead => 'x',
        Fate::Parked => 'P',
        Fate::Waiting => 'w',
        Fate::Discarded => 'd',
        Fate::Unsettled => '·',
        Fate::Forgotten => '?',
        Fate::Unrecorded => '!',
    }
}

/// The fates of a partition in a row of cells: each that occurs has one at least, and the rest in proportion.
fn bar(fates: &BTreeMap<Fate, u64>) -> String {
    let total: u64 = fates.values().sum();
    let present: Vec<(Fate, u64)> = fates.iter().filter(|(_, count)| **count > 0).map(|(f, c)| (*f, *c)).collect();
    let free = BAR_CELLS.saturating_sub(present.len()) as u64;
    // rounded at the running sum, so that the cells add up
    let (mut sum, mut drawn, mut text) = (0, 0, String::new());
    for (fate, count) in present {
        sum += count;
        let upto = free * sum / total;
        text.extend(std::iter::repeat_n(cell(fate), usize::try_from(upto - drawn).unwrap_or(0) + 1));
        drawn = upto;
    }
    text
}

impl Report {
    pub(super) fn text(&self) -> String {
        self.partitions_table() + &self.legend() + &self.codes_table() + &self.missing() + &self.halts()
    }

    fn present(&self) -> Vec<Fate> {
        let occurs = |fate: &Fate| self.partitions.iter().any(|line| line.of_fate(*fate) > 0);
        Fate::ALL.into_iter().filter(occurs).collect()
    }

    fn partitions_table(&self) -> String {
        let present = self.present();
        let names = present.iter().map(|fate| fate.as_str().to_uppercase());
        let header = ["PARTITION", "OFFSETS", "RECORDS"].map(str::to_owned).into_iter().chain(names);
        let header: Vec<String> = header.chain(["".to_owned()]).collect();
        let mut table = output::table(&header.iter().map(String::as_str).collect::<Vec<_>>());
        for line in &self.partitions {
            let offsets = match line.end - line.from {
                0 => format!("none at {}", line.from),
                _ => format!("{} to {}", line.from, line.end - 1),
            };
            let mut row = vec![format!("{}:{}", line.topic, line.partition), offsets, line.records.to_string()];
            row.extend(present.iter().map(|fate| line.of_fate(*fate).to_string()));
            row.push(bar(&line.fates));
            table.add_row(row);
        }
        output::keep_whole(&mut table, &[0, 1]);
        output::drawn(&table)
    }

    fn legend(&self) -> String {
        let present = self.present();
        let cells = present.iter().map(|fate| format!("{} {}", cell(*fate), fate.as_str()));
        let cells = cells.collect::<Vec<_>>().join("  ");
        let mut text = match (cells.is_empty(), self.is_filtered) {
            (true, true) => "no record of that key or type in the range\n".to_owned(),
            (true, false) => "no record in the range\n".to_owned(),
            (false, _) => format!("\n{cells}\n"),
        };
        for (fate, meaning) in MEANINGS {
            if present.contains(fate) {
                text += &format!("{}: {meaning}\n", fate.as_str());
            }
        }
        text
    }

    fn codes_table(&self) -> String {
        let mut codes: BTreeMap<(Fate, &str), u64> = BTreeMap::new();
        for CodeCount { fate, code, count } in self.partitions.iter().flat_map(|line| &line.codes) {
            *codes.entry((*fate, code)).or_default() += count;
        }
        if codes.is_empty() {
            return String::new();
        }
        let more = codes.len().saturating_sub(CODES_MAX);
        let mut table = output::table(&["FATE", "CODE", "RECORDS"]);
        for ((fate, code), count) in codes.into_iter().take(CODES_MAX) {
            table.add_row([fate.as_str(), code, &count.to_string()]);
        }
        let more = if more > 0 { format!("and {more} more codes: -o json has them all\n") } else { String::new() };
        format!("\n{}{more}", output::drawn(&table))
    }

    /// Those whose records stay unsettled until somebody acts.
    fn halts(&self) -> String {
        let halted = self.partitions.iter().filter(|line| line.of_fate(Fate::Unsettled) > 0);
        let text = |line: &PartitionLine| Some(line.halt.as_ref()?.text(&line.topic, line.partition));
        halted.filter_map(text).collect()
    }

    fn missing(&self) -> String {
        let said: Vec<&str> = self.partitions.iter().flat_map(|line| &line.missing).map(String::as_str).collect();
        if said.is_empty() { String::new() } else { format!("\n{}\n", said.join("\n")) }
    }
}

/// What does not explain itself.
const MEANINGS: &[(Fate, &str)] = &[
    (Fate::Unsettled, "at the cursor or above; a worker settles it when its turn comes"),
    (Fate::Forgotten, "below the cursor, and its id is older than what is remembered: its outcome is no longer known"),
    (
        Fate::Unrecorded,
        "below the cursor, and no table speaks of it: an operator skipped it (solewriter audit), or the partition was \
         begun behind it",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_shows_everything_that_occurs() {
        let fates = BTreeMap::from([(Fate::Applied, 100_000), (Fate::Dead, 1), (Fate::Unsettled, 50_000)]);
        let bar = bar(&fates);
        assert_eq!(bar.chars().count(), BAR_CELLS);
        assert_eq!(bar.chars().filter(|c| *c == 'x').count(), 1);
        let applied = bar.chars().filter(|c| *c == '█').count();
        assert!((19..=21).contains(&applied), "{bar}");
        assert_eq!(super::bar(&BTreeMap::new()), "");
    }

    #[test]
    fn what_is_missing_is_said_beside_the_numbers() {
        let source = TopicPartition::new("t", 0);
        let lost = Some(Lost { from: Some(0), to: 10 });
        let stretch = Stretch { source, from: 10, end: 20, lost, hidden: None };
        let codes = BTreeMap::from([((Fate::Dead, "misrouted".to_owned()), 3)]);
        let fates = BTreeMap::from([(Fate::Dead, 3)]);
        let tally = Tally { records: 3, fates, codes, read_to: 20, next_offset: Some(20) };
        let report = Report { partitions: vec![PartitionLine::of(&stretch, tally, None)], is_filtered: false };
        let text = report.text();
        assert!(text.contains("t:0: offsets 0 to 9 are no longer in the log"), "{text}");
        assert!(text.contains("misrouted"), "{text}");
        let line = serde_json::to_value(Line::Partition(&report.partitions[0])).expect("a line");
        assert_eq!(line["type"], "partition");
        assert_eq!((&line["lost"]["to"], &line["fates"]["dead"]), (&10.into(), &3.into()));
    }
}
