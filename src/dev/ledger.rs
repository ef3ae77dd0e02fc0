//! The ledger: what the commands that are known to be applied have added, brought up to date with
//! each snapshot of the tables, so that the invariant can be looked at while the traffic runs.
//! Values only.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use super::books::Ordered;
use super::holdings::Holding;
use crate::postgres::SettledCommand;

/// What all entities of one type hold, and what the applied commands added to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// In their states.
    pub held: i64,
    /// In the books.
    pub added: i64,
}

impl Sum {
    /// Whether there is one effect for each applied command.
    pub fn balances(self) -> bool {
        self.held == self.added
    }
}

/// By entity type.
pub(super) type Sums = BTreeMap<String, Sum>;

/// An entity, by type and id.
type Entity = (Arc<str>, String);

/// Which ids are open and what the others have added.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Sent and not yet seen settled.
    open: BTreeMap<Uuid, (Entity, Option<i64>)>,
    /// Seen settled, as far as a snapshot may show them again.
    counted: BTreeSet<Uuid>,
    added: HashMap<Entity, i64>,
    /// Somebody else has sent commands to them: nobody here knows what those added.
    foreign: HashSet<Entity>,
}

impl Ledger {
    pub(super) fn ordered(&mut self, ordered: &Ordered) {
        let entity = (ordered.entity_type.clone(), ordered.entity_id.clone());
        self.open.insert(ordered.command_id, (entity, ordered.adds));
    }

    /// No command below this id is still to be seen settled. Ids are of version 7 and made one after
    /// the other, so that few are above it.
    pub(super) fn floor(&self) -> Uuid {
        let oldest_open = self.open.first_key_value().map(|(id, _)| *id);
        oldest_open.or(self.counted.last().copied()).unwrap_or_default()
    }

    /// Takes in what a snapshot shows of the commands from [`floor`](Self::floor) on.
    pub(super) fn settled(&mut self, rows: &[SettledCommand]) {
        for row in rows {
            if let Some((entity, adds)) = self.open.remove(&row.command_id) {
                if let Some(adds) = adds {
                    *self.added.entry(entity).or_default() += if row.applied { adds } else { 0 };
                }
                self.counted.insert(row.command_id);
            } else if !self.counted.contains(&row.command_id) {
                self.foreign.insert((row.entity_type.as_str().into(), row.entity_id.clone()));
            }
        }
        self.counted = self.counted.split_off(&self.floor());
    }

    /// The sums of the same snapshot.
    pub(super) fn sums(&self, holdings: &[Holding<'_>]) -> Sums {
        let added = self.added.iter().filter(|(entity, _)| !self.foreign.contains(entity));
        let added = added.map(|((entity_type, _), added)| (&**entity_type, *added));
        let ours = |holding: &&Holding<'_>| {
            let entity = (holding.entity_type.into(), holding.entity_id.to_owned());
            !self.foreign.contains(&entity)
        };
        sums(added, holdings.iter().filter(ours))
    }
}

/// Adds both sides up.
pub(super) fn sums<'a>(
    added: impl Iterator<Item = (&'a str, i64)>,
    holdings: impl Iterator<Item = &'a Holding<'a>>,
) -> Sums {
    let mut sums = Sums::new();
    for (entity_type, added) in added {
        sums.entry(entity_type.to_owned()).or_default().added += added;
    }
    for Holding { entity_type, held, .. } in holdings {
        sums.entry((*entity_type).to_owned()).or_default().held += held;
    }
    sums
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn order(ledger: &mut Ledger, id: u128, adds: i64) {
        let (command_id, at) = (Uuid::from_u128(id), Instant::now());
        ledger.ordered(&Ordered {
            command_id,
            entity_type: "account".into(),
            entity_id: "a".into(),
            adds: Some(adds),
            at,
        });
    }

    fn row(id: u128, entity_id: &str, applied: bool) -> SettledCommand {
        let (command_id, entity_type) = (Uuid::from_u128(id), "account".to_owned());
        SettledCommand { command_id, entity_type, entity_id: entity_id.to_owned(), applied, version: 1 }
    }

    fn sum(ledger: &Ledger, held: i64) -> Sum {
        let holdings = [Holding { entity_type: "account", entity_id: "a", held }];
        ledger.sums(&holdings).remove("account").unwrap_or_default()
    }

    #[test]
    fn only_what_is_seen_applied_is_added_and_only_once() {
        let mut ledger = Ledger::default();
        [(1, 100), (2, -30), (3, 7)].into_iter().for_each(|(id, adds)| order(&mut ledger, id, adds));
        assert_eq!(ledger.floor(), Uuid::from_u128(1));
        ledger.settled(&[row(1, "a", true), row(3, "a", false)]);
        ledger.settled(&[row(3, "a", false)]);
        assert_eq!((ledger.floor(), sum(&ledger, 100)), (Uuid::from_u128(2), Sum { held: 100, added: 100 }));
        ledger.settled(&[row(2, "a", true), row(3, "a", false)]);
        assert_eq!(ledger.floor(), Uuid::from_u128(3), "the newest that was counted");
        assert!(sum(&ledger, 70).balances() && !sum(&ledger, 40).balances());
    }

    #[test]
    fn an_entity_that_somebody_else_commands_is_on_neither_side() {
        let mut ledger = Ledger::default();
        order(&mut ledger, 1, 100);
        ledger.settled(&[row(1, "a", true), row(9, "a", true)]);
        assert_eq!(sum(&ledger, 105), Sum::default());
    }

    #[test]
    fn what_nobody_reckons_has_no_sum() {
        let mut ledger = Ledger::default();
        let (command_id, at) = (Uuid::from_u128(1), Instant::now());
        let (entity_type, entity_id) = ("sku".into(), "s".to_owned());
        ledger.ordered(&Ordered { command_id, entity_type, entity_id, adds: None, at });
        ledger.settled(&[row(1, "s", true)]);
        assert_eq!(ledger.sums(&[]), Sums::new());
    }
}
