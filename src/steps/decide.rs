//! Step 5, decide: handlers run in offset order over prefetched state.
//! Synchronous, deterministic, no I/O. A command in SQL is decided as *in the
//! database*: a function and its arguments, which the commit completes.

mod encode;
mod handle;

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

pub use self::encode::part_bytes_max;
use self::encode::storable;
#[cfg(feature = "cli")]
pub(crate) use self::handle::called;
use self::handle::{Handled, handle};
use super::Rules;
use super::deduplicate::{Deduplicator, Verdict};
use crate::command::Command;
use crate::cursor::LastSettled;
use crate::dead_letter::{DeadCode, DeadLetter};
use crate::handlers::State;
use crate::handlers::sql::Write;
use crate::outcome::{Delivery, ENCODING, Ending, FinalOutcome};
use crate::record::Record;

/// A received record: a command on its own partition, or a dead letter.
pub type Routed = Result<Command, Box<DeadLetter>>;

/// An entity as a batch works on it.
pub struct Entity {
    /// The version that the decisions rest on: what the database holds. `None`:
    /// there is no row.
    pub base: Option<i64>,
    /// The version after the batch: how many commands have been applied.
    pub version: i64,
    /// The state after the batch, or why the stored one does not decode.
    pub state: Result<Box<dyn State>, String>,
}

/// The entities that a batch's commands address, by id. Empty for commands in
/// SQL: the database counts their versions.
pub type Entities = HashMap<Arc<str>, Entity>;

/// What a batch does to one entity, or rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntityChange {
    /// The entity's id.
    pub entity_id: Arc<str>,
    /// The version that must still be there; `None`: no row may be there.
    pub base: Option<i64>,
    /// The next version and state; `None`: only read, but still checked.
    pub change: Option<(i64, String)>,
}

/// A command that the database decides inside the commit.
#[derive(Clone, Debug)]
pub struct Called {
    /// What is known of it already.
    pub delivery: Delivery,
    /// The number of the function that decides.
    pub function: i16,
    /// The function's arguments: a JSON array of texts.
    pub arguments: String,
}

impl Called {
    /// The final outcome, once the database has decided.
    pub fn ended(&self, version: i64, ending: Ending) -> FinalOutcome {
        FinalOutcome { delivery: self.delivery.clone(), version, ending, encoding: ENCODING }
    }
}

/// A write that a handler in Rust asked for, with the command that it belongs to.
#[derive(Clone, Debug)]
pub struct OwnWrite {
    /// The function and its arguments.
    pub write: Write,
    /// The command's id.
    pub command_id: Uuid,
    /// The entity's id.
    pub entity_id: Arc<str>,
    /// The command's offset.
    pub offset: i64,
    /// Its record's time, milliseconds since 1970.
    pub record_time_ms: i64,
}

/// A record of the batch that owes a publication, in order of settlement.
#[derive(Clone, Debug)]
pub enum Owed {
    /// A final outcome, with its events.
    Outcome(Arc<FinalOutcome>),
    /// A stored outcome again, without the events.
    Repeat(Arc<FinalOutcome>),
    /// The outcome of the n-th command that the database decides, with its events.
    Called(usize),
    /// The same again, without the events: a repeat in the batch.
    CalledRepeat(usize),
    /// The outcome of the n-th dead letter of the batch.
    Dead(usize),
}

/// What is decided of a batch: a value. Nothing has happened yet.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Offset of the batch's first record.
    pub first_offset: i64,
    /// The record that the cursor will stand behind.
    pub last: LastSettled,
    /// The new final outcomes, in order. Empty, or else `called` is.
    pub outcomes: Vec<Arc<FinalOutcome>>,
    /// The commands that the database decides, in order.
    pub called: Vec<Called>,
    /// What handlers write in the commit, in order.
    pub writes: Vec<OwnWrite>,
    /// What runs in the database runs at isolation level serializable.
    pub serializable: bool,
    /// The dead letters, in order.
    pub dead: Vec<DeadLetter>,
    /// What is to be published, in order.
    pub owed: Vec<Owed>,
    /// Every entity that a decision rests on, sorted by id.
    pub entities: Vec<EntityChange>,
}

impl Decision {
    /// Whether a team's own statements run in its commit.
    pub fn runs_in_database(&self) -> bool {
        !self.called.is_empty() || !self.writes.is_empty()
    }

    /// The offset of the n-th command, or write, that runs in the database.
    pub fn offset_in_database(&self, n: usize) -> Option<i64> {
        let called = self.called.get(n).map(|called| called.delivery.offset);
        called.or_else(|| self.writes.get(n).map(|write| write.offset))
    }

    /// The ids of its final outcomes.
    pub fn final_ids(&self) -> impl Iterator<Item = Uuid> {
        let outcomes = self.outcomes.iter().map(|outcome| outcome.delivery.command_id);
        outcomes.chain(self.called.iter().map(|called| called.delivery.command_id))
    }
}

/// What only the database could tell of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Its delivery is dead.
    Dead(DeadCode, String),
    /// One of its writes broke a rule: rejected, with code and detail.
    Rejected(String, Option<String>),
}

/// How carefully to decide.
#[derive(Clone, Debug, Default)]
pub struct Caution {
    /// Encode the state after each command, to find the one whose state cannot
    /// be stored. Ordinarily it is encoded once per entity and batch.
    pub encode_each: bool,
    /// What the database has told of commands, by offset.
    pub judged: HashMap<i64, Judgement>,
}

/// An entity's new state cannot be stored: decide again, carefully.
#[derive(Debug)]
pub struct Unstorable;

/// Decides a batch, which is not empty.
///
/// # Errors
/// If a state cannot be stored; decide again with [`Caution::encode_each`].
pub fn decide(
    batch: &[Routed],
    rules: &Rules,
    deduplicator: &mut Deduplicator,
    entities: &mut Entities,
    caution: &Caution,
) -> Result<Decision, Unstorable> {
    let last = record_of(batch.last().expect("a batch is not empty"));
    let mut decision = Decision {
        first_offset: record_of(&batch[0]).offset,
        last: LastSettled { offset: last.offset, timestamp_ms: last.timestamp_ms, checksum: last.checksum() },
        outcomes: Vec::with_capacity(batch.len()),
        called: Vec::new(),
        writes: Vec::new(),
        serializable: batch.iter().flatten().any(|command| command.command_type.is_serializable()),
        dead: Vec::new(),
        owed: Vec::with_capacity(batch.len()),
        entities: Vec::new(),
    };
    for routed in batch {
        match routed {
            Ok(command) => decision.judge(command, rules, deduplicator, entities, caution),
            Err(letter) => decision.die((**letter).clone()),
        }
    }
    decision.entities = changes(entities)?;
    Ok(decision)
}

/// The record behind a received item.
pub fn record_of(routed: &Routed) -> &Record {
    match routed {
        Ok(command) => &command.record,
        Err(letter) => &letter.record,
    }
}

impl Decision {
    fn judge(
        &mut self,
        command: &Command,
        rules: &Rules,
        deduplicator: &mut Deduplicator,
        entities: &mut Entities,
        caution: &Caution,
    ) {
        match deduplicator.judge(command) {
            Verdict::Duplicate(outcome) => return self.owed.push(Owed::Repeat(outcome)),
            Verdict::DuplicateOfCalled(n) => return self.owed.push(Owed::CalledRepeat(n)),
            Verdict::Dead(fault) => return self.die(command.dead(fault)),
            Verdict::Fresh => {}
        }
        match handle(command, rules, entities, caution) {
            Ok(Handled::Decided(outcome, writes)) => {
                self.writes.extend(writes);
                let outcome = Arc::new(outcome);
                deduplicator.settled(outcome.clone());
                self.owed.push(Owed::Outcome(outcome.clone()));
                self.outcomes.push(outcome);
            }
            Ok(Handled::InDatabase(called)) => {
                deduplicator.called(&called.delivery, self.called.len());
                self.owed.push(Owed::Called(self.called.len()));
                self.called.push(called);
            }
            Err(fault) => self.die(command.dead(fault)),
        }
    }

    fn die(&mut self, letter: DeadLetter) {
        self.owed.push(Owed::Dead(self.dead.len()));
        self.dead.push(letter);
    }
}

fn changes(entities: &Entities) -> Result<Vec<EntityChange>, Unstorable> {
    let mut changes = Vec::with_capacity(entities.len());
    for (entity_id, entity) in entities {
        let change = match &entity.state {
            Ok(state) if entity.version > entity.base.unwrap_or(0) => {
                Some((entity.version, storable(&**state).map_err(|_| Unstorable)?))
            }
            _ => None,
        };
        changes.push(EntityChange { entity_id: entity_id.clone(), base: entity.base, change });
    }
    // sorted, so that two batches that touch the same rows cannot deadlock
    changes.sort_by(|a, b| a.entity_id.cmp(&b.entity_id));
    Ok(changes)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};
    use uuid::Uuid;

    use super::*;
    use crate::config::Partitioner;
    use crate::handlers::rust::EntityBuilder;
    use crate::handlers::{Context, Rejection};
    use crate::horizon::Horizon;
    use crate::record::TopicPartition;
    use crate::steps::receive::receive;

    #[derive(Clone, Default, Serialize, Deserialize)]
    struct Account {
        balance: i64,
        note: String,
    }

    #[derive(Deserialize)]
    struct Change {
        by: i64,
        #[serde(default)]
        note: String,
    }

    pub(crate) fn rules() -> Rules {
        let handlers = EntityBuilder::<Account>::new("account")
            .on("account.open", |account: &mut Account, change: Change, cx: &mut Context<'_>| {
                assert!(change.by != 13, "unlucky");
                if account.balance + change.by < 0 {
                    return Err(Rejection::new("insufficient-funds"));
                }
                account.balance += change.by;
                account.note = change.note;
                cx.emit("account.opened", &change.by);
                Ok(account.balance)
            })
            .into_handlers();
        Rules {
            source: TopicPartition::new("t", 0),
            handlers: Arc::new(handlers),
            partition_count: 1,
            partitioner: Partitioner::Murmur2,
            payload_bytes_max: 1000,
            outcome_bytes_max: 10_000,
        }
    }

    fn item(offset: i64, id: u128, key: &str, data: &str) -> Routed {
        let id = Uuid::from_u128(id).to_string();
        let headers = [(&b"ce_id"[..], Some(id.as_bytes())), (b"ce_type", Some(b"account.open"))];
        receive(Record::copied(offset, 5, Some(key.as_bytes()), Some(data.as_bytes()), &headers), &rules())
    }

    fn absent(keys: &[&str]) -> Entities {
        let entity = || Entity { base: None, version: 0, state: Ok(rules().handlers.initial()) };
        keys.iter().map(|key| ((*key).into(), entity())).collect()
    }

    fn decided(batch: &[Routed], caution: &Caution) -> Result<Decision, Unstorable> {
        let mut deduplicator = Deduplicator::new(HashMap::new(), Horizon(i64::MIN), 0);
        decide(batch, &rules(), &mut deduplicator, &mut absent(&["a", "b"]), caution)
    }

    #[test]
    fn a_batch_is_coalesced_to_one_change_per_entity_and_rejections_check_their_version() {
        let batch = [item(1, 1, "b", r#"{"by":1}"#), item(2, 2, "a", r#"{"by":-1}"#), item(3, 3, "b", r#"{"by":2}"#)];
        let decision = decided(&batch, &Caution::default()).unwrap();
        assert_eq!(decision.outcomes.iter().map(|o| o.version).collect::<Vec<_>>(), [1, 0, 2]);
        let state = r#"{"balance":3,"note":""}"#.to_owned();
        assert_eq!(
            decision.entities,
            [
                EntityChange { entity_id: "a".into(), base: None, change: None },
                EntityChange { entity_id: "b".into(), base: None, change: Some((2, state)) },
            ]
        );
        assert_eq!((decision.first_offset, decision.last.offset), (1, 3));
    }

    #[test]
    fn a_repeat_in_the_batch_is_a_duplicate_unless_its_first_copy_is_dead() {
        let batch = [
            item(1, 1, "a", r#"{"by":"x"}"#),
            item(2, 1, "a", r#"{"by":"x"}"#),
            item(3, 1, "a", r#"{"by":1}"#),
            item(4, 1, "a", r#"{"by":1}"#),
            item(5, 1, "a", r#"{"by":2}"#),
        ];
        let decision = decided(&batch, &Caution::default()).unwrap();
        let codes: Vec<_> = decision.dead.iter().map(|letter| letter.code).collect();
        assert_eq!(codes, [DeadCode::MalformedPayload, DeadCode::MalformedPayload, DeadCode::IdReuse]);
        assert_eq!(decision.outcomes.len(), 1);
        assert!(matches!(&decision.owed[3], Owed::Repeat(outcome) if outcome.delivery.offset == 3));
    }

    #[test]
    fn a_panic_leaves_the_state_untouched() {
        let batch = [item(1, 1, "a", r#"{"by":1}"#), item(2, 2, "a", r#"{"by":13}"#), item(3, 3, "a", r#"{"by":1}"#)];
        let decision = decided(&batch, &Caution::default()).unwrap();
        assert_eq!(decision.dead[0].code, DeadCode::HandlerFailed);
        assert_eq!(decision.outcomes.last().unwrap().version, 2);
    }

    #[test]
    fn a_state_that_postgres_cannot_hold_is_found_by_deciding_carefully() {
        let batch = [item(1, 1, "a", r#"{"by":1,"note":"\u0000"}"#), item(2, 2, "a", r#"{"by":1,"note":"\\u0000"}"#)];
        // the second command's state replaces the first's, so the batch as a whole is storable
        assert!(decided(&batch, &Caution::default()).is_ok());
        assert!(decided(&batch[..1], &Caution::default()).is_err());
        let careful = Caution { encode_each: true, ..Caution::default() };
        let decision = decided(&batch, &careful).unwrap();
        assert_eq!(decision.dead[0].code, DeadCode::HandlerFailed);
        assert_eq!(decision.outcomes.len(), 1);
    }

    #[test]
    fn only_a_json_object_is_a_payload() {
        for payload in [
            "[1]",
            "1",
            "",
            "null",
            "\u{a0}{}",
            r#"{"by":1.5}"#,
            r#"{"by":1e400000}"#,
            r#"{"by":1,"by":2}"#,
            r#"{"by":1} x"#,
        ] {
            let decision = decided(&[item(1, 1, "a", payload)], &Caution::default()).unwrap();
            assert_eq!(decision.dead.len(), 1, "{payload}");
            assert_eq!(decision.dead[0].code, DeadCode::MalformedPayload, "{payload}");
        }
        let deep = format!(r#"{{"x":{}1{},"y":1e400000,"by":1}}"#, "[".repeat(400), "]".repeat(400));
        assert_eq!(decided(&[item(1, 1, "a", &deep)], &Caution::default()).unwrap().outcomes.len(), 1);
    }

    proptest! {
        /// The oracle is the sum over distinct ids in order: however the log is
        /// cut into batches, the outcomes are the same.
        #[test]
        fn batching_never_changes_an_outcome(
            log in prop::collection::vec((0u128..12, 0usize..2, -5i64..6), 1..30),
            cuts in prop::collection::vec(1usize..8, 1..30),
        ) {
            let items: Vec<Routed> = log.iter().enumerate()
                .map(|(at, (id, key, by))| item(at as i64, 1 + id, ["a", "b"][*key], &format!(r#"{{"by":{by}}}"#)))
                .collect();
            let run = |sizes: &mut dyn Iterator<Item = usize>| {
                let mut entities = absent(&["a", "b"]);
                let mut known = HashMap::new();
                let (mut at, mut seen) = (0, Vec::new());
                while at < items.len() {
                    let to = items.len().min(at + sizes.next().unwrap_or(usize::MAX / 2));
                    let mut deduplicator = Deduplicator::new(known.clone(), Horizon(i64::MIN), 0);
                    let Ok(decision) = decide(&items[at..to], &rules(), &mut deduplicator, &mut entities, &Caution::default()) else { break };
                    known.extend(decision.outcomes.iter().map(|o| (o.delivery.command_id, o.clone())));
                    seen.extend(decision.outcomes.iter().map(|o| o.outcome().value.into_owned()));
                    at = to;
                }
                seen
            };
            prop_assert_eq!(run(&mut std::iter::empty()), run(&mut cuts.into_iter()));
        }
    }
}
