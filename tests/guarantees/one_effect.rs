//! P2, one effect: a command id has at most one effect and one final outcome, for ever; a repeat
//! gets the stored outcome; an id too old to be remembered is refused.

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::support;
use crate::support::bank::Bank;
use crate::support::commands::{
    DAY_MS, assert_identical, deposit, endings, now_ms, of_command, open, v4_beside, v7_at, withdraw,
};
use crate::support::consumer;
use crate::support::consumer::Read;
use crate::support::patience::{PATIENCE, wait_until};
use crate::support::producer::{Partitioner, Producer, Record};
use crate::support::proxy::{Fault, Proxy};

const DROPPED_DAYS: &str =
    "to_regclass('processed_' || to_char((now() - interval '3 days') at time zone 'UTC', 'YYYYMMDD'))";

impl Bank {
    fn outcomes(&self) -> Vec<Read> {
        consumer::read_all(&self.cluster, &format!("{}.outcomes", self.topic))
    }

    fn events(&self) -> Vec<Read> {
        consumer::read_all(&self.cluster, &format!("{}.events", self.topic))
    }

    /// Sends, and waits until all of it is settled and published.
    async fn deliver(&self, records: &[Record]) {
        self.send(records);
        self.settled().await;
    }

    /// The codes of the dead letters, in order.
    async fn dead_codes(&self) -> Vec<String> {
        let rows = self.database.rows("select code from dead_letters order by partition, \"offset\"").await;
        rows.iter().map(|row| row["code"].as_str().expect("a code").to_owned()).collect()
    }

    async fn balance(&self, key: &str) -> Option<i64> {
        let sql = format!("select (state->>'balance')::bigint from entities where entity_id = '{key}'");
        self.database.number(&sql).await
    }

    /// What the maintenance duty does when it raises the horizon, only further.
    async fn raise_horizon(&self, days_ago: i32) {
        let raise = format!(
            "update horizon set at = now() - interval '{days_ago} days',
                    floor_id = uuid_floor(now() - interval '{days_ago} days')"
        );
        self.database.execute(&raise).await;
    }

    /// One pass of the maintenance duty, from its beginning to its end. It passes when its
    /// partition is claimed, which an operator's change brings about; it ends by deleting old
    /// batches, so one that is old already tells when.
    async fn pass(&self) {
        let topic = &self.topic;
        self.database
            .execute(&format!(
                "insert into batches (topic, partition, batch_seq, first_offset, next_offset, fencing_token,
                                      settled_at, command_ids, repeats, dead_letter_ids, dead_after)
                 values ('{topic}', 0, -1, 0, 0, 0, '-infinity', '{{}}', '{{}}', '{{}}', '{{}}');
                 update partitions set fencing_token = fencing_token + 1 where topic = '{topic}' and partition = 0"
            ))
            .await;
        wait_until("the maintenance duty", PATIENCE, async || {
            self.database.count("batches where batch_seq = -1").await == 0
        })
        .await;
    }

    /// Drops what lies below the horizon, by as many passes as it takes: another test's
    /// transactions may be in the way.
    async fn prune(&self) {
        wait_until("the day to be dropped", PATIENCE, async || {
            self.pass().await;
            self.database.count(&format!("(select) as one where {DROPPED_DAYS} is null")).await == 1
        })
        .await;
    }
}

/// Twenty accounts opened, each command sent twice in a row, and a rejection likewise; then all
/// again, to the same worker and to the next one, in every form that means the same.
#[tokio::test]
async fn a_repeat_gets_the_stored_outcome_again_byte_for_byte() {
    let _turn = support::heavy();
    let bank = Bank::open("repeats", 3).await;
    let keys: Vec<String> = (0..20).map(|n| format!("acct-{n}")).collect();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let opens = keys.iter().map(|key| open(key, 5).header("traceparent", trace));
    let commands: Vec<Record> = opens.chain(keys.iter().map(|key| withdraw(key, 6))).collect();
    let twice: Vec<Record> = commands.iter().flat_map(|command| [command.clone(), command.clone()]).collect();
    // queued up before the worker starts, so that copies share a batch
    bank.send(&twice);
    let mut worker = bank.worker();
    bank.settled().await;
    assert!(
        bank.database
            .count("batches where cardinality(repeats) > 0 and cardinality(command_ids) > cardinality(repeats)")
            .await
            > 0
    );
    bank.deliver(&commands).await;
    assert!(worker.sigterm_and_wait().success());

    let _worker = bank.worker();
    bank.deliver(&commands).await;
    let structured: Vec<Record> = commands.iter().map(Record::structured).collect();
    bank.deliver(&structured).await;
    let upper = commands.iter().map(|c| c.clone().header("ce_id", c.command_id().to_string().to_uppercase()));
    bank.deliver(&upper.collect::<Vec<_>>()).await;

    let (outcomes, events) = (bank.outcomes(), bank.events());
    for command in &commands {
        let copies = of_command(&outcomes, command.command_id());
        assert_eq!(copies.len(), 6, "one for each delivery");
        assert_identical(&copies);
    }
    assert_eq!(outcomes.len(), 6 * commands.len());
    assert_eq!(events.len(), keys.len(), "an event for each effect");
    assert_eq!(bank.database.count("processed_commands where outcome = 'applied' and version = 1").await, 20);
    assert_eq!(bank.database.count("processed_commands where code = 'insufficient-funds' and version = 1").await, 20);
    assert_eq!(bank.database.count("entities where version = 1 and state = '{\"balance\": 5}'").await, 20);
    assert_eq!(bank.database.count("dead_letters").await, 0);
}

/// An id used for anything else, whatever else is wrong with it: in the same batch, later, and by a
/// worker that has never heard of it.
#[tokio::test]
async fn an_id_belongs_to_one_command() {
    let _turn = support::heavy();
    let bank = Bank::open("reuse", 3).await;
    let first = open("acct-a", 5);
    let others = [
        open("acct-a", 6).id(first.command_id()),
        deposit("acct-a", 5).id(first.command_id()),
        open("acct-b", 5).id(first.command_id()),
        open("acct-c", 5).id(first.command_id()),
        open("acct-a", 5).id(first.command_id()).value("no JSON"),
        Record { value: None, ..first.clone() },
    ];
    bank.send(std::slice::from_ref(&first));
    // of this partition, so that they follow the first in its batch
    bank.send(&[others[0].clone(), others[1].clone(), others[4].clone(), others[5].clone()]);
    let mut worker = bank.worker();
    bank.settled().await;
    assert_eq!(bank.dead_codes().await, ["id-reuse"; 4]);
    bank.deliver(&others).await;
    assert!(worker.sigterm_and_wait().success());

    // each alone, so that nothing but its own letter makes the worker look
    for other in &others[3..] {
        let mut worker = bank.worker();
        bank.deliver(std::slice::from_ref(other)).await;
        assert!(worker.sigterm_and_wait().success());
    }
    assert_eq!(bank.dead_codes().await, ["id-reuse"; 13]);
    assert_eq!(bank.outcomes().len(), 1, "a reused id publishes nothing");
    assert_eq!(bank.balance("acct-a").await, Some(5));
    assert_eq!(bank.database.count("entities").await, 1);
}

/// One id for two accounts on two partitions, at the same moment, many times over: the database's
/// unique key decides, and the loser finds the winner.
#[tokio::test]
async fn of_two_partitions_that_settle_an_id_at_once_one_wins() {
    let _turn = support::heavy();
    let bank = Bank::open("race", 2).await;
    let ids: Vec<Uuid> = (0..200).map(|_| Uuid::now_v7()).collect();
    let on = |partition: i32| {
        let keys = (0..).map(|n| format!("acct-{n}"));
        keys.filter(move |key| partitions_of(key) == partition).take(200)
    };
    let side = |partition| on(partition).zip(&ids).map(|(key, id)| open(&key, 1).id(*id)).collect::<Vec<_>>();
    bank.send(&side(0));
    bank.send(&side(1));
    let _worker = bank.worker();
    bank.settled().await;
    assert_eq!(bank.database.count("processed_commands").await, 200);
    assert_eq!(bank.database.count("entities").await, 200);
    assert_eq!(bank.dead_codes().await, vec!["id-reuse"; 200]);
    assert_eq!(bank.outcomes().len(), 200);
}

fn partitions_of(key: &str) -> i32 {
    let hash = murmur2::murmur2(key.as_bytes(), murmur2::KAFKA_SEED) & 0x7fff_ffff;
    i32::try_from(hash % 2).expect("0 or 1")
}

/// A dead delivery settles nothing: the next copy of its id counts, also in the same batch.
#[tokio::test]
async fn a_repeat_of_a_dead_delivery_is_decided_anew() {
    let _turn = support::heavy();
    let bank = Bank::open("anew", 1).await;
    let good = open("acct-a", 5);
    let malformed = good.clone().value(r#"{"initial":"5"}"#);
    bank.send(&[malformed.clone(), malformed.clone(), good.clone(), good.clone(), malformed.clone()]);
    let _worker = bank.worker();
    bank.settled().await;
    let outcomes = bank.outcomes();
    let id = good.command_id();
    assert_eq!(endings(&outcomes, id), ["malformed-payload", "malformed-payload", "applied", "applied"]);
    assert_identical(&of_command(&outcomes, id)[2..]);
    assert_eq!(bank.dead_codes().await, ["malformed-payload", "malformed-payload", "id-reuse"]);
    assert_eq!(bank.balance("acct-a").await, Some(5));
}

/// Three days old when they are settled; then the horizon passes them, and their day is dropped.
#[tokio::test]
async fn below_the_horizon_a_repeat_is_answered_or_refused_but_never_run() {
    let _turn = support::heavy();
    let bank = Bank::open("expired", 1).await;
    let then = now_ms() - 3 * DAY_MS;
    let (timed, late) = (v7_at(then), v7_at(then));
    let untimed = v4_beside(timed);
    let (old, random) = (deposit("acct-a", 1).id(timed), deposit("acct-a", 10).id(untimed));
    let mut worker = bank.worker();
    bank.deliver(&[open("acct-a", 100), old.clone(), random.clone()]).await;
    assert_eq!(bank.balance("acct-a").await, Some(111));

    bank.raise_horizon(1).await;
    assert!(worker.sigterm_and_wait().success());
    let _worker = bank.worker();
    // remembered as long as its day is there; what is not found is refused
    bank.deliver(&[old.clone(), deposit("acct-a", 1000).id(late)]).await;
    assert_eq!(endings(&bank.outcomes(), timed), ["applied", "applied"]);
    bank.prune().await;
    bank.deliver(&[old.clone(), random.clone(), old.clone().value("no JSON")]).await;

    let outcomes = bank.outcomes();
    assert_eq!(endings(&outcomes, timed), ["applied", "applied", "expired", "expired"]);
    assert_eq!(endings(&outcomes, late), ["expired"]);
    assert_eq!(endings(&outcomes, untimed), ["applied", "applied"], "an id without a time is kept for ever");
    assert_identical(&of_command(&outcomes, untimed));
    assert_eq!(bank.balance("acct-a").await, Some(111));
}

/// A producer whose clock is a year ahead harms itself only.
#[tokio::test]
async fn an_id_from_next_year_is_refused_and_expires_nobody() {
    let _turn = support::heavy();
    let bank = Bank::open("future", 1).await;
    let (next_year, tomorrow) = (v7_at(now_ms() + 365 * DAY_MS), v7_at(now_ms() + DAY_MS - 600_000));
    let just_ahead = v7_at(now_ms() + DAY_MS + 600_000);
    let oldest = v7_at(now_ms() - 7 * DAY_MS + 600_000);
    let worker = bank.worker();
    let records = [
        open("acct-a", 1).id(next_year),
        open("acct-a", 2).id(just_ahead),
        open("acct-a", 3).id(tomorrow),
        deposit("acct-a", 4).id(oldest),
        deposit("acct-a", 5),
    ];
    bank.deliver(&records).await;
    bank.pass().await;
    bank.deliver(&records).await;
    let outcomes = bank.outcomes();
    assert_eq!(endings(&outcomes, next_year), ["id-from-future"; 2]);
    assert_eq!(endings(&outcomes, just_ahead), ["id-from-future"; 2]);
    for id in [tomorrow, oldest, records[4].command_id()] {
        assert_eq!(endings(&outcomes, id), ["applied"; 2]);
    }
    assert_eq!(bank.database.count("horizon where at < now() - interval '7 days' + interval '1 minute'").await, 1);
    let metric = worker.metrics().sum("solewriter_commands_total", &[("outcome", "duplicate")]);
    assert!((metric - 3.0).abs() < f64::EPSILON, "{metric} duplicates counted");
}

/// The world stood still for ten days: horizon and log times are that much older. What was produced
/// before and meanwhile runs; only when the log is settled does the horizon follow, a day at a pass.
#[tokio::test]
async fn ten_days_of_downtime_expire_nothing() {
    let _turn = support::heavy();
    let bank = Bank::open("downtime", 2).await;
    let mut worker = bank.worker();
    bank.deliver(&[open("acct-a", 1), open("acct-b", 1), open("acct-c", 1)]).await;
    let looked = |since: &str| format!("partitions where log_time > now() - interval '{since}'");
    wait_until("a look at each log", PATIENCE, async || bank.database.count(&looked("1 minute")).await == 2).await;
    assert!(worker.sigterm_and_wait().success());
    bank.database
        .execute(
            "update partitions set log_time = log_time - interval '10 days';
                  update horizon set at = at - interval '10 days', floor_id = uuid_floor(at - interval '10 days')",
        )
        .await;
    let horizon = bank.database.number("select extract(epoch from at)::bigint from horizon").await.expect("a horizon");
    let retried = (0..20).map(|n| deposit("acct-a", 1).id(v7_at(now_ms() - (16 * DAY_MS) + n * DAY_MS / 2)));
    bank.send(&retried.collect::<Vec<_>>());

    let _worker = bank.worker();
    bank.settled().await;
    assert_eq!(bank.balance("acct-a").await, Some(21));
    assert_eq!(bank.dead_codes().await, [""; 0]);
    // as far as the log times went on before the worker stopped, and no further
    let held = bank.database.number("select extract(epoch from at)::bigint from horizon").await.expect("a horizon");
    assert!(held - horizon < 60, "from {horizon} to {held}");
    wait_until("a look at each log", PATIENCE, async || bank.database.count(&looked("1 minute")).await == 2).await;
    bank.pass().await;
    let raised = bank.database.number("select extract(epoch from at)::bigint from horizon").await.expect("a horizon");
    assert!(raised > held && raised <= held + DAY_MS / 1000 + 1, "from {held} to {raised}");
    bank.pass().await;
    assert_eq!(
        bank.database.count("horizon where dropping_below < floor_id").await,
        1,
        "a horizon that rises at each pass is seen all the same"
    );
}

/// The transaction takes its number after the raise, but reads before the raise is committed: the
/// worst case of a batch that read the older horizon.
#[tokio::test]
async fn a_day_is_dropped_only_after_every_older_transaction_has_ended() {
    let _turn = support::heavy();
    let bank = Bank::open("older", 1).await;
    let old = open("acct-a", 1).id(v7_at(now_ms() - 3 * DAY_MS));
    let _worker = bank.worker();
    bank.deliver(std::slice::from_ref(&old)).await;

    let url = &bank.database.url;
    let mut raise = PgConnection::connect(url).await.expect("connect");
    let mut older = PgConnection::connect(url).await.expect("connect");
    let schema = &bank.database.schema;
    run(
        &mut raise,
        &format!(
            "begin; set local search_path = {schema};
         update horizon set at = now() - interval '1 day', floor_id = uuid_floor(now() - interval '1 day')"
        ),
    )
    .await;
    run(&mut older, "begin; select pg_current_xact_id()").await;
    run(&mut raise, "commit").await;
    for _ in 0..3 {
        bank.pass().await;
    }
    let seen = "horizon where dropping_below = floor_id";
    assert_eq!(bank.database.count(seen).await, 1, "a later transaction has seen the horizon");
    let dropped = format!("(select) as one where {DROPPED_DAYS} is null");
    assert_eq!(bank.database.count(&dropped).await, 0, "dropped under a transaction that may insert into it");
    run(&mut older, "commit").await;
    bank.prune().await;
}

async fn run(connection: &mut PgConnection, sql: &str) {
    let sql = sqlx::AssertSqlSafe(sql.to_owned());
    sqlx::raw_sql(sql).execute(connection).await.expect("run a statement");
}

/// The call with a repeat's second effect is held up between worker and database. Meanwhile the
/// horizon passes its id, and the day that remembered it is dropped.
#[tokio::test]
async fn a_batch_that_read_the_older_horizon_runs_nothing_below_the_new_one() {
    let _turn = support::heavy();
    let mut bank = Bank::open("held", 1).await;
    let settled = deposit("acct-a", 1).id(v7_at(now_ms() - 3 * DAY_MS));
    let fresh = deposit("acct-a", 10).id(v7_at(now_ms() - 3 * DAY_MS));
    let mut worker = bank.worker();
    bank.deliver(&[open("acct-a", 100), settled.clone()]).await;
    assert!(worker.sigterm_and_wait().success());

    let proxy = Proxy::in_front_of(&bank.database.url);
    bank.options = bank.options.clone().database_url(proxy.url(&bank.database.url));
    let worker = bank.worker();
    proxy.arm("settle_batch_v1", Fault::Held);
    bank.send(&[fresh.clone(), settled.clone()]);
    proxy.wait_fired(1, PATIENCE);
    bank.raise_horizon(1).await;
    let day = bank.database.rows(&format!("select {DROPPED_DAYS}::text as name")).await;
    bank.database.execute(&format!("drop table {}", day[0]["name"].as_str().expect("a day"))).await;
    proxy.release();
    bank.settled().await;

    let outcomes = bank.outcomes();
    assert_eq!(endings(&outcomes, settled.command_id()), ["applied", "expired"]);
    assert_eq!(endings(&outcomes, fresh.command_id()), ["expired"]);
    assert_eq!(bank.balance("acct-a").await, Some(101));
    drop(worker);
}

/// A repeat from a producer that hashes the key elsewhere is dead there; it has its outcome already.
#[tokio::test]
async fn a_repeat_on_another_partition_has_no_second_effect() {
    let _turn = support::heavy();
    let bank = Bank::open("elsewhere", 12).await;
    let opens: Vec<Record> = (0..20).map(|n| open(&format!("acct-{n}"), 1)).collect();
    let _worker = bank.worker();
    let right = bank.producer.send(&bank.topic, &opens);
    let wrong = Producer::with_partitioner(&bank.cluster, Partitioner::Crc32).send(&bank.topic, &opens);
    bank.settled().await;
    let misrouted = right.iter().zip(&wrong).filter(|(right, wrong)| right.partition != wrong.partition).count();
    assert!(misrouted > 0);
    assert_eq!(bank.dead_codes().await, vec!["misrouted"; misrouted]);
    assert_eq!(bank.database.count("entities where version = 1").await, 20);
    let details = bank.database.count("dead_letters where detail like '%crc32%'").await;
    assert_eq!(usize::try_from(details), Ok(misrouted), "each names the producer's partitioner");
    let outcomes = bank.outcomes();
    for (command, (right, wrong)) in opens.iter().zip(right.iter().zip(&wrong)) {
        let mut endings = endings(&outcomes, command.command_id());
        endings.sort_unstable();
        let second = if right.partition == wrong.partition { "applied" } else { "misrouted" };
        assert_eq!(endings, ["applied", second]);
    }
}
