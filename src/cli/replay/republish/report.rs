//! What `replay republish` prints.

use serde::Serialize;

use super::{Counts, Span, TargetsByTopic};
use crate::cli::output;
use crate::outcome::rfc3339;
use crate::replay::resolve::Lost;

/// A partition's part.
#[derive(Debug, Serialize)]
pub(super) struct PartitionReport {
    topic: String,
    partition: i32,
    from_offset: i64,
    to_offset: i64,
    outcomes_topic: Option<String>,
    events_topic: Option<String>,
    batches: u64,
    outcomes: u64,
    events: u64,
    /// Outcomes that are no longer remembered.
    forgotten: u64,
    /// Outcomes of dead deliveries that a later attempt has overwritten.
    overwritten: u64,
    /// Batches of the range whose first publication the worker still owes.
    left_to_worker: i64,
    /// Offsets whose batches are dropped.
    dropped: Option<Lost>,
    /// Batches that were dropped since it was begun.
    dropped_since: u64,
    /// When an earlier run of the same command began what this one goes on with.
    goes_on_from: Option<String>,
    notes: Vec<String>,
}

/// All partitions.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    executed: bool,
    /// False if it was stopped.
    complete: bool,
    batches: u64,
    outcomes: u64,
    events: u64,
    partitions: Vec<PartitionReport>,
}

impl PartitionReport {
    pub(super) fn of(span: &Span, counts: Counts, targets: &TargetsByTopic) -> Self {
        let targets = targets.get(&span.row.topic);
        // a topic that is not published to has no count
        let name = |(name, count): &(std::sync::Arc<str>, i32)| (*count > 0).then(|| name.to_string());
        Self {
            topic: span.row.topic.clone(),
            partition: span.row.partition,
            from_offset: span.row.from_offset,
            to_offset: span.row.to_offset,
            outcomes_topic: targets.and_then(|targets| name(&targets.outcomes)),
            events_topic: targets.and_then(|targets| name(&targets.events)),
            batches: counts.batches,
            outcomes: counts.outcomes,
            events: counts.events,
            forgotten: counts.forgotten,
            overwritten: counts.overwritten,
            left_to_worker: span.left_to_worker,
            dropped: span.dropped,
            dropped_since: counts.dropped,
            goes_on_from: span.goes_on.then(|| rfc3339(span.row.begun_at_ms)),
            notes: span.notes.clone(),
        }
    }

    /// What is not published, in words.
    fn said(&self) -> Vec<String> {
        let source = format!("{}:{}", self.topic, self.partition);
        let mut said = self.notes.clone();
        if let Some(begun_at) = &self.goes_on_from {
            said.push(format!("{source}: goes on with what was begun at {begun_at} (--restart begins anew)"));
        }
        if self.left_to_worker > 0 {
            said.push(format!(
                "{source}: {} settled batches are not published for the first time yet: that is left to the worker",
                self.left_to_worker
            ));
        }
        if self.forgotten > 0 {
            said.push(format!(
                "{source}: {} outcomes are no longer remembered: their ids are older than the horizon",
                self.forgotten
            ));
        }
        if self.dropped_since > 0 {
            said.push(format!(
                "{source}: {} batches were dropped since it was begun (deduplication.window): what they owed is no \
                 longer known",
                self.dropped_since
            ));
        }
        if self.overwritten > 0 {
            said.push(format!(
                "{source}: {} outcomes of dead deliveries are overwritten: their letters were tried again since",
                self.overwritten
            ));
        }
        said
    }
}

impl Report {
    pub(super) fn of(partitions: Vec<PartitionReport>, executed: bool, complete: bool) -> Self {
        let sum = |of: fn(&PartitionReport) -> u64| partitions.iter().map(of).sum();
        let (batches, outcomes, events) = (sum(|p| p.batches), sum(|p| p.outcomes), sum(|p| p.events));
        Self { executed, complete, batches, outcomes, events, partitions }
    }

    /// There is nothing to publish, as what there was is dropped.
    pub(super) fn is_empty_for_loss(&self) -> bool {
        self.batches == 0 && self.partitions.iter().any(|partition| partition.dropped.is_some())
    }

    pub(super) fn text(&self) -> String {
        let mut table = output::table(&["PARTITION", "OFFSETS", "BATCHES", "OUTCOMES", "EVENTS", "TO"]);
        for line in &self.partitions {
            let mut to: Vec<&str> =
                [&line.outcomes_topic, &line.events_topic].into_iter().flatten().map(String::as_str).collect();
            to.dedup();
            let offsets = match line.to_offset - line.from_offset {
                ..=0 => format!("none at {}", line.from_offset),
                _ => format!("{} to {}", line.from_offset, line.to_offset - 1),
            };
            table.add_row([
                &format!("{}:{}", line.topic, line.partition),
                &offsets,
                &line.batches.to_string(),
                &line.outcomes.to_string(),
                &line.events.to_string(),
                &to.join(", "),
            ]);
        }
        output::keep_whole(&mut table, &[0, 1]);
        let said: Vec<String> = self.partitions.iter().flat_map(PartitionReport::said).collect();
        let said = if said.is_empty() { String::new() } else { format!("\n{}\n", said.join("\n")) };
        format!("{}{said}\n{}\n", output::drawn(&table), self.conclusion())
    }

    fn conclusion(&self) -> String {
        let Self { batches, outcomes, events, .. } = self;
        let what = format!("{outcomes} outcomes and {events} events of {batches} batches");
        match (self.executed, self.complete) {
            (true, true) => format!("published again: {what}"),
            (true, false) => format!("published again so far: {what}"),
            (false, _) if *batches == 0 => "nothing to publish".to_owned(),
            (false, _) => {
                format!(
                    "would be published again: {what}; nothing is published: add --execute and --reason '…' to do it"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_says_so_and_what_would_go_where() {
        let partition = PartitionReport {
            topic: "t".into(),
            partition: 0,
            from_offset: 10,
            to_offset: 20,
            outcomes_topic: Some("t.outcomes".into()),
            events_topic: None,
            batches: 2,
            outcomes: 9,
            events: 0,
            forgotten: 1,
            overwritten: 0,
            left_to_worker: 0,
            dropped: None,
            dropped_since: 0,
            goes_on_from: None,
            notes: Vec::new(),
        };
        let text = Report::of(vec![partition], false, true).text();
        assert!(text.contains("9 outcomes and 0 events of 2 batches; nothing is published"), "{text}");
        assert!(text.contains("t.outcomes") && text.contains("1 outcomes are no longer remembered"), "{text}");
    }
}
