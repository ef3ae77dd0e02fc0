//! Dead letters that an operator wants run again, or given up: decided like a batch, in a batch of
//! their own. A command keeps its id, so it can still have one effect only.

use std::collections::{HashMap, HashSet};

use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::{Caution, Decision, Entities, Owed, Routed, Settles, Undecided, changes};
use crate::command::Command;
use crate::config::OnFailure;
use crate::dead_letter::{DeadCode, DeadLetter, LetterState, base64};
use crate::parked_keys::ParkedKeys;
use crate::steps::Rules;
use crate::steps::decide::handle::handle;
use crate::steps::deduplicate::{Deduplicator, Verdict};

/// What an operator wants done with a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run it again.
    Redrive,
    /// Give it up.
    Discard,
}

/// A dead letter of which something is requested. Its record stands beside it in the batch.
#[derive(Clone, Debug)]
pub struct Requested {
    /// The request.
    pub request_id: i64,
    /// What is requested.
    pub action: Action,
    /// It runs even if its id is older than the horizon.
    pub accept_expired: bool,
    /// The letter.
    pub dead_letter_id: i64,
    /// Its state.
    pub state: LetterState,
    /// Why it is dead.
    pub code: String,
    /// How often it was tried.
    pub attempts: i32,
    /// Its key.
    pub entity_id: Option<String>,
    /// How many letters of its key are parked or waiting, this one included if it is.
    pub letters_of_key: u64,
    /// The payload that takes the place of the record's.
    pub edited_value: Option<Vec<u8>>,
}

/// What becomes of one dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LetterChange {
    /// The letter.
    pub dead_letter_id: i64,
    /// Its state from now on.
    pub state: LetterState,
    /// How often it was tried, this time included.
    pub attempts: i32,
    /// Why it is dead again, if it is.
    pub code: Option<&'static str>,
    /// What is wrong with it then.
    pub detail: Option<String>,
    /// The payload that was run.
    #[serde(serialize_with = "in_base64")]
    pub edited_value: Option<Vec<u8>>,
    /// Whether an outcome of this delivery is owed.
    pub owes: bool,
}

fn in_base64<S: Serializer>(value: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
    value.as_deref().map(base64).serialize(serializer)
}

/// What becomes of dead letters in one batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LetterChanges {
    /// The letters, in the order in which they ran.
    pub letters: Vec<LetterChange>,
    /// Ids older than the horizon that an operator accepts all the same.
    pub accepted_expired: Vec<Uuid>,
    /// Requests that end here, with the reason.
    #[serde(skip)]
    pub refused: Vec<(i64, String)>,
}

/// Decides what becomes of these letters; `items` are their records, received and routed afresh.
/// A key whose letter fails is left as it is behind that one.
///
/// # Errors
/// [`Undecided::Unstorable`]: nothing is decided; the entities are spent.
pub fn redrive(
    items: &[Routed],
    requested: &[Requested],
    rules: &Rules,
    deduplicator: &mut Deduplicator,
    entities: &mut Entities,
    parked: ParkedKeys,
    caution: &Caution,
) -> Result<Decision, Undecided> {
    let decision = Decision::new(Settles::Letters(LetterChanges::default()), items, parked);
    let mut run = Run { decision, changes: LetterChanges::default(), stopped: HashSet::new(), let_go: HashMap::new() };
    for (routed, requested) in items.iter().zip(requested) {
        if run.stopped.contains(requested.entity_id.as_deref().unwrap_or_default()) {
            continue;
        }
        match requested.action {
            Action::Discard => run.discard(routed, requested),
            Action::Redrive => run.redrive(routed, requested, rules, deduplicator, entities, caution),
        }
    }
    let Run { mut decision, changes: letters, .. } = run;
    decision.settles = Settles::Letters(letters);
    decision.entities = changes(entities)?;
    Ok(decision)
}

struct Run<'r> {
    decision: Decision,
    changes: LetterChanges,
    /// Keys that go no further.
    stopped: HashSet<&'r str>,
    /// How many letters of a key hold it no more.
    let_go: HashMap<&'r str, u64>,
}

impl<'r> Run<'r> {
    fn discard(&mut self, routed: &Routed, requested: &'r Requested) {
        let fault = (DeadCode::Discarded, "an operator has discarded it".to_owned());
        let letter = match routed {
            Ok(command) => command.dead(fault),
            Err(letter) => DeadLetter { code: fault.0, detail: fault.1, ..(**letter).clone() },
        };
        // a reused id belongs to another command: nothing is said of it
        let command_id = letter.command_id.filter(|_| requested.code != DeadCode::IdReuse.as_str());
        self.die_again(DeadLetter { command_id, ..letter }, requested, LetterState::Discarded);
    }

    fn redrive(
        &mut self,
        routed: &Routed,
        requested: &'r Requested,
        rules: &Rules,
        deduplicator: &mut Deduplicator,
        entities: &mut Entities,
        caution: &Caution,
    ) {
        let command = match routed {
            Ok(command) => command,
            Err(letter) => return self.refuse(requested, letter.code, &letter.detail),
        };
        match deduplicator.judge(command) {
            Verdict::Duplicate(outcome) => self.decision.owed.push(Owed::Repeat(outcome)),
            Verdict::DuplicateOfCalled(n) => self.decision.owed.push(Owed::CalledRepeat(n)),
            Verdict::Dead((DeadCode::Expired, _)) if requested.accept_expired => {
                self.changes.accepted_expired.push(command.id);
                return self.run(command, requested, rules, deduplicator, entities, caution);
            }
            // while it waited it was not judged; what is behind it does not wait for this
            Verdict::Dead(fault) if fault.0 == DeadCode::IdReuse && requested.state.holds_its_key() => {
                return self.die_again(command.dead(fault), requested, LetterState::Dead);
            }
            Verdict::Dead((code, detail)) => return self.refuse(requested, code, &detail),
            Verdict::Fresh => return self.run(command, requested, rules, deduplicator, entities, caution),
        }
        self.ended(requested);
    }

    fn run(
        &mut self,
        command: &Command,
        requested: &'r Requested,
        rules: &Rules,
        deduplicator: &mut Deduplicator,
        entities: &mut Entities,
        caution: &Caution,
    ) {
        match handle(command, rules, entities, caution) {
            Ok(handled) => {
                self.decision.handled(handled, deduplicator);
                self.ended(requested);
            }
            Err(fault) => {
                let letter = command.dead(fault);
                let parks = letter.code.parks() && rules.parking.on_failure != OnFailure::Skip;
                let state = if parks { LetterState::Parked } else { LetterState::Dead };
                let why = format!("it failed again, {}: {}", letter.code, letter.detail);
                self.die_again(letter, requested, state);
                // one that waited and turns out to park nothing holds nobody up
                if parks || !requested.state.holds_its_key() {
                    self.stop(requested, why);
                }
                self.stopped.extend(requested.entity_id.as_deref().filter(|_| parks));
            }
        }
    }

    /// Its command has had its effect, now or before.
    fn ended(&mut self, requested: &'r Requested) {
        self.change(requested, LetterState::Redriven, None);
    }

    fn die_again(&mut self, letter: DeadLetter, requested: &'r Requested, state: LetterState) {
        self.change(requested, state, Some(&letter));
        self.decision.die(DeadLetter { state, attempt: requested.attempts + 1, ..letter });
    }

    fn change(&mut self, requested: &'r Requested, state: LetterState, again: Option<&DeadLetter>) {
        // of a discarded letter the reason stays that made it one
        let failed = again.filter(|letter| letter.code != DeadCode::Discarded);
        self.changes.letters.push(LetterChange {
            dead_letter_id: requested.dead_letter_id,
            state,
            attempts: requested.attempts + 1,
            code: failed.map(|letter| letter.code.as_str()),
            detail: failed.map(|letter| letter.detail.clone()),
            edited_value: requested.edited_value.clone(),
            owes: again.is_some(),
        });
        let Some(key) = requested.entity_id.as_deref() else { return };
        let parked = &mut self.decision.parked;
        if requested.state == LetterState::Waiting && state != LetterState::Waiting {
            parked.remove_one(key);
        }
        if state.holds_its_key() {
            parked.park(key);
        } else if requested.state.holds_its_key() {
            let let_go = self.let_go.entry(key).or_default();
            *let_go += 1;
            if *let_go == requested.letters_of_key {
                parked.release(key);
            }
        }
    }

    /// It can't be run as it is.
    fn refuse(&mut self, requested: &'r Requested, code: DeadCode, detail: &str) {
        let cure = match code {
            DeadCode::Expired => "; --accept-expired runs it if no corrected copy has run",
            DeadCode::Misrouted => "; produce it again",
            _ => "",
        };
        self.stop(requested, format!("it is {code}: {detail}{cure}"));
    }

    fn stop(&mut self, requested: &'r Requested, why: String) {
        self.changes.refused.push((requested.request_id, why));
        self.stopped.extend(requested.entity_id.as_deref().filter(|_| requested.state.holds_its_key()));
    }
}
