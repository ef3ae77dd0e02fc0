//! Commands that end otherwise than they did, by type and by how: the question before a changed rule is deployed.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Serialize;
use uuid::Uuid;

use super::ended::Ended;

const WITH_ANOTHER_REPLY: &str = " with another reply or other events";
/// Examples of each kind.
const EXAMPLES_MAX: usize = 3;

/// Commands of one type that ended in one way, and end in another when they are run again.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// The command type.
    pub command_type: String,
    /// `applied`, or why not.
    pub was: String,
    /// The same now.
    pub becomes: String,
    /// How many.
    pub commands: u64,
    /// Some of them, the first of their partitions.
    pub examples: Vec<Example>,
}

/// A command that ends otherwise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Example {
    /// Its log.
    pub topic: String,
    /// Its log.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its id.
    pub command_id: Uuid,
    /// Its entity.
    pub entity_id: String,
    /// How it ended.
    pub live: Ended,
    /// How it ends.
    pub rebuilt: Ended,
}

/// Collects changes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    of_kind: BTreeMap<(String, String, String), (u64, Vec<Example>)>,
}

impl Changes {
    /// Counts a command, if it ends otherwise: applied or not, and why not.
    pub fn add(&mut self, command_type: &str, example: Example) {
        let (was, mut becomes) = (example.live.in_short(), example.rebuilt.in_short());
        if was == becomes {
            // another version alone is what an earlier change of the entity brings about
            if example.live.reply == example.rebuilt.reply && example.live.events == example.rebuilt.events {
                return;
            }
            becomes += WITH_ANOTHER_REPLY;
        }
        let (commands, examples) = self.of_kind.entry((command_type.to_owned(), was, becomes)).or_default();
        *commands += 1;
        if examples.len() < EXAMPLES_MAX {
            examples.push(example);
        }
    }

    /// Those of another partition, behind these.
    pub fn merge(&mut self, other: Self) {
        for (kind, (more, others)) in other.of_kind {
            let (commands, examples) = self.of_kind.entry(kind).or_default();
            *commands += more;
            examples.extend(others);
            examples.truncate(EXAMPLES_MAX);
        }
    }

    /// By type, the most frequent first; behind them those that end alike, and only say something else.
    pub fn into_list(self) -> Vec<Change> {
        let mut list: Vec<Change> = self
            .of_kind
            .into_iter()
            .map(|((command_type, was, becomes), (commands, examples))| Change {
                command_type,
                was,
                becomes,
                commands,
                examples,
            })
            .collect();
        // what ends otherwise, then what ends as it did with another reply
        list.sort_by_key(|change| {
            (change.becomes.ends_with(WITH_ANOTHER_REPLY), change.command_type.clone(), Reverse(change.commands))
        });
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: Option<&str>) -> Ended {
        let outcome = if code.is_some() { "rejected" } else { "applied" };
        Ended { outcome, code: code.map(str::to_owned), version: Some(1), reply: None, events: Vec::new() }
    }

    fn example(offset: i64, live: Option<&str>, rebuilt: Option<&str>) -> Example {
        Example {
            topic: "t".into(),
            partition: 0,
            offset,
            command_id: Uuid::nil(),
            entity_id: "a".into(),
            live: ended(live),
            rebuilt: ended(rebuilt),
        }
    }

    #[test]
    fn commands_that_end_alike_are_no_change_and_the_others_are_counted_by_kind() {
        let mut changes = Changes::default();
        changes.add("withdraw", example(0, None, None));
        changes.add("withdraw", example(1, Some("limit"), None));
        let mut with_fee = example(8, None, None);
        with_fee.rebuilt.reply = Some(serde_json::json!({ "fee": 2 }));
        changes.add("withdraw", with_fee);
        for offset in 2..7 {
            changes.add("withdraw", example(offset, None, Some("limit")));
        }
        let list = changes.into_list();
        let kinds: Vec<_> = list.iter().map(|kind| (&*kind.was, &*kind.becomes, kind.commands)).collect();
        assert_eq!(
            kinds,
            [
                ("applied", "limit", 5),
                ("limit", "applied", 1),
                ("applied", "applied with another reply or other events", 1),
            ]
        );
        assert_eq!(list[0].examples.iter().map(|it| it.offset).collect::<Vec<_>>(), [2, 3, 4]);
    }
}
