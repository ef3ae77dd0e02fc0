//! The promises, as an auditor would check them who sees the tables, the topic and every memory at once.

use stateright::{Model, Property};

use crate::log;
use crate::log::{LOG, Record};
use crate::model::{Action, Partition, Step};
use crate::state::State;
use crate::writer::{Phase, Writer};

pub const ONE_WRITER: &str = "P1 only the owner in the row commits, and tokens never fall";
pub const ONE_EFFECT: &str = "P2 one effect per id, the one that the sequential oracle gives";
pub const KEY_ORDER: &str = "P3 commands take effect in log order";
pub const NOTHING_LOST: &str = "P4 the cursor passes recorded commands only, the offset the cursor never";
pub const PUBLISHED_AS_STORED: &str = "P5 every copy of an outcome is the stored one, in order";
pub const KNOWS_BETTER: &str = "P6 nobody works on a database that is behind what it knows";
pub const ONE_HISTORY: &str = "P6 each batch follows the one that its writer knew";
pub const NO_FALSE_ALARM: &str = "P6 without a failover nothing halts";
pub const DRAINED: &str = "where nothing can happen the log is drained and published, or halted";
pub const BOUNDED_CLAIMS: &str = "who is fenced does not take turns with the owner";

pub fn all() -> Vec<Property<Partition>> {
    vec![
        Property::<Partition>::always(ONE_WRITER, |_, state| one_writer(state)),
        Property::<Partition>::always(ONE_EFFECT, |_, state| one_effect(state)),
        Property::<Partition>::always(KEY_ORDER, |_, state| records(state).is_sorted_by(|a, b| a.offset < b.offset)),
        Property::<Partition>::always(NOTHING_LOST, |_, state| nothing_lost(state)),
        Property::<Partition>::always(PUBLISHED_AS_STORED, |_, state| published_as_stored(state)),
        Property::<Partition>::always(KNOWS_BETTER, |_, state| {
            state.db.row.halted || state.writers.iter().all(knows_no_better)
        }),
        Property::<Partition>::always(ONE_HISTORY, |_, state| one_history(state)),
        Property::<Partition>::always(NO_FALSE_ALARM, |_, state| state.failed_over || !state.db.row.halted),
        Property::<Partition>::always(DRAINED, |model, state| {
            is_over(state) || will_halt(model, state) || something_will_happen(model, state)
        }),
        Property::<Partition>::always(BOUNDED_CLAIMS, claims_are_bounded),
        Property::<Partition>::sometimes("a log is drained after a take-over", |_, state| {
            is_drained(state) && state.db.batches.first().map(|b| b.claim) != state.db.batches.last().map(|b| b.claim)
        }),
        Property::<Partition>::sometimes("a halt happens", |_, state| state.db.row.halted),
        Property::<Partition>::sometimes("the withdrawal that lacked money finds it", |_, state| {
            matches!(state.db.settled[1], Some(log::Outcome::Applied { .. }))
        }),
    ]
}

fn records(state: &State) -> impl Iterator<Item = &Record> {
    state.db.batches.iter().flat_map(|batch| &batch.records)
}

fn one_writer(state: &State) -> bool {
    let batches = &state.db.batches;
    batches.iter().all(|batch| batch.claim == batch.owner) && batches.is_sorted_by_key(|batch| batch.claim.token)
}

/// Every batch is decided again on what was true when it committed.
fn one_effect(state: &State) -> bool {
    let mut settled = [None; 2];
    state.db.batches.iter().all(|batch| {
        let count = batch.records.len();
        let first = batch.records[0].offset;
        let right = log::decide(batch.before, settled, first, count);
        for record in &right.0 {
            settled[record.id()] = Some(record.outcome);
        }
        right == (batch.records.clone(), batch.after)
    }) && settled == state.db.settled
}

fn nothing_lost(state: &State) -> bool {
    let row = &state.db.row;
    let ends: Vec<_> = records(state).map(|record| record.offset).collect();
    ends.iter().copied().eq(0..row.cursor)
        && row.batch_seq == state.db.batches.len()
        && (state.kafka.committed <= row.cursor || state.batch_lost)
}

fn published_as_stored(state: &State) -> bool {
    let copies = &state.kafka.outcomes;
    let stored = |&(offset, outcome): &(usize, _)| {
        offset < state.db.row.cursor && state.db.settled[LOG[offset]] == Some(outcome)
    };
    state.batch_lost || (copies.iter().all(stored) && copies.is_sorted_by(|a, b| a.0 < b.0))
}

fn knows_no_better(writer: &Writer) -> bool {
    let works = matches!(writer.phase, Phase::Working | Phase::Settling);
    let behind = writer.claim.token < writer.highest.token || writer.cursor < writer.highest.cursor;
    !works || !behind
}

/// A call that nobody waits for may never arrive: it does not count.
fn something_will_happen(model: &Partition, state: &State) -> bool {
    let mut actions = Vec::new();
    model.actions(state, &mut actions);
    let awaited = |action: &Action| !matches!(action, Action::Take(Step::Execute(flight)) if !flight.awaited);
    actions.iter().any(awaited)
}

/// Nothing more can be learnt: an operator must act, or the log is drained and the database cannot go back.
pub fn is_over(state: &State) -> bool {
    state.db.row.halted || (is_drained(state) && state.standby.is_none())
}

fn one_history(state: &State) -> bool {
    let before = state.db.batches.iter().map(|batch| Some(batch.decision));
    let before = std::iter::once(None).chain(before);
    before.zip(&state.db.batches).all(|(before, batch)| batch.follows == before)
}

fn is_drained(state: &State) -> bool {
    let published = |record: &Record| state.kafka.outcomes.contains(&(record.offset, record.outcome));
    state.db.row.cursor == state.end && records(state).all(published)
}

/// The owner has drained a log that the database has forgotten: the next command, beyond this log, will halt it.
fn will_halt(model: &Partition, state: &State) -> bool {
    let owner = &state.writers[state.kafka.owner];
    owner.phase == Phase::Working && owner.knows_better_than(&state.db.row, model.protocol)
}

/// A disturbance adds at most one claim by each member: its own, and the one of the owner whom that fences.
fn claims_are_bounded(model: &Partition, state: &State) -> bool {
    state.db.row.owner.token <= 1 + 2 * model.disturbances
}
