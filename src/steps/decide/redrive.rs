//! Dead letters that an operator wants run again, or given up: decided like a batch, in a batch of
//! their own. A command keeps its id, so it can still have one effect only.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::{Basis, Decision, Owed, Routed, Settles, Undecided, changes};
use crate::command::Command;
use crate::config::OnFailure;
use crate::dead_letter::{DeadCode, DeadLetter, LetterState, base64};
use crate::parked_keys::ParkedKeys;
use crate::record::TopicPartition;
use crate::steps::decide::handle::handle;
use crate::steps::deduplicate::Verdict;

/// What an operator wants done with a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run it again.
    Redrive,
    /// Note that its record was produced again, to the partition of its key: it runs from there.
    Reproduced,
    /// Give it up.
    Discard,
}

impl Action {
    /// The action as it stands in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redrive => "redrive",
            Self::Reproduced => "reproduced",
            Self::Discard => "discard",
        }
    }

    /// The action of this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Redrive, Self::Reproduced, Self::Discard].into_iter().find(|action| action.as_str() == name)
    }
}

/// A dead letter of which something is requested. Its record stands beside it in the batch.
#[derive(Clone, Debug)]
pub struct RequestedLetter {
    /// The request.
    pub request_id: i64,
    /// What is requested.
    pub action: Action,
    /// It runs even if its id is older than the horizon.
    pub accept_expired: bool,
    /// The letter.
    pub dead_letter_id: i64,
    /// The log that it came from: another partition's, if the layout has changed since.
    pub source: TopicPartition,
    /// Its state.
    pub state: LetterState,
    /// Why it is dead.
    pub code: String,
    /// How often it was tried.
    pub attempts: i32,
    /// The command's id, as far as it could be read.
    pub command_id: Option<Uuid>,
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
    /// The command's id, as far as it can be read by now.
    pub command_id: Option<Uuid>,
    /// The command's type, likewise.
    pub command_type: Option<String>,
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
    /// The partition of the log that a command came from, where it is not the writer's.
    pub elsewhere: BTreeMap<Uuid, i32>,
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
    letters: &[RequestedLetter],
    basis: &mut Basis<'_>,
    parked: ParkedKeys,
) -> Result<Decision, Undecided> {
    let decision = Decision::new(Settles::Letters(LetterChanges::default()), items, parked);
    let mut run = Run { decision, changes: LetterChanges::default(), stopped: HashSet::new(), let_go: HashMap::new() };
    for (routed, letter) in items.iter().zip(letters) {
        if run.stopped.contains(letter.entity_id.as_deref().unwrap_or_default()) {
            continue;
        }
        match letter.action {
            Action::Redrive => run.redrive(routed, letter, basis),
            Action::Reproduced => run.ended(letter),
            Action::Discard => run.discard(routed, letter),
        }
    }
    let Run { mut decision, changes: letters, .. } = run;
    decision.settles = Settles::Letters(letters);
    decision.entities = changes(basis.entities)?;
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
    fn discard(&mut self, routed: &Routed, letter: &'r RequestedLetter) {
        let fault = (DeadCode::Discarded, "an operator has discarded it".to_owned());
        let discarded = match routed {
            Ok(command) => command.dead(fault),
            Err(dead) => DeadLetter { code: fault.0, detail: fault.1, ..(**dead).clone() },
        };
        // a reused id belongs to another command: nothing is said of it
        let command_id = discarded.command_id.filter(|_| letter.code != DeadCode::IdReuse.as_str());
        self.die_again(DeadLetter { command_id, ..discarded }, letter, LetterState::Discarded);
    }

    fn redrive(&mut self, routed: &Routed, letter: &'r RequestedLetter, basis: &mut Basis<'_>) {
        let command = match routed {
            Ok(command) => command,
            Err(dead) => return self.refuse(letter, dead.code, &dead.detail),
        };
        match basis.deduplicator.judge(command) {
            Verdict::Duplicate(outcome) => self.decision.owed.push(Owed::Repeat(outcome)),
            Verdict::DuplicateOfCalled(n) => self.decision.owed.push(Owed::CalledRepeat(n)),
            Verdict::Dead((DeadCode::Expired, _)) if letter.accept_expired => {
                self.changes.accepted_expired.push(command.id);
                return self.run(command, letter, basis);
            }
            // while it waited it was not judged; what is behind it does not wait for this
            Verdict::Dead(fault) if fault.0 == DeadCode::IdReuse && letter.state.holds_its_key() => {
                return self.die_again(command.dead(fault), letter, LetterState::Dead);
            }
            Verdict::Dead((code, detail)) => return self.refuse(letter, code, &detail),
            Verdict::Fresh => return self.run(command, letter, basis),
        }
        self.ended(letter);
    }

    fn run(&mut self, command: &Command, letter: &'r RequestedLetter, basis: &mut Basis<'_>) {
        match handle(command, basis) {
            Ok(mut handled) => {
                if letter.source != basis.rules.source {
                    handled.delivery_mut().source = letter.source.clone();
                    self.changes.elsewhere.insert(command.id, letter.source.partition);
                }
                self.decision.handled(handled, basis.deduplicator);
                self.ended(letter);
            }
            Err(fault) => {
                let again = command.dead(fault);
                let parks = again.code.parks() && basis.rules.parking.on_failure != OnFailure::Skip;
                let state = if parks { LetterState::Parked } else { LetterState::Dead };
                let why = format!("it failed again, {}: {}", again.code, again.detail);
                self.die_again(again, letter, state);
                // one that waited and turns out to park nothing holds nobody up
                if parks || !letter.state.holds_its_key() {
                    self.stop(letter, why);
                }
                self.stopped.extend(letter.entity_id.as_deref().filter(|_| parks));
            }
        }
    }

    /// Nothing is left to do with it: its command has had its effect, or comes on another partition.
    fn ended(&mut self, letter: &'r RequestedLetter) {
        self.change(letter, LetterState::Redriven, None);
    }

    fn die_again(&mut self, again: DeadLetter, letter: &'r RequestedLetter, state: LetterState) {
        self.change(letter, state, Some(&again));
        let (source, attempt) = (Some(letter.source.clone()), letter.attempts + 1);
        self.decision.die(DeadLetter { state, attempt, source, ..again });
    }

    fn change(&mut self, letter: &'r RequestedLetter, state: LetterState, again: Option<&DeadLetter>) {
        // of a discarded letter the reason stays that made it one
        let failed = again.filter(|again| again.code != DeadCode::Discarded);
        self.changes.letters.push(LetterChange {
            dead_letter_id: letter.dead_letter_id,
            state,
            attempts: letter.attempts + 1,
            code: failed.map(|again| again.code.as_str()),
            detail: failed.map(|again| again.detail.clone()),
            command_id: failed.and_then(|again| again.command_id),
            command_type: failed.and_then(|again| again.command_type.clone()),
            edited_value: letter.edited_value.clone(),
            owes: again.is_some(),
        });
        let Some(key) = letter.entity_id.as_deref() else { return };
        let parked = &mut self.decision.parked;
        if letter.state == LetterState::Waiting && state != LetterState::Waiting {
            parked.remove_one(key);
        }
        if state.holds_its_key() {
            parked.park(key);
        } else if letter.state.holds_its_key() {
            let let_go = self.let_go.entry(key).or_default();
            *let_go += 1;
            if *let_go == letter.letters_of_key {
                parked.release(key);
            }
        }
    }

    /// It can't be run as it is.
    fn refuse(&mut self, letter: &'r RequestedLetter, code: DeadCode, detail: &str) {
        let cure = match code {
            DeadCode::Expired => "; --accept-expired runs it if no corrected copy has run",
            _ => "",
        };
        self.stop(letter, format!("it is {code}: {detail}{cure}"));
    }

    fn stop(&mut self, letter: &'r RequestedLetter, why: String) {
        self.changes.refused.push((letter.request_id, why));
        self.stopped.extend(letter.entity_id.as_deref().filter(|_| letter.state.holds_its_key()));
    }
}
