//! Step 4, deduplicate: an id already settled gets its stored outcome again.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use super::receive::Fault;
use crate::command::{Command, Fingerprint};
use crate::dead_letter::DeadCode;
use crate::horizon::{self, Horizon};
use crate::outcome::{Delivery, FinalOutcome};

/// What is known of ids when a batch is decided.
///
/// `known` holds the outcomes that the database (or the batch before, which is
/// about to commit) has for ids of this batch. An id above the horizon that is
/// not in it is taken for new; if it is not, the commit's unique key says so,
/// and the batch is decided again with the outcome known.
#[derive(Debug)]
pub struct Deduplicator {
    known: HashMap<Uuid, Arc<FinalOutcome>>,
    called: HashMap<Uuid, CalledBefore>,
    horizon: Horizon,
    database_time_ms: i64,
}

/// A command of the batch that the database will decide.
#[derive(Clone, Copy, Debug)]
struct CalledBefore {
    fingerprint: Fingerprint,
    offset: i64,
    n: usize,
}

/// What to do with a command.
#[derive(Debug)]
pub enum Verdict {
    /// Decide it.
    Fresh,
    /// It is settled: publish its outcome again.
    Duplicate(Arc<FinalOutcome>),
    /// It repeats the n-th command of the batch that the database decides.
    DuplicateOfCalled(usize),
    /// This delivery is dead.
    Dead(Fault),
}

impl Deduplicator {
    /// Starts a batch. `database_time_ms` counts from 1970.
    pub fn new(known: HashMap<Uuid, Arc<FinalOutcome>>, horizon: Horizon, database_time_ms: i64) -> Self {
        Self { known, called: HashMap::new(), horizon, database_time_ms }
    }

    /// Judges a command.
    pub fn judge(&self, command: &Command) -> Verdict {
        let id = &command.id;
        if horizon::is_from_future(id, self.database_time_ms) {
            let detail = "the id's time lies more than 24 h ahead of the database's clock";
            return Verdict::Dead((DeadCode::IdFromFuture, detail.into()));
        }
        match self.called.get(id) {
            Some(first) if first.fingerprint == command.fingerprint => return Verdict::DuplicateOfCalled(first.n),
            Some(first) => {
                let detail = format!("the id belongs to another command, of the record at offset {}", first.offset);
                return Verdict::Dead((DeadCode::IdReuse, detail));
            }
            None => {}
        }
        match self.known.get(id) {
            Some(outcome) if outcome.delivery.fingerprint == command.fingerprint => Verdict::Duplicate(outcome.clone()),
            Some(outcome) => Verdict::Dead((DeadCode::IdReuse, reused(&outcome.delivery))),
            None if self.horizon.is_below(id) => {
                let detail = "the id is older than the deduplication window: it may have run and been forgotten";
                Verdict::Dead((DeadCode::Expired, detail.into()))
            }
            None => Verdict::Fresh,
        }
    }

    /// From here on the batch knows this outcome too. (A copy whose delivery is
    /// dead leaves no trace: the next copy is decided anew.)
    pub fn settled(&mut self, outcome: Arc<FinalOutcome>) {
        self.known.insert(outcome.delivery.command_id, outcome);
    }

    /// The same for the n-th command that the database decides.
    pub fn called(&mut self, delivery: &Delivery, n: usize) {
        let Delivery { command_id, fingerprint, offset, .. } = *delivery;
        self.called.insert(command_id, CalledBefore { fingerprint, offset, n });
    }
}

fn reused(first: &Delivery) -> String {
    let Delivery { source, offset, command_type, entity_type, entity_id, .. } = first;
    format!(
        "the id belongs to another command, settled at {source}:{offset}: {command_type} of {entity_type} {entity_id:?}"
    )
}
