//! The books: what was sent, what was heard of it, and whether the tables agree. Values only.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use super::verdict::{Balance, Difference};
use crate::postgres::{DeadCommand, EntityState, PartitionStatus, SettledCommand};

/// A new command, about to be sent.
#[derive(Clone, Debug)]
pub struct Ordered {
    /// Its id.
    pub command_id: Uuid,
    /// Whom it is for.
    pub entity_type: Arc<str>,
    /// Whom it is for.
    pub entity_id: String,
    /// What all entities together hold more of, if it is applied.
    pub adds: i64,
}

/// A record on the outcomes topic.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Whose outcome it is.
    pub command_id: Uuid,
    /// applied, rejected or dead.
    pub outcome: String,
    /// The entity's version; none of a dead one.
    pub version: Option<i64>,
    /// Over key, value and headers: equal for records that are the same to the byte.
    pub digest: u64,
}

/// What is known of one command.
#[derive(Debug)]
struct Entry {
    entity_type: Arc<str>,
    entity_id: String,
    adds: i64,
    deliveries: u32,
    outcomes: u32,
    /// The first outcome that was heard: applied or not, version, digest.
    first: Option<(bool, i64, u64)>,
    /// A later one was not the same to the byte.
    contradicted: bool,
}

impl Entry {
    /// Outcomes that are still to come: one per delivery.
    fn owed(&self) -> u64 {
        u64::from(self.deliveries.saturating_sub(self.outcomes))
    }
}

/// What was sent, and what was heard of it.
#[derive(Debug, Default)]
pub struct Books {
    commands: HashMap<Uuid, Entry>,
    deliveries: u64,
    owed: u64,
    heard: u64,
    repeats_answered: u64,
}

/// What the tables say at the end.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Every partition.
    pub partitions: Vec<PartitionStatus>,
    /// Every row of `processed_commands`.
    pub settled: Vec<SettledCommand>,
    /// Every dead letter.
    pub dead: Vec<DeadCommand>,
    /// Every entity.
    pub entities: Vec<EntityState>,
}

impl Books {
    /// A new command is about to be sent.
    pub fn ordered(&mut self, ordered: Ordered) {
        let Ordered { command_id, entity_type, entity_id, adds } = ordered;
        let entry =
            Entry { entity_type, entity_id, adds, deliveries: 1, outcomes: 0, first: None, contradicted: false };
        self.commands.insert(command_id, entry);
        self.deliveries += 1;
        self.owed += 1;
    }

    /// A command is about to be sent once more.
    pub fn repeated(&mut self, command_id: Uuid) {
        let Some(entry) = self.commands.get_mut(&command_id) else {
            return;
        };
        self.owed -= entry.owed();
        entry.deliveries += 1;
        self.owed += entry.owed();
        self.deliveries += 1;
    }

    /// An outcome was read from its topic.
    pub fn heard(&mut self, heard: Heard) {
        self.heard += 1;
        // dead speaks of a delivery only; the dead letter itself is evidence
        let (Some(entry), Some(version)) = (self.commands.get_mut(&heard.command_id), heard.version) else {
            return;
        };
        self.owed -= entry.owed();
        entry.outcomes += 1;
        self.owed += entry.owed();
        match entry.first {
            None => entry.first = Some((heard.outcome == "applied", version, heard.digest)),
            Some((_, _, digest)) => {
                entry.contradicted |= digest != heard.digest;
                self.repeats_answered += 1;
            }
        }
    }

    /// Deliveries that are not answered yet.
    pub fn owed(&self) -> u64 {
        self.owed
    }

    /// Outcomes that were heard again.
    pub fn repeats_answered(&self) -> u64 {
        self.repeats_answered
    }

    /// Compares the books with the tables. `holds` reads an entity type's state.
    ///
    /// # Errors
    /// The first difference.
    pub fn check(
        &self,
        evidence: &Evidence,
        holds: impl Fn(&str, &str) -> Option<Result<i64, String>>,
    ) -> Result<Balance, Difference> {
        self.check_partitions(evidence)?;
        self.check_dead(evidence)?;
        let rows = self.check_settled(evidence)?;
        self.check_outcomes(&rows)?;
        check_versions(evidence)?;
        let foreign: HashSet<(&str, &str)> =
            evidence.settled.iter().filter(|row| !self.commands.contains_key(&row.command_id)).map(entity).collect();
        let held = self.check_sums(evidence, &rows, &foreign, holds)?;
        let applied = evidence.settled.iter().filter(|row| row.applied).count() as u64;
        Ok(Balance {
            commands: self.commands.len() as u64,
            repeats: self.deliveries - self.commands.len() as u64,
            applied,
            rejected: evidence.settled.len() as u64 - applied,
            outcomes: self.heard,
            entities: evidence.entities.len() as u64,
            held,
            foreign: (evidence.settled.len() - self.commands.len()) as u64,
            claims: evidence.partitions.iter().map(|row| row.fencing_token - 1).sum(),
            take_overs: 0,
        })
    }

    fn check_partitions(&self, evidence: &Evidence) -> Result<(), Difference> {
        for row in &evidence.partitions {
            if let Some(code) = &row.halted_code {
                let detail = row.halted_detail.clone().unwrap_or_default();
                let (topic, partition) = (row.topic.clone(), row.partition);
                return Err(Difference::Halted { topic, partition, code: code.clone(), detail });
            }
        }
        Ok(())
    }

    fn check_dead(&self, evidence: &Evidence) -> Result<(), Difference> {
        for dead in &evidence.dead {
            if let Some(command_id) = dead.command_id.filter(|id| self.commands.contains_key(id)) {
                return Err(Difference::Dead { command_id, code: dead.code.clone() });
            }
        }
        Ok(())
    }

    /// Exactly one final outcome per id.
    fn check_settled<'a>(&self, evidence: &'a Evidence) -> Result<HashMap<Uuid, &'a SettledCommand>, Difference> {
        let mut rows = HashMap::with_capacity(evidence.settled.len());
        for row in &evidence.settled {
            if rows.insert(row.command_id, row).is_some() {
                return Err(Difference::SettledTwice(row.command_id));
            }
        }
        match self.commands.keys().find(|id| !rows.contains_key(id)) {
            Some(id) => Err(Difference::NotSettled(*id)),
            None => Ok(rows),
        }
    }

    /// Every delivery answered, always the same, and as it is stored.
    fn check_outcomes(&self, rows: &HashMap<Uuid, &SettledCommand>) -> Result<(), Difference> {
        for (&command_id, entry) in &self.commands {
            if entry.owed() > 0 {
                let (deliveries, outcomes) = (entry.deliveries, entry.outcomes);
                return Err(Difference::Unanswered { command_id, deliveries, outcomes });
            }
            if entry.contradicted {
                return Err(Difference::Contradicted(command_id));
            }
            let stored = rows.get(&command_id).map(|row| (row.applied, row.version));
            if entry.first.map(|(applied, version, _)| (applied, version)) != stored {
                return Err(Difference::NotAsStored(command_id));
            }
        }
        Ok(())
    }

    fn check_sums(
        &self,
        evidence: &Evidence,
        rows: &HashMap<Uuid, &SettledCommand>,
        foreign: &HashSet<(&str, &str)>,
        holds: impl Fn(&str, &str) -> Option<Result<i64, String>>,
    ) -> Result<BTreeMap<String, i64>, Difference> {
        let mut added: BTreeMap<&str, i64> = BTreeMap::new();
        for (command_id, entry) in &self.commands {
            let applied = rows.get(command_id).is_some_and(|row| row.applied);
            let ours = !foreign.contains(&(&*entry.entity_type, &*entry.entity_id));
            *added.entry(&entry.entity_type).or_default() += if applied && ours { entry.adds } else { 0 };
        }
        let mut held: BTreeMap<String, i64> = BTreeMap::new();
        for EntityState { entity_type, entity_id, state, .. } in &evidence.entities {
            if foreign.contains(&(entity_type, entity_id)) {
                continue;
            }
            match holds(entity_type, state.as_deref().unwrap_or("null")) {
                Some(Ok(amount)) => *held.entry(entity_type.clone()).or_default() += amount,
                Some(Err(why)) => {
                    let (entity_type, entity_id) = (entity_type.clone(), entity_id.clone());
                    return Err(Difference::Unreadable { entity_type, entity_id, why });
                }
                None => {}
            }
        }
        for (entity_type, added) in added {
            let held = held.get(entity_type).copied().unwrap_or(0);
            if held != added {
                return Err(Difference::Sum { entity_type: entity_type.to_owned(), held, added });
            }
        }
        Ok(held)
    }
}

fn entity(row: &SettledCommand) -> (&str, &str) {
    (&row.entity_type, &row.entity_id)
}

/// Versions without gaps: as many different ones, up to the entity's own, as commands were applied.
fn check_versions(evidence: &Evidence) -> Result<(), Difference> {
    let mut versions: HashMap<(&str, &str), HashSet<i64>> = HashMap::new();
    let mut applied: HashMap<(&str, &str), i64> = HashMap::new();
    for row in evidence.settled.iter().filter(|row| row.applied) {
        *applied.entry(entity(row)).or_default() += 1;
        versions.entry(entity(row)).or_default().insert(row.version);
    }
    for EntityState { entity_type, entity_id, version, .. } in &evidence.entities {
        let key = (entity_type.as_str(), entity_id.as_str());
        let count = applied.remove(&key).unwrap_or(0);
        let gapless = versions.get(&key).is_none_or(|found| (1..=*version).all(|v| found.contains(&v)));
        if count != *version || !gapless {
            let (entity_type, entity_id) = (entity_type.clone(), entity_id.clone());
            return Err(Difference::Version { entity_type, entity_id, version: *version, applied: count });
        }
    }
    match applied.into_iter().next() {
        Some(((entity_type, entity_id), applied)) => {
            let (entity_type, entity_id) = (entity_type.to_owned(), entity_id.to_owned());
            Err(Difference::Version { entity_type, entity_id, version: 0, applied })
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Uuid = Uuid::from_u128(1);
    const TWO: Uuid = Uuid::from_u128(2);

    fn ordered(command_id: Uuid, adds: i64) -> Ordered {
        Ordered { command_id, entity_type: "account".into(), entity_id: "a".into(), adds }
    }

    fn heard(command_id: Uuid, version: i64) -> Heard {
        Heard { command_id, outcome: "applied".into(), version: Some(version), digest: command_id.as_u128() as u64 }
    }

    fn row(command_id: Uuid, version: i64) -> SettledCommand {
        let (entity_type, entity_id) = ("account".into(), "a".into());
        SettledCommand { command_id, entity_type, entity_id, applied: true, version }
    }

    fn holds(_: &str, state: &str) -> Option<Result<i64, String>> {
        Some(state.parse().map_err(|_| "not a number".to_owned()))
    }

    /// Two commands to one account, the first delivered twice; both applied.
    fn balanced() -> (Books, Evidence) {
        let mut books = Books::default();
        books.ordered(ordered(ONE, 100));
        books.ordered(ordered(TWO, -30));
        books.repeated(ONE);
        books.heard(heard(ONE, 1));
        books.heard(heard(TWO, 2));
        books.heard(heard(ONE, 1));
        let state =
            EntityState { entity_type: "account".into(), entity_id: "a".into(), version: 2, state: Some("70".into()) };
        let settled = vec![row(ONE, 1), row(TWO, 2)];
        (books, Evidence { settled, entities: vec![state], ..Evidence::default() })
    }

    fn difference(books: &Books, evidence: &Evidence) -> Difference {
        books.check(evidence, holds).expect_err("a difference")
    }

    #[test]
    fn balanced_books_say_what_they_hold() {
        let (books, evidence) = balanced();
        let balance = books.check(&evidence, holds).expect("balanced");
        assert_eq!((balance.commands, balance.repeats, balance.applied, balance.outcomes), (2, 1, 2, 3));
        assert_eq!(balance.held, BTreeMap::from([("account".to_owned(), 70)]));
        assert_eq!((books.owed(), books.repeats_answered()), (0, 1));
    }

    #[test]
    fn a_second_effect_shows_in_the_sum_and_in_the_version() {
        let (books, mut evidence) = balanced();
        evidence.entities[0].state = Some("170".into());
        assert!(matches!(difference(&books, &evidence), Difference::Sum { held: 170, added: 70, .. }));
        evidence.entities[0].version = 3;
        assert!(matches!(difference(&books, &evidence), Difference::Version { version: 3, applied: 2, .. }));
    }

    #[test]
    fn an_id_has_exactly_one_final_outcome() {
        let (books, mut evidence) = balanced();
        evidence.settled.push(row(ONE, 1));
        assert_eq!(difference(&books, &evidence), Difference::SettledTwice(ONE));
        evidence.settled.retain(|row| row.command_id == TWO);
        assert_eq!(difference(&books, &evidence), Difference::NotSettled(ONE));
    }

    #[test]
    fn every_delivery_is_answered_and_always_the_same() {
        let (mut books, evidence) = balanced();
        books.repeated(TWO);
        assert_eq!(books.owed(), 1);
        let unanswered = Difference::Unanswered { command_id: TWO, deliveries: 2, outcomes: 1 };
        assert_eq!(difference(&books, &evidence), unanswered);
        books.heard(Heard { digest: 7, ..heard(TWO, 2) });
        assert_eq!(difference(&books, &evidence), Difference::Contradicted(TWO));
    }

    #[test]
    fn what_is_published_is_what_is_stored() {
        let (books, mut evidence) = balanced();
        evidence.settled[1].applied = false;
        assert_eq!(difference(&books, &evidence), Difference::NotAsStored(TWO));
    }

    #[test]
    fn versions_have_no_gaps() {
        let (books, mut evidence) = balanced();
        evidence.settled[0].version = 2;
        assert!(books.check(&evidence, holds).is_err());
        let (books, mut evidence) = balanced();
        evidence.entities.clear();
        assert!(matches!(difference(&books, &evidence), Difference::Version { version: 0, .. }));
    }

    #[test]
    fn a_dead_letter_of_a_sample_command_is_a_difference() {
        let (books, mut evidence) = balanced();
        evidence.dead.push(DeadCommand { command_id: Some(TWO), code: "misrouted".into() });
        let dead = Difference::Dead { command_id: TWO, code: "misrouted".into() };
        assert_eq!(difference(&books, &evidence), dead);
        evidence.dead[0].command_id = None;
        assert!(books.check(&evidence, holds).is_ok(), "somebody else's record");
    }

    #[test]
    fn what_somebody_else_sends_leaves_the_books_balanced() {
        let (books, mut evidence) = balanced();
        evidence.settled.push(row(Uuid::from_u128(3), 3));
        evidence.entities[0] = EntityState { version: 3, state: Some("71".into()), ..evidence.entities[0].clone() };
        let balance = books.check(&evidence, holds).expect("balanced");
        assert_eq!((balance.foreign, balance.held.len()), (1, 0));
    }
}
