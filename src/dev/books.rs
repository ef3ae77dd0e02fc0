//! The books: what was sent, what was heard of it, and whether the tables agree. Values only.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use super::holdings::{Holding, holdings};
use super::latency::{Latencies, Percentiles};
use super::ledger::{self, Ledger, Sums};
use super::sample::SampleTraffic;
use super::tally::Tally;
use super::verdict::{Balance, Difference};
use super::versions::{check_versions, entity};
use crate::postgres::{DeadCommand, EntityState, Held, PartitionStatus, SettledCommand};

/// A new command, about to be sent.
#[derive(Clone, Debug)]
pub struct Ordered {
    /// Its id.
    pub command_id: Uuid,
    /// Whom it is for.
    pub entity_type: Arc<str>,
    /// Whom it is for.
    pub entity_id: String,
    /// What all entities together hold more of, if it is applied; `None` if nobody reckons that.
    pub adds: Option<i64>,
    /// When.
    pub at: Instant,
}

/// A record on the outcomes topic.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Whose outcome it is.
    pub command_id: Uuid,
    /// Its type.
    pub command_type: String,
    /// Whom it was for.
    pub entity_id: String,
    /// applied, rejected or dead.
    pub outcome: String,
    /// Why, unless it was applied.
    pub code: Option<String>,
    /// The same at length.
    pub detail: Option<String>,
    /// The entity's version; none of a dead one.
    pub version: Option<i64>,
    /// Over key, value and headers: equal for records that are the same to the byte.
    pub digest: u64,
    /// When it was read.
    pub at: Instant,
}

impl From<Heard> for Difference {
    fn from(Heard { command_id, command_type, entity_id, code, detail, .. }: Heard) -> Self {
        let [code, detail] = [code, detail].map(Option::unwrap_or_default);
        Self::Dead { command_id, command_type, entity_id, code, detail }
    }
}

/// What is known of one command.
#[derive(Debug)]
struct Entry {
    entity_type: Arc<str>,
    adds: Option<i64>,
    sent_at: Instant,
    deliveries: u32,
    outcomes: u32,
    /// The first outcome that was heard: applied or not, version, digest.
    first: Option<(bool, i64, u64)>,
    /// A later one was not the same to the byte.
    contradicted: bool,
    /// A delivery of it was told to be dead.
    dead: bool,
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
    latencies: Latencies,
    ledger: Ledger,
    tally: Tally,
    /// The first dead letter of each type and code that nobody was told of yet.
    untold: Vec<Difference>,
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
    /// What the samples' queries say.
    pub held: Vec<Held>,
}

impl Books {
    /// A new command is about to be sent.
    pub fn ordered(&mut self, ordered: Ordered) {
        self.ledger.ordered(&ordered);
        let Ordered { command_id, entity_type, adds, at, .. } = ordered;
        let (deliveries, outcomes, first, contradicted, dead) = (1, 0, None, false, false);
        let entry = Entry { entity_type, adds, sent_at: at, deliveries, outcomes, first, contradicted, dead };
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
        let Some(entry) = self.commands.get_mut(&heard.command_id) else {
            return;
        };
        let Some(version) = heard.version else {
            // dead speaks of a delivery only; the dead letter itself is evidence
            if !std::mem::replace(&mut entry.dead, true) && self.tally.count(&heard) {
                self.untold.push(heard.into());
            }
            return;
        };
        self.owed -= entry.owed();
        entry.outcomes += 1;
        self.owed += entry.owed();
        match entry.first {
            None => {
                self.tally.count(&heard);
                entry.first = Some((heard.outcome == "applied", version, heard.digest));
                self.latencies.record(heard.at.saturating_duration_since(entry.sent_at));
            }
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

    /// From sending to the outcome, of the outcomes since this was last asked.
    pub(super) fn recent_latency(&mut self) -> Option<Percentiles> {
        self.latencies.take_recent()
    }

    /// How the commands have ended so far.
    pub(super) fn tally(&self) -> Tally {
        self.tally.clone()
    }

    /// The first dead letter of each type and code, told once.
    pub(super) fn take_untold(&mut self) -> Vec<Difference> {
        std::mem::take(&mut self.untold)
    }

    /// What to look at while the traffic runs.
    pub(super) fn ledger(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// Compares the books with the tables. The samples say what an entity holds.
    ///
    /// # Errors
    /// The first difference.
    pub(super) fn check(&self, evidence: &Evidence, samples: &[SampleTraffic]) -> Result<Balance, Difference> {
        self.check_partitions(evidence)?;
        self.check_dead(&evidence.dead)?;
        let rows = self.check_settled(evidence)?;
        self.check_outcomes(&rows)?;
        check_versions(&evidence.settled, &evidence.entities)?;
        let holdings = holdings(samples, &evidence.entities, &evidence.held)?;
        let sums = self.sums(&evidence.settled, &holdings)?;
        let held = sums.into_iter().map(|(entity_type, sum)| (entity_type, sum.held)).collect();
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
            latency: self.latencies.all(),
            ..Balance::default()
        })
    }

    /// What the entities hold and what the applied commands added: of everything that is settled,
    /// without the entities that somebody else has sent commands to.
    ///
    /// # Errors
    /// A sum that is wrong.
    pub(super) fn sums(&self, settled: &[SettledCommand], holdings: &[Holding<'_>]) -> Result<Sums, Difference> {
        let is_ours = |row: &&SettledCommand| self.commands.contains_key(&row.command_id);
        let foreign: HashSet<(&str, &str)> = settled.iter().filter(|row| !is_ours(row)).map(entity).collect();
        let ours = settled.iter().filter(|row| !foreign.contains(&entity(row)));
        let added = ours.filter_map(|row| {
            let entry = self.commands.get(&row.command_id)?;
            let adds = entry.adds?;
            Some((&*entry.entity_type, if row.applied { adds } else { 0 }))
        });
        let holdings = holdings.iter().filter(|of| !foreign.contains(&(of.entity_type, of.entity_id)));
        balanced(ledger::sums(added, holdings))
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

    /// No sample command is a dead letter.
    ///
    /// # Errors
    /// The first that is one.
    pub(super) fn check_dead(&self, letters: &[DeadCommand]) -> Result<(), Difference> {
        for dead in letters {
            if let Some(command_id) = dead.command_id.filter(|id| self.commands.contains_key(id)) {
                let DeadCommand { command_type, entity_id, code, detail, .. } = dead.clone();
                let [command_type, entity_id, detail] =
                    [command_type, entity_id, detail].map(Option::unwrap_or_default);
                return Err(Difference::Dead { command_id, command_type, entity_id, code, detail });
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
}

/// The sums, if all of them balance.
pub(super) fn balanced(sums: Sums) -> Result<Sums, Difference> {
    match sums.iter().find(|(_, sum)| !sum.balances()) {
        Some((entity_type, sum)) => {
            let (entity_type, held, added) = (entity_type.clone(), sum.held, sum.added);
            Err(Difference::Sum { entity_type, held, added })
        }
        None => Ok(sums),
    }
}

#[cfg(test)]
mod tests;
