//! How the commands of each type ended: applied, or with which code. Values only.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::books::Heard;

/// A way to end: applied, or rejected or dead with a code.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ending {
    outcome: String,
    code: Option<String>,
}

/// How many commands of a type have ended in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Count<'t> {
    /// The commands' type.
    pub command_type: &'t str,
    /// applied, rejected or dead.
    pub outcome: &'t str,
    /// Why, unless they were applied.
    pub code: Option<&'t str>,
    /// So many.
    pub commands: u64,
}

/// How all commands have ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<String, BTreeMap<Ending, u64>>);

impl Tally {
    /// Counts one more. Whether it is the first of its type that ends so.
    pub(super) fn count(&mut self, heard: &Heard) -> bool {
        let ending = Ending { outcome: heard.outcome.clone(), code: heard.code.clone() };
        let count = self.0.entry(heard.command_type.clone()).or_default().entry(ending).or_default();
        *count += 1;
        *count == 1
    }

    /// By type, what was applied first.
    pub fn counts(&self) -> impl Iterator<Item = Count<'_>> {
        self.0.iter().flat_map(|(command_type, endings)| {
            endings.iter().map(move |(Ending { outcome, code }, &commands)| Count {
                command_type,
                outcome,
                code: code.as_deref(),
                commands,
            })
        })
    }

    /// The types of which no command was applied.
    pub fn never_applied(&self) -> BTreeSet<&str> {
        let applied = |endings: &BTreeMap<Ending, u64>| endings.keys().any(|ending| ending.outcome == "applied");
        self.0.iter().filter(|(_, endings)| !applied(endings)).map(|(command_type, _)| &**command_type).collect()
    }

    /// The codes that are made of the name of a constraint, because nobody has given it another.
    pub fn unnamed_constraints(&self) -> BTreeSet<&str> {
        let codes = self.counts().filter(|count| count.outcome == "rejected").filter_map(|count| count.code);
        codes.filter(|code| code.starts_with("constraint-")).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Instant;

    use uuid::Uuid;

    use super::*;

    pub(in crate::dev) fn tally(endings: &[(&str, &str, Option<&str>)]) -> Tally {
        let mut tally = Tally::default();
        for (command_type, outcome, code) in endings {
            tally.count(&Heard {
                command_id: Uuid::nil(),
                command_type: (*command_type).to_owned(),
                entity_id: "a".to_owned(),
                outcome: (*outcome).to_owned(),
                code: code.map(str::to_owned),
                detail: None,
                version: None,
                digest: 0,
                at: Instant::now(),
            });
        }
        tally
    }

    #[test]
    fn commands_are_counted_by_type_and_ending() {
        let no = Some("constraint-stock-check");
        let tally = tally(&[
            ("b", "rejected", no),
            ("a", "applied", None),
            ("b", "rejected", no),
            ("a", "rejected", Some("no")),
        ]);
        let counts: Vec<_> = tally.counts().map(|count| (count.command_type, count.code, count.commands)).collect();
        assert_eq!(counts, [("a", None, 1), ("a", Some("no"), 1), ("b", no, 2)]);
        assert_eq!(tally.never_applied(), BTreeSet::from(["b"]));
        assert_eq!(tally.unnamed_constraints(), BTreeSet::from(["constraint-stock-check"]));
    }
}
