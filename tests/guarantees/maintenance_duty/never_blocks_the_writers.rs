//! A measurement: how long a batch waits on the duty while it drops 10 days with a million rows each,
//! deletes 100,000 batches, raises the horizon and makes days. It runs for three minutes, and means
//! something on a machine that does nothing else:
//!
//! ```text
//! cargo test --release --test guarantees -- --ignored --nocapture no_batch_waits_100_ms_on_the_duty
//! ```

use std::fs;
use std::time::Duration;

use solewriter::local::postgres::{Options, Postgres};

use crate::support;
use crate::support::bank::{Bank, Stream};
use crate::support::kafka;
use crate::support::patience::wait_until;
use crate::support::postgres::Database;
use crate::support::worker::{Metrics, Worker};

const PARTITIONS: i32 = 4;
/// Days before today: beyond the window of seven.
const DAYS: std::ops::RangeInclusive<i32> = 8..=17;
const DAY_ROWS: i32 = 1_000_000;
const BATCHES: i64 = 100_000;
/// How long each half is measured.
const MEASURED: Duration = Duration::from_secs(40);
/// Connections, plans and caches are made first.
const WARM_UP: Duration = Duration::from_secs(5);
/// For all days to be dropped and all batches to be deleted.
const PASSES_TIMEOUT: Duration = Duration::from_secs(300);
/// What a batch may wait.
const WAIT_MAX_MS: f64 = 100.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: three minutes on a machine that does nothing else"]
async fn no_batch_waits_100_ms_on_the_duty() {
    let _turn = support::heavy();
    let settings = [
        ("shared_buffers", "1GB"),
        ("max_wal_size", "16GB"),
        // the server tells each wait for a lock that takes longer than this
        ("deadlock_timeout", "2ms"),
        ("log_lock_waits", "on"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let postgres = Postgres::start(Options { durable: true, settings, ..Options::default() }).expect("start Postgres");
    let database = Database::fresh_in(&postgres.url(), "blocks").await;
    let bank = Bank::open_on(kafka::shared(), database, "blocks", PARTITIONS).await;

    let idle = Half { bank: &bank, postgres: &postgres, interval: "1d" };
    let mut worker = idle.worker();
    prefill(&bank).await;
    let without = idle.measure(&worker, async || ()).await;
    assert!(worker.sigterm_and_wait().success());

    bank.database.execute(BEHIND).await;
    let busy = Half { interval: "500ms", ..idle };
    let worker = busy.worker();
    let with = busy.measure(&worker, async || make_days(&bank).await).await;
    wait_until("all that is behind to go", PASSES_TIMEOUT, async || left(&bank).await == (0, 0)).await;

    println!("{:>24} {:>12} {:>12}", "", "no passes", "passes");
    without.beside(&with);
    assert!(with.passes > 10.0, "{} passes say nothing", with.passes);
    assert!(with.longest_wait_ms < WAIT_MAX_MS, "a batch has waited {} ms for a lock", with.longest_wait_ms);
}

/// The horizon is behind all of it, and days ahead are missing: the next duty has something to do.
const BEHIND: &str = "
    update horizon set at = now() - interval '17 days 12 hours', floor_id = uuid_floor(now() - interval '17 days 12 hours'),
           dropping_below = null, drop_after = null;
    do $$ begin
        for n in 1..2 loop
            execute 'drop table processed_' || to_char((now() + n * interval '1 day') at time zone 'UTC', 'YYYYMMDD');
        end loop;
    end $$";

/// Ten million rows, straight into their days, and the batches that would have settled them.
async fn prefill(bank: &Bank) {
    for day in DAYS {
        bank.database
            .execute(&format!(
                "select make_day_v1(now() - interval '{day} days');
                 do $do$ begin execute format($$
                     insert into %I (\"offset\", version, fencing_token, record_time, partition, type_id, encoding,
                                     applied, command_id, fingerprint, entity_id, reply)
                     select n, 1, 1, now(), mod(n, {PARTITIONS}), 1, 1, true,
                            (lpad(to_hex((extract(epoch from date_trunc('day', now() at time zone 'UTC')
                                                  - interval '{day} days') * 1000)::bigint + n * 86400000::bigint / {DAY_ROWS}), 12, '0')
                             || '7000' || '8' || lpad(to_hex(n), 15, '0'))::uuid,
                            gen_random_uuid(), 'acct-' || n, '{{\"balance\":100}}'
                       from generate_series(0, {DAY_ROWS} - 1) as n $$,
                     'processed_' || to_char((now() - interval '{day} days') at time zone 'UTC', 'YYYYMMDD'));
                 end $do$"
            ))
            .await;
    }
    let topic = &bank.topic;
    bank.database
        .execute(&format!(
            "insert into batches (topic, partition, batch_seq, first_offset, next_offset, fencing_token, settled_at,
                                  command_ids, repeats, dead_letter_ids, dead_after)
             select '{topic}', n % {PARTITIONS}, n - {BATCHES}, 0, 0, 1,
                    now() - interval '17 days' + n * (interval '9 days' / {BATCHES}),
                    array_fill(gen_random_uuid(), array[200]), '{{}}', '{{}}', '{{}}'
               from generate_series(0, {BATCHES} - 1) as n"
        ))
        .await;
    // so that neither half has it to do
    bank.database.execute("vacuum analyze").await;
    bank.database.execute("checkpoint").await;
}

/// Days and batches that are still there.
async fn left(bank: &Bank) -> (i64, i64) {
    let days = "pg_inherits i join pg_class c on c.oid = i.inhrelid
                 where inhparent = 'processed_timed'::regclass and c.relname < 'processed_' ||
                       to_char((now() - interval '7 days') at time zone 'UTC', 'YYYYMMDD')";
    let batches = "batches where settled_at < now() - interval '7 days'";
    (bank.database.count(days).await, bank.database.count(batches).await)
}

/// One a second, as the duty makes them: it has made its own two at once.
async fn make_days(bank: &Bank) {
    for day in 3..30 {
        bank.database.execute(&format!("select make_day_v1(now() + interval '{day} days')")).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// A worker, and what is measured of it.
#[derive(Clone, Copy)]
struct Half<'a> {
    bank: &'a Bank,
    postgres: &'a Postgres,
    interval: &'a str,
}

impl Half<'_> {
    fn worker(&self) -> Worker {
        let interval = format!("[worker]\nmaintenance_interval = \"{}\"", self.interval);
        let mut worker = Worker::start(&self.bank.options.clone().setting(&interval));
        worker.wait_ready();
        worker
    }

    async fn measure(&self, worker: &Worker, meanwhile: impl AsyncFnOnce()) -> Measured {
        let streams = [Stream::start(self.bank, 1), Stream::start(self.bank, 2), Stream::start(self.bank, 3)];
        tokio::time::sleep(WARM_UP).await;
        let (log, before) = (self.log().len(), worker.metrics());
        tokio::join!(tokio::time::sleep(MEASURED), meanwhile());
        let (after, log) = (worker.metrics(), self.log().split_off(log));
        streams.into_iter().for_each(Stream::end);
        self.bank.settled().await;
        Measured::between(&before, &after, &log)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.postgres.log_file()).expect("the server's log")
    }
}

/// What one half has shown.
struct Measured {
    commands_per_second: f64,
    commits: f64,
    /// Commits that took longer than this many seconds, by the histogram's bounds.
    longer_than: Vec<(&'static str, f64)>,
    /// Batches that waited for a lock for more than 2 ms.
    waits: usize,
    longest_wait_ms: f64,
    passes: f64,
}

impl Measured {
    fn between(before: &Metrics, after: &Metrics, log: &str) -> Self {
        let grown = |name: &str, labels: &[(&str, &str)]| after.sum(name, labels) - before.sum(name, labels);
        let commits = grown("solewriter_commit_seconds_count", &[]);
        let within = |bound| grown("solewriter_commit_seconds_bucket", &[("le", bound)]);
        let waits: Vec<f64> = log.lines().filter_map(writers_wait_ms).collect();
        Self {
            commands_per_second: grown("solewriter_commands_total", &[]) / MEASURED.as_secs_f64(),
            commits,
            longer_than: ["0.02", "0.05", "0.1", "0.2"].map(|bound| (bound, commits - within(bound))).to_vec(),
            waits: waits.len(),
            longest_wait_ms: waits.iter().copied().fold(0.0, f64::max),
            passes: grown("solewriter_maintenance_passes_total", &[]),
        }
    }

    fn beside(&self, other: &Self) {
        let line = |name: &str, a: f64, b: f64| println!("{name:>24} {a:>12.1} {b:>12.1}");
        line("commands/s", self.commands_per_second, other.commands_per_second);
        line("passes", self.passes, other.passes);
        line("commits", self.commits, other.commits);
        for ((bound, a), (_, b)) in self.longer_than.iter().zip(&other.longer_than) {
            line(&format!("longer than {bound} s"), *a, *b);
        }
        line("waits for locks > 2 ms", self.waits as f64, other.waits as f64);
        line("longest of them, ms", self.longest_wait_ms, other.longest_wait_ms);
    }
}

/// Of `process 17 acquired RowExclusiveLock on relation 16480 of database 5 after 12.345 ms`. The
/// duty's own waits are for stronger locks.
fn writers_wait_ms(line: &str) -> Option<f64> {
    let (_, acquired) = line.split_once(" acquired ")?;
    if acquired.starts_with("AccessExclusiveLock") || acquired.starts_with("ShareUpdateExclusiveLock") {
        return None;
    }
    acquired.rsplit_once(" after ")?.1.strip_suffix(" ms")?.parse().ok()
}
