use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::*;
use crate::config::Partitioner;
use crate::handlers::rust::EntityBuilder;
use crate::handlers::{Context, Rejection};
use crate::horizon::Horizon;
use crate::record::TopicPartition;
use crate::steps::Parking;
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
        parking: Parking::default(),
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

fn decided(batch: &[Routed], caution: &Caution) -> Result<Decision, Undecided> {
    decided_by(&rules(), batch, caution)
}

fn decided_by(rules: &Rules, batch: &[Routed], caution: &Caution) -> Result<Decision, Undecided> {
    let mut deduplicator = Deduplicator::new(HashMap::new(), Horizon(i64::MIN), 0);
    let mut entities = absent(&["a", "b", "c"]);
    let mut basis = Basis { rules, deduplicator: &mut deduplicator, entities: &mut entities, caution };
    decide(batch, &mut basis, ParkedKeys::default())
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
            EntityChange { entity_id: "c".into(), base: None, change: None },
        ]
    );
    let Settles::Log { first_offset, last } = decision.settles else { panic!("records of the log") };
    assert_eq!((first_offset, last.offset), (1, 3));
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
    let batch = [item(1, 1, "a", r#"{"by":1}"#), item(2, 2, "a", r#"{"by":13}"#)];
    let decision = decided(&batch, &Caution::default()).unwrap();
    assert_eq!(decision.dead[0].code, DeadCode::HandlerFailed);
    let state = r#"{"balance":1,"note":""}"#.to_owned();
    assert_eq!(decision.entities[0].change, Some((1, state)));
}

#[test]
fn a_state_that_postgres_cannot_hold_is_found_by_deciding_carefully() {
    let batch = [item(1, 1, "a", r#"{"by":1,"note":"\u0000"}"#), item(2, 2, "a", r#"{"by":1,"note":"\\u0000"}"#)];
    // the second command's state replaces the first's, so the batch as a whole is storable
    assert!(decided(&batch, &Caution::default()).is_ok());
    assert!(decided(&batch[..1], &Caution::default()).is_err());
    let careful = Caution { encode_each: true, ..Caution::default() };
    let decision = decided(&batch, &careful).unwrap();
    let codes: Vec<_> = decision.dead.iter().map(|letter| letter.code).collect();
    assert_eq!(codes, [DeadCode::HandlerFailed, DeadCode::ParkedKey]);
}

/// Decided with this policy, and at most two waiting commands per key.
fn with_policy(batch: &[Routed], on_failure: OnFailure) -> Result<Decision, Undecided> {
    let rules = Rules { parking: Parking { on_failure, waiting_per_key_max: 2, waiting_max: 4 }, ..rules() };
    decided_by(&rules, batch, &Caution::default())
}

const POISON: &str = r#"{"by":13}"#;
const FINE: &str = r#"{"by":1}"#;

#[test]
fn a_command_that_fails_parks_its_key_and_no_other() {
    let batch = [item(1, 1, "a", POISON), item(2, 2, "b", FINE), item(3, 3, "a", FINE), item(4, 2, "b", FINE)];
    let decision = with_policy(&batch, OnFailure::ParkKey).unwrap();
    let states: Vec<_> = decision.dead.iter().map(|letter| (letter.code, letter.state)).collect();
    assert_eq!(states, [(DeadCode::HandlerFailed, LetterState::Parked), (DeadCode::ParkedKey, LetterState::Waiting)]);
    assert_eq!((decision.parked.waiting("a"), decision.parked.contains("b")), (1, false));
    assert!(matches!(&decision.owed[3], Owed::Repeat(_)), "the other key goes on, its repeats too");

    let decision = with_policy(&batch, OnFailure::Skip).unwrap();
    assert_eq!(decision.dead[0].state, LetterState::Dead);
    assert!(decision.parked.is_empty() && decision.outcomes.len() == 2);
    let halted = with_policy(&batch[1..2], OnFailure::HaltPartition).is_ok()
        && matches!(with_policy(&[item(0, 9, "c", FINE), item(1, 1, "a", POISON)], OnFailure::HaltPartition),
            Err(Undecided::Halts(1, halt)) if halt.code == HaltCode::HandlerFailed);
    assert!(halted, "at the second, and the first may be settled");
}

#[test]
fn a_malformed_payload_parks_nothing_and_waiting_commands_have_a_limit() {
    let batch = [item(1, 1, "a", "{}"), item(2, 2, "a", FINE)];
    assert_eq!(with_policy(&batch, OnFailure::ParkKey).unwrap().outcomes.len(), 1);
    let waiting = |n: u32| (0..n).map(|n| item(i64::from(n) + 2, 2 + u128::from(n), "a", FINE));
    let batch: Vec<Routed> = std::iter::once(item(1, 1, "a", POISON)).chain(waiting(3)).collect();
    assert!(with_policy(&batch[..3], OnFailure::ParkKey).is_ok());
    let limit = with_policy(&batch, OnFailure::ParkKey);
    assert!(matches!(limit, Err(Undecided::Halts(3, halt)) if halt.code == HaltCode::ParkedLimit));
    // and parked keys count as what waits behind them does
    let poison = ["a", "b", "c"].map(|key| item(1, key.len() as u128, key, POISON));
    let poison: Vec<Routed> = poison.into_iter().chain([item(5, 5, "a", FINE), item(6, 6, "b", FINE)]).collect();
    let limit = with_policy(&poison, OnFailure::ParkKey);
    assert!(matches!(limit, Err(Undecided::Halts(4, halt)) if halt.detail.contains("3 keys are parked and 1 ")));
}

#[test]
fn a_redriven_key_is_released_by_its_last_letter_and_stops_at_one_that_fails() {
    let letter = |dead_letter_id, state| RequestedLetter {
        request_id: 7,
        action: Action::Redrive,
        accept_expired: false,
        dead_letter_id,
        source: TopicPartition::new("t", 0),
        state,
        code: "data-error".to_owned(),
        attempts: 1,
        command_id: None,
        entity_id: Some("a".to_owned()),
        letters_of_key: 3,
        edited_value: None,
    };
    let requested = [letter(1, LetterState::Parked), letter(2, LetterState::Waiting), letter(3, LetterState::Waiting)];
    let parked: ParkedKeys = [("a".to_owned(), 2)].into_iter().collect();
    let run = |items: &[Routed]| {
        let (rules, caution) = (rules(), Caution::default());
        let mut deduplicator = Deduplicator::new(HashMap::new(), Horizon(i64::MIN), 0);
        let mut entities = absent(&["a"]);
        let mut basis =
            Basis { rules: &rules, deduplicator: &mut deduplicator, entities: &mut entities, caution: &caution };
        redrive(items, &requested, &mut basis, parked.clone()).unwrap()
    };
    let changes = |decision: &Decision| match &decision.settles {
        Settles::Letters(changes) => changes.clone(),
        Settles::Log { .. } => panic!("letters"),
    };
    // the third is a copy of the second
    let cured = run(&[item(1, 1, "a", FINE), item(2, 2, "a", FINE), item(3, 2, "a", FINE)]);
    assert!(cured.parked.is_empty());
    assert_eq!((cured.outcomes.len(), cured.owed.len()), (2, 3));
    assert!(changes(&cured).letters.iter().all(|change| change.state == LetterState::Redriven && !change.owes));

    let reused = run(&[item(1, 1, "a", FINE), item(2, 1, "a", r#"{"by":2}"#), item(3, 3, "a", FINE)]);
    assert!(reused.parked.is_empty() && reused.outcomes.len() == 2, "what waits behind a reused id goes on");
    assert_eq!((reused.dead[0].code, reused.dead[0].state), (DeadCode::IdReuse, LetterState::Dead));

    let malformed = run(&[item(1, 1, "a", FINE), item(2, 2, "a", "{}"), item(3, 3, "a", FINE)]);
    assert!(malformed.parked.is_empty() && malformed.outcomes.len() == 2, "nor does what parks nothing");
    assert!(changes(&malformed).refused.is_empty());

    let again = run(&[item(1, 1, "a", FINE), item(2, 2, "a", POISON), item(3, 3, "a", FINE)]);
    assert_eq!((again.parked.contains("a"), again.parked.waiting("a")), (true, 1));
    let changes = changes(&again);
    let states: Vec<_> = changes.letters.iter().map(|change| (change.state, change.attempts)).collect();
    assert_eq!(states, [(LetterState::Redriven, 2), (LetterState::Parked, 2)], "the third is left as it is");
    assert_eq!((changes.refused[0].0, again.dead[0].attempt), (7, 2));
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
                let (rules, caution) = (rules(), Caution::default());
                let mut basis = Basis { rules: &rules, deduplicator: &mut deduplicator, entities: &mut entities, caution: &caution };
                let Ok(decision) = decide(&items[at..to], &mut basis, ParkedKeys::default()) else { break };
                known.extend(decision.outcomes.iter().map(|o| (o.delivery.command_id, o.clone())));
                seen.extend(decision.outcomes.iter().map(|o| o.outcome().value.into_owned()));
                at = to;
            }
            seen
        };
        prop_assert_eq!(run(&mut std::iter::empty()), run(&mut cuts.into_iter()));
    }
}
