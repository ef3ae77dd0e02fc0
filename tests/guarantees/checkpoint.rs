//! A checkpoint is a consistent cut: each batch is in it as a whole or not at all, writers go on meanwhile, and
//! whatever becomes of its making, it says so itself or is not there.

use serde_json::{Value, json};
use solewriter::handlers::sql::typed::Relation;
use solewriter::postgres::{CheckpointError, CheckpointName, KeptCut, Store};
use sqlx::{AssertSqlSafe, PgPool};

use crate::parked_keys::{letters, note, things};
use crate::support;
use crate::support::bank::{Bank, Stream};
use crate::support::patience::{PATIENCE, wait_until};
use crate::support::postgres::{Database, tables_schema};
use crate::support::scratch::unique;
use crate::support::worker::{Said, Worker};

impl Bank {
    fn checkpoint(&self, arguments: &[&str]) -> Said {
        self.options.run_verb(&[&["checkpoint", "-o", "json"], arguments].concat())
    }

    fn make_checkpoint(&self, name: &str) -> Value {
        let said = self.checkpoint(&["create", name, "--reason", "the test"]);
        assert_eq!(said.code, Some(0), "{said:?}");
        serde_json::from_str(&said.stdout).expect("one JSON document")
    }

    fn checkpoints(&self) -> Vec<Value> {
        let said = self.checkpoint(&["list"]);
        assert_eq!(said.code, Some(0), "{said:?}");
        let mut list: Value = serde_json::from_str(&said.stdout).expect("one JSON document");
        list["checkpoints"].as_array_mut().expect("a list").drain(..).collect()
    }

    /// The state of the only checkpoint.
    fn only_state(&self) -> Option<String> {
        match self.checkpoints().as_slice() {
            [only] => only["state"].as_str().map(str::to_owned),
            _ => None,
        }
    }

    /// The schema of a checkpoint.
    fn kept_in(&self, name: &str) -> String {
        format!("{}_checkpoint_{name}", self.database.schema)
    }

    async fn checkpoint_schemas(&self) -> i64 {
        let prefix = self.kept_in("");
        self.database.count(&format!("pg_namespace where starts_with(nspname::text, '{prefix}')")).await
    }

    async fn actions(&self, action: &str) -> i64 {
        self.database.count(&format!("operator_actions where action = '{action}' and reason = 'the test'")).await
    }
}

/// Entities of the cut whose version is not the number of their commands that were applied below the cut's cursors,
/// and entities of such commands that the cut lacks.
async fn unbalanced(bank: &Bank, name: &str) -> i64 {
    let cut = bank.kept_in(name);
    let counted = format!(
        "(select c.entity_type, c.entity_id, count(*) as applied
            from processed_commands c
            join {cut}.partitions p on (p.topic, p.partition) = (c.topic, c.partition)
           where c.\"offset\" < p.next_offset and c.outcome = 'applied'
             and not exists (select from {cut}.dead_letters d
                              where (d.topic, d.partition, d.\"offset\") = (c.topic, c.partition, c.\"offset\"))
           group by 1, 2) c"
    );
    let differ = "e.version is distinct from c.applied";
    bank.database
        .count(&format!("{cut}.entities e full join {counted} using (entity_type, entity_id) where {differ}"))
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_under_load_is_consistent_and_the_writers_go_on() {
    let _turn = support::heavy();
    let bank = Bank::open("cut", 3).await;
    let _worker = bank.worker();
    let stream = Stream::start(&bank, 7);
    for (name, settled) in [("first", 300), ("second", 900)] {
        bank.settled_beyond(settled).await;
        let made = bank.make_checkpoint(name);
        assert!(made["checkpoint"]["entities"].as_i64().is_some_and(|entities| entities > 0), "{made}");
        let after = bank.settled_count().await;
        bank.settled_beyond(after).await;
    }
    stream.end();
    bank.audit().await;
    for name in ["first", "second"] {
        assert_eq!(unbalanced(&bank, name).await, 0, "{name}");
        let cut = bank.kept_in(name);
        let live = bank.settled_count().await;
        let sum = bank.database.number(&format!("select sum(next_offset)::bigint from {cut}.partitions")).await;
        assert!(sum.is_some_and(|sum| 0 < sum && sum < live), "{sum:?} of {live}");
    }
    let list = bank.checkpoints();
    assert_eq!(list.iter().map(|it| it["name"].clone()).collect::<Vec<_>>(), [json!("first"), json!("second")]);
    for shown in &list {
        assert_eq!((&shown["state"], &shown["reason"]), (&json!("complete"), &json!("the test")), "{shown}");
        assert!(shown["size_bytes"].as_i64().is_some_and(|bytes| bytes > 0), "{shown}");
        assert_eq!(shown["cursors"].as_array().map(Vec::len), Some(3), "{shown}");
    }
    let again = bank.checkpoint(&["create", "first", "--reason", "twice"]);
    assert_eq!(again.code, Some(2), "{again:?}");
    assert!(again.stderr.contains("already"), "{again:?}");

    // a worker, migrate and check live with it
    for verb in ["migrate", "check"] {
        let said = bank.options.run_verb(&[verb]);
        assert_eq!(said.code, Some(0), "{verb}: {said:?}");
    }

    let preview = bank.checkpoint(&["drop", "first", "--dry-run"]);
    assert_eq!((preview.code, bank.checkpoint_schemas().await), (Some(0), 2), "{preview:?}");
    let dropped = bank.checkpoint(&["drop", "first", "--reason", "the test"]);
    assert_eq!((dropped.code, bank.checkpoint_schemas().await), (Some(0), 1), "{dropped:?}");
    assert_eq!((bank.actions("checkpoint-create").await, bank.actions("checkpoint-drop").await), (2, 1));
    let absent = bank.checkpoint(&["drop", "first", "--reason", "again"]);
    assert_eq!(absent.code, Some(2), "{absent:?}");
    let misnamed = bank.checkpoint(&["create", "No-Name", "--reason", "x"]);
    assert_eq!(misnamed.code, Some(2), "{misnamed:?}");

    // without a word it has the time for a name
    let preview = bank.checkpoint(&["create", "--dry-run"]);
    assert_eq!((preview.code, bank.checkpoint_schemas().await), (Some(0), 1), "{preview:?}");
    let unnamed = bank.checkpoint(&["create"]);
    let made: Value = serde_json::from_str(&unnamed.stdout).unwrap_or_else(|error| panic!("{error}: {unnamed:?}"));
    let name = made["name"].as_str().expect("a name");
    assert!(name.len() == 15 && name.starts_with('2') && name.contains('t'), "{made}");
    assert_eq!((&made["checkpoint"]["state"], bank.checkpoint_schemas().await), (&json!("complete"), 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_role_s_checkpoint_is_listed_and_kept_from_others() {
    let _turn = support::heavy();
    let mut bank = Bank::open("cutroles", 1).await;
    let migrated = bank.options.run_verb(&["migrate"]);
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    bank.make_checkpoint("first");
    let schema = &bank.database.schema;
    let role = format!("{schema}_role");
    let grants = format!(
        "create role {role} login; grant usage on schema {schema} to {role};
         grant select on all tables in schema {schema} to {role}"
    );
    bank.database.execute(&grants).await;
    let owner = bank.checkpoints()[0]["owner"].clone();
    let owner = owner.as_str().expect("the owner");

    bank.options = bank.options.clone().database_url(bank.database.url_of(&role));
    let [listed] = bank.checkpoints().try_into().expect("one checkpoint");
    assert_eq!(
        (&listed["name"], &listed["state"], &listed["owner"], &listed["cursors"]),
        (&json!("first"), &json!("forbidden"), &json!(owner), &json!([]))
    );
    assert!(listed["size_bytes"].as_i64().is_some_and(|bytes| bytes > 0), "{listed}");
    let text = bank.options.run_verb(&["checkpoint", "list"]);
    assert!(text.stdout.contains(&format!("of role {owner}")), "{text:?}");
    let dropped = bank.checkpoint(&["drop", "first", "--reason", "the test"]);
    assert_eq!((dropped.code, bank.checkpoint_schemas().await), (Some(1), 1), "{dropped:?}");
    assert!(dropped.stderr.contains(&format!("checkpoint first belongs to role {owner}: ")), "{dropped:?}");
    bank.database.execute(&format!("drop owned by {role}; drop role {role}")).await;
}

/// Begins a checkpoint that cannot go on while the test holds the table of the entities.
async fn held_up(bank: &Bank) -> (Worker, sqlx::Transaction<'static, sqlx::Postgres>) {
    let mut lock = bank.database.pool.begin().await.expect("a transaction");
    sqlx::raw_sql("lock table entities in access exclusive mode").execute(&mut *lock).await.expect("lock a table");
    let creating = ["checkpoint", "create", "held", "--reason", "the test"];
    let creating = Worker::start_verb(&bank.options, &creating);
    wait_until("the checkpoint to be made", PATIENCE, async || bank.only_state().as_deref() == Some("in-the-making"))
        .await;
    (creating, lock)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_leaves_an_unfinished_checkpoint_that_is_shown_and_dropped() {
    let _turn = support::heavy();
    let bank = Bank::open("cutkill", 1).await;
    let (mut creating, lock) = held_up(&bank).await;
    let early = bank.checkpoint(&["drop", "held", "--reason", "too early"]);
    assert_eq!(early.code, Some(1), "{early:?}");
    assert!(early.stderr.contains("being made"), "{early:?}");
    creating.kill9();
    wait_until("the server to notice", PATIENCE, async || bank.only_state().as_deref() == Some("unfinished")).await;
    lock.rollback().await.expect("let go");
    assert_eq!(bank.only_state().as_deref(), Some("unfinished"), "nobody goes on with it");
    assert_eq!(bank.actions("checkpoint-create").await, 0);
    let again = bank.checkpoint(&["create", "held", "--reason", "the test"]);
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.stderr.contains("checkpoint drop held"), "{again:?}");
    let dropped = bank.checkpoint(&["drop", "held", "--reason", "the test"]);
    assert_eq!((dropped.code, bank.checkpoint_schemas().await), (Some(0), 0), "{dropped:?}");
    bank.make_checkpoint("held");
    assert_eq!(bank.only_state().as_deref(), Some("complete"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_stops_it_and_nothing_is_left() {
    let _turn = support::heavy();
    let bank = Bank::open("cutstop", 1).await;
    let (mut creating, lock) = held_up(&bank).await;
    let ended = creating.sigterm_and_wait();
    assert_eq!(ended.code(), Some(1), "{}", creating.output());
    assert!(creating.output().contains("nothing of checkpoint held is left"), "{}", creating.output());
    assert_eq!(bank.checkpoint_schemas().await, 0);
    lock.rollback().await.expect("let go");
    assert_eq!((bank.checkpoint_schemas().await, bank.actions("checkpoint-create").await), (0, 0));
}

/// How many commands were settled; or behind the cut only.
async fn settled(store: &Store, bank: &Bank, behind: Option<&KeptCut>) -> i64 {
    let mut now = store.cut(&[]).await.expect("a snapshot");
    let counts = now.outcome_counts(&[&bank.topic], behind).await.expect("ask the database");
    counts.iter().map(|(.., count)| count).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_and_tables_of_sql_commands_are_kept_and_a_shadow_is_filled_with_them() {
    let _turn = support::heavy();
    let (_files, bank) = things("cutsql", 2).await;
    let _worker = bank.worker();
    let before = [note("a", "good"), note("b", "good"), note("b", "good")];
    let parked = [note("c", "bad"), note("c", "good")];
    bank.send(&before);
    bank.send(&parked);
    bank.settled().await;
    assert_eq!((letters(&bank, "parked").await, letters(&bank, "waiting").await), (1, 1));
    let made = bank.make_checkpoint("mixed");
    assert_eq!((&made["checkpoint"]["entities"], &made["checkpoint"]["letters"]), (&json!(2), &json!(2)), "{made}");

    // what comes behind the cut changes nothing in it
    bank.database.execute("delete from poison").await;
    let redrive = ["dead-letters", "redrive", "--key", "c", "--reason", "cured", "--execute"];
    let said = bank.options.run_verb(&redrive);
    assert_eq!(said.code, Some(0), "{said:?}");
    let after = [note("a", "good")];
    bank.send(&after);
    bank.settled().await;
    assert_eq!(bank.database.count("processed_commands").await, 6);
    assert_eq!(unbalanced(&bank, "mixed").await, 0);
    let name: CheckpointName = "mixed".parse().expect("a name");
    let store = Store::new(&bank.options.config().database, "the test").expect("an address");
    let kept = store.kept_cut(&name).await.expect("the checkpoint");
    assert_eq!(settled(&store, &bank, None).await, 6);
    assert_eq!(settled(&store, &bank, Some(&kept)).await, 3, "two that were parked, and what came afterwards");

    let shadow = Shadow::make(&bank).await;
    store.fill_shadow(&name, &shadow.store).await.expect("fill the shadow");
    let tables = tables_schema(&bank.database.schema);
    assert_eq!(shadow.count("entities where version > 0").await, 2);
    assert_eq!(shadow.count("dead_letters where state in ('parked', 'waiting')").await, 2);
    assert_eq!(shadow.count("parked_keys where waiting = 1").await, 1);
    assert_eq!(shadow.count("horizon").await, 1);
    assert_eq!(shadow.count(&format!("{tables}.notes")).await, 3);
    assert_eq!(shadow.count(&format!("{tables}.poison where word = 'bad'")).await, 1);
    assert_eq!(shadow.count("processed_commands").await, 0);
    let cursors = "select sum(next_offset)::bigint from partitions";
    assert_eq!(shadow.number(cursors).await, 5, "the cut's, not today's");
    let next = "select nextval(pg_get_serial_sequence('dead_letters', 'dead_letter_id'))";
    assert_eq!(shadow.number(next).await, 3, "numbers go on behind those that were copied");
    shadow.drop(&bank.database).await;
}

/// Another database of the server, with the tables of this bank's migration in it.
struct Shadow {
    name: String,
    store: Store,
    pool: PgPool,
    schema: String,
}

impl Shadow {
    async fn make(bank: &Bank) -> Self {
        let name = unique("shadow");
        bank.database.execute(&format!("create database {name}")).await;
        let (address, _) = bank.database.url.rsplit_once('/').expect("a database URL with a database");
        let options = bank.options.clone().database_url(format!("{address}/{name}"));
        let migrated = options.run_verb(&["migrate"]);
        assert_eq!(migrated.code, Some(0), "{migrated:?}");
        let store = Store::new(&options.config().database, "the test").expect("an address");
        let pool = PgPool::connect(&options.database_url).await.expect("connect to the shadow");
        Self { name, store, pool, schema: options.schema }
    }

    async fn number(&self, sql: &str) -> i64 {
        let mut one = self.pool.begin().await.expect("a transaction");
        let path = format!("set local search_path to {}", self.schema);
        sqlx::raw_sql(AssertSqlSafe(path)).execute(&mut *one).await.expect("set the path");
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut *one).await.expect("ask the shadow")
    }

    async fn count(&self, table_and_condition: &str) -> i64 {
        self.number(&format!("select count(*) from {table_and_condition}")).await
    }

    async fn drop(self, database: &Database) {
        self.pool.close().await;
        self.store.close().await;
        database.execute(&format!("drop database {} with (force)", self.name)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_that_was_made_anew_under_its_name_is_noticed() {
    let _turn = support::heavy();
    let bank = Bank::open("cutanew", 1).await;
    let name: CheckpointName = "anew".parse().expect("a name");
    let store = Store::new(&bank.options.config().database, "the test").expect("an address");
    bank.make_checkpoint("anew");
    let kept = store.kept_cut(&name).await.expect("the checkpoint");
    store.check_kept(&name, &kept).await.expect("the same");
    let drop = || bank.checkpoint(&["drop", "anew", "--reason", "the test"]);
    assert_eq!(drop().code, Some(0));
    let gone = store.check_kept(&name, &kept).await;
    assert!(matches!(gone, Err(CheckpointError::Missing(_))), "{gone:?}");
    bank.make_checkpoint("anew");
    let another = store.check_kept(&name, &kept).await;
    assert!(matches!(another, Err(CheckpointError::Changed(_))), "{another:?}");
    assert_eq!(drop().code, Some(0));
}

/// Two rows, in the live database as `live` makes them out of `select`; a table for them in a shadow.
async fn team_of(bank: &Bank, live: &str) -> (Relation, Shadow) {
    let schema = tables_schema(&bank.database.schema);
    let rows = "select n from generate_series(1, 2) as n";
    bank.database.execute(&format!("create schema {schema}; create {live} {schema}.held as {rows}")).await;
    let shadow = Shadow::make(bank).await;
    let made = format!("create schema {schema}; create table {schema}.held as {rows} with no data");
    sqlx::raw_sql(AssertSqlSafe(made)).execute(&shadow.pool).await.expect("a table in the shadow");
    (Relation { schema, name: "held".to_owned() }, shadow)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_empties_a_table_waits_for_the_cut_that_copies_it() {
    let _turn = support::heavy();
    let bank = Bank::open("cutlock", 1).await;
    let (held, shadow) = team_of(&bank, "table").await;
    let store = Store::new(&bank.options.config().database, "the test").expect("an address");
    let mut cut = store.cut(std::slice::from_ref(&held)).await.expect("a snapshot");
    // one transaction: it gives up, and nothing is emptied
    let emptied = format!("set local lock_timeout = '100ms'; truncate {}.held", held.schema);
    let early =
        sqlx::raw_sql(AssertSqlSafe(emptied.clone())).execute(&bank.database.pool).await.expect_err("it must wait");
    assert_eq!(early.as_database_error().and_then(|error| error.code()).as_deref(), Some("55P03"), "{early}");
    // who writes does not wait, and is not in it
    bank.database.execute(&format!("insert into {}.held values (3)", held.schema)).await;
    cut.copy_table(0, &held, &shadow.store).await.expect("copy it").expect("a table");
    assert_eq!(shadow.count("cut_table_0").await, 2);
    cut.end().await.expect("let go");
    bank.database.execute(&emptied).await;
    shadow.drop(&bank.database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_in_for_a_table_and_cannot_be_locked_is_copied_all_the_same() {
    let _turn = support::heavy();
    let bank = Bank::open("cutodd", 1).await;
    let (held, shadow) = team_of(&bank, "materialized view").await;
    let store = Store::new(&bank.options.config().database, "the test").expect("an address");
    let mut cut = store.cut(std::slice::from_ref(&held)).await.expect("a snapshot");
    cut.copy_table(0, &held, &shadow.store).await.expect("copy it").expect("rows");
    assert_eq!(shadow.count("cut_table_0").await, 2);
    cut.end().await.expect("let go");
    shadow.drop(&bank.database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_a_role_must_not_see_are_an_error_and_not_left_out() {
    let _turn = support::heavy();
    let bank = Bank::open("cutrows", 1).await;
    let (held, shadow) = team_of(&bank, "table").await;
    let (schema, tables) = (&bank.database.schema, &held.schema);
    let role = format!("{schema}_role");
    bank.database
        .execute(&format!(
            "create role {role} login; grant usage on schema {schema}, {tables} to {role};
             grant select on all tables in schema {schema}, {tables} to {role};
             alter table {tables}.held enable row level security;
             create policy one_row on {tables}.held using (n = 1)"
        ))
        .await;
    let options = bank.options.clone().database_url(bank.database.url_of(&role));
    let store = Store::new(&options.config().database, "the test").expect("an address");

    let mut cut = store.cut(std::slice::from_ref(&held)).await.expect("a snapshot");
    let copied = cut.copy_table(0, &held, &shadow.store).await.expect_err("a row is hidden");
    assert!(format!("{copied:?}").contains("row-level security"), "{copied:?}");
    drop(cut);
    // what `replay run` begins with
    let filled = store.fill_shadow_from_live(std::slice::from_ref(&held), &[], &shadow.store).await;
    assert!(format!("{filled:?}").contains("row-level security"), "{filled:?}");
    assert_eq!(shadow.count(&format!("{tables}.held")).await, 0, "all of it or nothing");
    store.close().await;
    shadow.drop(&bank.database).await;
    bank.database.execute(&format!("drop owned by {role}; drop role {role}")).await;
}
