//! Step 5, decide: handlers run in offset order over prefetched state.
//! Synchronous, deterministic, no I/O.

use std::collections::HashMap;
use std::sync::Arc;

use super::Rules;
use super::deduplicate::{Deduplicator, Verdict};
use super::receive::Fault;
use crate::command::Command;
use crate::cursor::LastSettled;
use crate::dead_letter::{DeadCode, DeadLetter};
use crate::handlers::{Context, HandlerError, Rejection, State};
use crate::outcome::{ENCODING, Ending, FinalOutcome, escaped_detail};
use crate::record::Record;

/// What an outcome's envelope takes beside its parts, generously: bytes. An entity
/// id alone is up to 512 bytes in the key and in `ce_subject`, and six times that
/// in JSON, if all of it must be escaped.
const OUTCOME_OVERHEAD_BYTES: usize = 8192;

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

/// The entities that a batch's commands address, by id.
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

/// A record of the batch that owes a publication, in order of settlement.
#[derive(Clone, Debug)]
pub enum Owed {
    /// A final outcome, with its events.
    Outcome(Arc<FinalOutcome>),
    /// A stored outcome again, without the events.
    Repeat(Arc<FinalOutcome>),
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
    /// The new final outcomes, in order.
    pub outcomes: Vec<Arc<FinalOutcome>>,
    /// The dead letters, in order.
    pub dead: Vec<DeadLetter>,
    /// What is to be published, in order.
    pub owed: Vec<Owed>,
    /// Every entity that a decision rests on, sorted by id.
    pub entities: Vec<EntityChange>,
}

/// How carefully to decide.
#[derive(Clone, Debug, Default)]
pub struct Caution {
    /// Encode the state after each command, to find the one whose state cannot
    /// be stored. Ordinarily it is encoded once per entity and batch.
    pub encode_each: bool,
    /// The record at this offset is dead for a reason that only the database
    /// could tell.
    pub condemned: Option<(i64, String)>,
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
    let mut outcomes = Vec::with_capacity(batch.len());
    let mut owed = Vec::with_capacity(batch.len());
    let mut dead: Vec<DeadLetter> = Vec::new();
    for routed in batch {
        let verdict = match routed {
            Ok(command) => judge(command, rules, deduplicator, entities, caution),
            Err(letter) => Judged::Dead((**letter).clone()),
        };
        match verdict {
            Judged::Fresh(outcome) => {
                deduplicator.settled(outcome.clone());
                owed.push(Owed::Outcome(outcome.clone()));
                outcomes.push(outcome);
            }
            Judged::Repeat(outcome) => owed.push(Owed::Repeat(outcome)),
            Judged::Dead(letter) => {
                owed.push(Owed::Dead(dead.len()));
                dead.push(letter);
            }
        }
    }
    let last = record_of(batch.last().expect("a batch is not empty"));
    Ok(Decision {
        first_offset: record_of(&batch[0]).offset,
        last: LastSettled { offset: last.offset, timestamp_ms: last.timestamp_ms, checksum: last.checksum() },
        outcomes,
        dead,
        owed,
        entities: changes(entities)?,
    })
}

/// The record behind a received item.
pub fn record_of(routed: &Routed) -> &Record {
    match routed {
        Ok(command) => &command.record,
        Err(letter) => &letter.record,
    }
}

enum Judged {
    Fresh(Arc<FinalOutcome>),
    Repeat(Arc<FinalOutcome>),
    Dead(DeadLetter),
}

fn judge(
    command: &Command,
    rules: &Rules,
    deduplicator: &Deduplicator,
    entities: &mut Entities,
    caution: &Caution,
) -> Judged {
    match deduplicator.judge(command) {
        Verdict::Duplicate(outcome) => return Judged::Repeat(outcome),
        Verdict::Dead(fault) => return Judged::Dead(command.dead(fault)),
        Verdict::Fresh => {}
    }
    if let Some((_, why)) = caution.condemned.as_ref().filter(|(offset, _)| *offset == command.record.offset) {
        return Judged::Dead(command.dead((DeadCode::DataError, why.clone())));
    }
    let Some((entity_id, entity)) = touched(entities, command.entity_id()) else {
        // the driver loads every entity of a batch: a bug of ours, but no reason
        // to lose the record
        return Judged::Dead(command.dead((DeadCode::HandlerFailed, "its entity was not loaded".into())));
    };
    match run(command, rules, entity, caution) {
        Ok(ending) => Judged::Fresh(Arc::new(final_outcome(command, rules, entity_id, entity.version, ending))),
        Err(fault) => Judged::Dead(command.dead(fault)),
    }
}

fn touched<'e>(entities: &'e mut Entities, entity_id: &str) -> Option<(Arc<str>, &'e mut Entity)> {
    let (id, _) = entities.get_key_value(entity_id)?;
    let id = id.clone();
    entities.get_mut(entity_id).map(|entity| (id, entity))
}

/// Runs the handler on a copy of the state, which replaces it only if the
/// command is applied.
fn run(command: &Command, rules: &Rules, entity: &mut Entity, caution: &Caution) -> Result<Ending, Fault> {
    let data = object(command.data())?;
    let state = entity.state.as_ref().map_err(|why| {
        (DeadCode::HandlerFailed, format!("the stored state of {:?} does not decode: {why}", command.entity_id()))
    })?;
    let mut cx = Context::new(command.entity_id(), command.id, command.record.time_ms(), entity.version);
    let handled = command.command_type.handle(&**state, data, &mut cx);
    if let Some(why) = cx.failed() {
        return Err((DeadCode::HandlerFailed, why.to_owned()));
    }
    let applied = match handled {
        Ok(applied) => applied,
        Err(HandlerError::Rejected(rejection)) => return rejected(rejection, rules.outcome_bytes_max),
        Err(HandlerError::Malformed(why)) => return Err((DeadCode::MalformedPayload, why)),
        Err(HandlerError::Failed(why)) => return Err((DeadCode::HandlerFailed, why)),
    };
    let events = cx.into_events();
    let longest = events.iter().map(|event| event.data.get().len()).chain([applied.reply.get().len()]).max();
    fits(longest.unwrap_or(0), rules.outcome_bytes_max)?;
    if caution.encode_each {
        storable(&*applied.state).map_err(|why| (DeadCode::HandlerFailed, why))?;
    }
    entity.state = Ok(applied.state);
    entity.version += 1;
    Ok(Ending::Applied { reply: applied.reply, events })
}

/// The payload, if it is a JSON object at all. (serde would also read a struct
/// from an array, and skips text that is no UTF-8 in fields that it ignores.)
fn object(data: Option<&[u8]>) -> Result<&[u8], Fault> {
    let malformed = |why: &str| (DeadCode::MalformedPayload, why.to_owned());
    let data = data.ok_or_else(|| malformed("there is no payload"))?;
    let text = std::str::from_utf8(data).map_err(|_| malformed("the payload is not UTF-8"))?;
    let is_object = text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{');
    is_object.then_some(data).ok_or_else(|| malformed("the payload is not a JSON object"))
}

fn rejected(rejection: Rejection, outcome_bytes_max: usize) -> Result<Ending, Fault> {
    let code = rejection.code().into();
    let detail = rejection.into_detail().map(|detail| escaped_detail(&detail));
    fits(detail.as_ref().map_or(0, String::len), outcome_bytes_max)?;
    Ok(Ending::Rejected { code, detail })
}

/// An outcome that the broker would refuse would block the partition's
/// publications for ever; so it is refused here, before it is durable.
fn fits(part_bytes: usize, outcome_bytes_max: usize) -> Result<(), Fault> {
    if part_bytes + OUTCOME_OVERHEAD_BYTES <= outcome_bytes_max {
        return Ok(());
    }
    let why = format!("its outcome or an event has {part_bytes} bytes; the outcomes topic takes {outcome_bytes_max}");
    Err((DeadCode::HandlerFailed, why))
}

fn final_outcome(command: &Command, rules: &Rules, entity_id: Arc<str>, version: i64, ending: Ending) -> FinalOutcome {
    FinalOutcome {
        command_id: command.id,
        command_type: command.command_type.name.clone(),
        entity_type: rules.handlers.entity_type.clone(),
        entity_id,
        fingerprint: command.fingerprint,
        source: rules.source.clone(),
        offset: command.record.offset,
        record_time_ms: command.record.time_ms(),
        version,
        ending,
        traceparent: command.traceparent.clone(),
        encoding: ENCODING,
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

/// The state as Postgres will store it. jsonb cannot hold U+0000.
fn storable(state: &dyn State) -> Result<String, String> {
    let encoded = state.encode().map_err(|why| format!("its state cannot be encoded: {why}"))?;
    if holds_nul(&encoded) {
        return Err("its state holds U+0000, which Postgres cannot store".into());
    }
    Ok(encoded)
}

/// Whether JSON text has the escape `\u0000` (and not an escaped backslash
/// before `u0000`).
fn holds_nul(json: &str) -> bool {
    json.match_indices("\\u0000").any(|(at, _)| {
        let backslashes = json[..at].bytes().rev().take_while(|b| *b == b'\\').count();
        backslashes % 2 == 0
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};
    use uuid::Uuid;

    use super::*;
    use crate::config::Partitioner;
    use crate::handlers::rust::EntityBuilder;
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
        assert!(matches!(&decision.owed[3], Owed::Repeat(outcome) if outcome.offset == 3));
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
        let careful = Caution { encode_each: true, condemned: None };
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
                    known.extend(decision.outcomes.iter().map(|o| (o.command_id, o.clone())));
                    seen.extend(decision.outcomes.iter().map(|o| o.outcome().value.into_owned()));
                    at = to;
                }
                seen
            };
            prop_assert_eq!(run(&mut std::iter::empty()), run(&mut cuts.into_iter()));
        }
    }
}
