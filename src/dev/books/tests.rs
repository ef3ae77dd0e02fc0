use std::collections::BTreeMap;

use super::*;

const ONE: Uuid = Uuid::from_u128(1);
const TWO: Uuid = Uuid::from_u128(2);

fn ordered(command_id: Uuid, adds: i64) -> Ordered {
    Ordered { command_id, entity_type: "account".into(), entity_id: "a".into(), adds: Some(adds), at: Instant::now() }
}

fn heard(command_id: Uuid, version: i64) -> Heard {
    let (digest, at) = (command_id.as_u128() as u64, Instant::now());
    let (command_type, entity_id) = ("account.deposit".into(), "a".into());
    let (outcome, code, detail) = ("applied".into(), None, None);
    Heard { command_id, command_type, entity_id, outcome, code, detail, version: Some(version), digest, at }
}

fn row(command_id: Uuid, version: i64) -> SettledCommand {
    let (entity_type, entity_id) = ("account".into(), "a".into());
    SettledCommand { command_id, entity_type, entity_id, applied: true, version }
}

fn samples() -> [SampleTraffic; 1] {
    [SampleTraffic::new::<i64>("account", |_| unreachable!("nothing is sent"), |held| *held)]
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
    books.check(evidence, &samples()).expect_err("a difference")
}

#[test]
fn balanced_books_say_what_they_hold() {
    let (books, evidence) = balanced();
    let balance = books.check(&evidence, &samples()).expect("balanced");
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
fn commands_are_tallied_once_each_and_the_first_dead_letter_of_a_kind_is_told() {
    let (mut books, _) = balanced();
    let dead = |code: &str| Heard { version: None, code: Some(code.into()), outcome: "dead".into(), ..heard(TWO, 2) };
    let told = |books: &mut Books| books.take_untold().iter().map(ToString::to_string).collect::<Vec<_>>();
    let three = Uuid::from_u128(3);
    books.ordered(ordered(three, 0));
    books.heard(dead("malformed-payload"));
    books.heard(dead("malformed-payload"));
    books.heard(Heard { command_id: three, ..dead("malformed-payload") });
    let [one] = &told(&mut books)[..] else { panic!("one of a kind") };
    assert!(one.starts_with("account.deposit to a is a dead letter: malformed-payload"), "{one}");
    let counts: Vec<_> = books.tally().counts().map(|count| (count.outcome.to_owned(), count.commands)).collect();
    assert_eq!(counts, [("applied".to_owned(), 2), ("dead".to_owned(), 2)]);
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
    assert!(books.check(&evidence, &samples()).is_err());
    let (books, mut evidence) = balanced();
    evidence.entities.clear();
    assert!(matches!(difference(&books, &evidence), Difference::Version { version: 0, .. }));
}

#[test]
fn a_dead_letter_of_a_sample_command_is_a_difference() {
    let (books, mut evidence) = balanced();
    evidence.dead.push(DeadCommand {
        command_id: Some(TWO),
        command_type: Some("account.open".into()),
        entity_id: Some("a".into()),
        code: "malformed-payload".into(),
        detail: Some("initial is missing".into()),
    });
    let said = difference(&books, &evidence).to_string();
    assert!(said.starts_with("account.open to a is a dead letter: malformed-payload: initial is missing"), "{said}");
    evidence.dead[0].command_id = None;
    assert!(books.check(&evidence, &samples()).is_ok(), "somebody else's record");
}

#[test]
fn what_somebody_else_sends_leaves_the_books_balanced() {
    let (books, mut evidence) = balanced();
    evidence.settled.push(row(Uuid::from_u128(3), 3));
    evidence.entities[0] = EntityState { version: 3, state: Some("71".into()), ..evidence.entities[0].clone() };
    let balance = books.check(&evidence, &samples()).expect("balanced");
    assert_eq!((balance.foreign, balance.held.len()), (1, 0));
}
