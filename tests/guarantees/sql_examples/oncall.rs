//! On call: the right key, or serializable transactions; and what happens without either.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use serde_json::json;
use sqlx::Connection;

use crate::support;
use crate::support::bank::Bank;
use crate::support::commands::ended;
use crate::support::consumer::read_all;
use crate::support::patience::{PATIENCE, wait_until};
use crate::support::producer::Record;
use crate::support::topics::keys_on;

const SHIFTS: usize = 100;

/// One writer for each shift: what each command finds is what the one before it left.
#[tokio::test]
async fn keyed_by_the_shift_the_last_doctor_stays() {
    let _turn = support::heavy();
    let bank = Bank::in_sql("oncall", "commands.toml", "shift", 3).await;
    let mut random = Rng::with_seed(7);
    let doctors = ["alice", "bob", "carol"];
    let mut on_call: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let (mut log, mut expected) = (Vec::new(), Vec::new());
    for _ in 0..1_500 {
        let (shift, doctor) = (format!("shift-{}", random.u32(..30)), doctors[random.usize(..3)]);
        let joins = random.u32(..10) < 4;
        let command_type = if joins { "shift.join" } else { "shift.leave" };
        log.push(Record::command(command_type, &shift, &json!({ "doctor": doctor })));
        let there = on_call.entry(shift).or_default();
        expected.push(match joins {
            true if there.insert(doctor) => "applied",
            true => "already-on-call",
            false if !there.contains(doctor) => "not-on-call",
            false if there.len() == 1 => "last-on-call",
            false => {
                there.remove(doctor);
                "applied"
            }
        });
    }
    bank.send(&log);
    let _workers = [bank.worker(), bank.worker()];
    bank.settled().await;
    let ended = ended(&read_all(&bank.cluster, &format!("{}.outcomes", bank.topic)));
    for (command, expected) in log.iter().zip(&expected) {
        assert_eq!(ended[&command.command_id()].ending, *expected);
    }
    let rows = bank.database.rows("select shift, doctor from on_call order by shift collate \"C\", doctor").await;
    let left = on_call.iter().flat_map(|(shift, there)| there.iter().map(move |doctor| (shift.as_str(), *doctor)));
    let left: Vec<_> = left.map(|(shift, doctor)| json!({ "shift": shift, "doctor": doctor })).collect();
    assert_eq!(rows, left);
    assert!(expected.contains(&"last-on-call") && on_call.values().all(|there| !there.is_empty()));
}

/// A bank of doctors, all on call for all shifts, one pair for each shift: the first of the pair on
/// partition 0, the second on partition 1.
async fn doctors_on_call(file: &str) -> (Bank, Vec<Record>, Vec<Record>) {
    let mut bank = Bank::in_sql("oncall", file, "doctor", 2).await;
    bank.options = bank.options.clone().setting("[database]\nlock_timeout = '9s'");
    bank.options.environment.push(("RUST_LOG".into(), "info,solewriter::writer=debug".into()));
    let sides = [0, 1].map(|partition| keys_on(partition, 2, "doctor", 10));
    let command = |command_type: &str, side: usize, shift: usize| {
        let doctor = &sides[side][shift % sides[side].len()];
        Record::command(command_type, doctor, &json!({ "shift": format!("shift-{shift}") }))
    };
    let all = |command_type: &str, side| (0..SHIFTS).map(|n| command(command_type, side, n)).collect::<Vec<_>>();
    bank.send(&all("doctor.join", 0));
    bank.send(&all("doctor.join", 1));
    let (first, second) = (all("doctor.leave", 0), all("doctor.leave", 1));
    (bank, first, second)
}

/// Both doctors of every shift leave, in two batches that have both run before either is committed:
/// a lock on what a settlement writes last holds them there.
async fn leave_at_once(bank: &Bank, leaving: &[Record]) {
    bank.settled().await;
    let mut holder = bank.database.pool.acquire().await.expect("a connection");
    let mut held = holder.begin().await.expect("a transaction");
    sqlx::query("lock table batches in share row exclusive mode").execute(&mut *held).await.expect("a lock");
    bank.send(leaving);
    let waiting = "pg_locks l join pg_stat_activity a on a.pid = l.pid
                    where l.relation = 'batches'::regclass and not l.granted and a.query like '%settle_batch%'";
    wait_until("both settlements to wait", PATIENCE, async || bank.database.count(waiting).await == 2).await;
    held.rollback().await.expect("let them go");
    bank.settled().await;
}

/// Two partitions, two writers, each of which reads what the other writes. The database lets only
/// one of them commit; the other decides anew.
#[tokio::test]
async fn keyed_by_the_doctor_serializable_keeps_the_last_one() {
    let _turn = support::heavy();
    let (mut bank, first, second) = doctors_on_call("serializable.toml").await;
    // more transactions that meet
    bank.options = bank.options.clone().setting("[worker]\nbatch_commands_max = 10");
    let worker = bank.worker();
    leave_at_once(&bank, &[first.clone(), second.clone()].concat()).await;

    let outcomes = read_all(&bank.cluster, &format!("{}.outcomes", bank.topic));
    let ended = ended(&outcomes);
    for (shift, (one, other)) in first.iter().zip(&second).enumerate() {
        let mut endings = [one, other].map(|record| ended[&record.command_id()].ending.as_str());
        endings.sort_unstable();
        assert_eq!(endings, ["applied", "last-on-call"], "shift {shift}");
    }
    let shifts = i64::try_from(SHIFTS).expect("a count");
    assert_eq!(bank.database.number("select count(distinct shift) from on_call").await, Some(shifts));
    assert_eq!(bank.database.count("on_call").await, shifts);
    assert!(worker.output().contains("could not serialize access"), "no retry: {}", worker.output());
}

/// The same without `isolation`: each command is right by itself, and nobody is left.
#[tokio::test]
async fn the_counterexample_leaves_every_shift_empty() {
    let _turn = support::heavy();
    let (bank, first, second) = doctors_on_call("counterexample.toml").await;
    let _worker = bank.worker();
    // one command each, so that the first batch of either is all that there is
    leave_at_once(&bank, &[first[0].clone(), second[0].clone()]).await;
    assert_eq!(bank.database.count("on_call where shift = 'shift-0'").await, 0, "both doctors were let go");
    assert_eq!(bank.database.count("on_call where shift = 'shift-1'").await, 2);
}
