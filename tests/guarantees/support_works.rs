//! Promises about the test support itself: a tool that does not break what it claims to break
//! proves nothing.

use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde_json::json;
use solewriter::local::broker::Embedded;
use solewriter::local::kafka as private;
use solewriter::local::postgres;
use solewriter::local::postgres::{Options, Postgres};
use sqlx::{Connection, PgConnection, PgPool};

use crate::support;
use crate::support::kafka::{Broker, BrokerOptions, Cluster};
use crate::support::patience::PATIENCE;
use crate::support::postgres::Database;
use crate::support::producer::{Partitioner, Producer, Record};
use crate::support::proxy::{Fault, Proxy};
use crate::support::scratch::unique;
use crate::support::{consumer, kafka, topics};

fn deposits(count: usize) -> Vec<Record> {
    let deposit = |n| Record::command("account.deposit", &format!("acct-{n}"), &json!({ "amount": n }));
    (0..count).map(deposit).collect()
}

#[tokio::test]
async fn what_is_sent_to_the_broker_is_read_back_whole() {
    let cluster = kafka::shared();
    let topic = topics::fresh(&cluster, "round-trip", 3).await;
    let sent = deposits(50);
    let stored = Producer::new(&cluster).send(&topic, &sent);
    let read = consumer::read_all(&cluster, &topic);
    assert_eq!(read.len(), sent.len());
    for (record, stored) in sent.iter().zip(stored) {
        let same = |read: &&consumer::Read| read.partition == stored.partition && read.offset == stored.offset;
        let found = read.iter().find(same).expect("each record is where its delivery report says");
        assert_eq!((&found.key, &found.value, &found.headers), (&record.key, &record.value, &record.headers));
    }
}

#[tokio::test]
async fn producers_with_other_partitioners_send_some_keys_elsewhere() {
    let cluster = kafka::shared();
    let topic = topics::fresh(&cluster, "partitioners", 12).await;
    let sent = deposits(20);
    let java = Producer::new(&cluster).send(&topic, &sent);
    let librdkafka = Producer::with_partitioner(&cluster, Partitioner::Crc32).send(&topic, &sent);
    assert!(java.iter().zip(&librdkafka).any(|(one, other)| one.partition != other.partition));
}

#[tokio::test]
async fn records_can_be_deleted_and_partitions_added() {
    let cluster = kafka::shared();
    let topic = topics::fresh(&cluster, "admin", 1).await;
    Producer::new(&cluster).send(&topic, &deposits(10));
    topics::delete_records(&cluster, &topic, 0, 4).await;
    assert_eq!(topics::watermarks(&cluster, &topic, 0), (4, 10));
    topics::add_partitions(&cluster, &topic, 2).await;
    assert_eq!(topics::partition_count(&cluster, &topic), 2);
    topics::delete(&cluster, &topic).await;
    assert_eq!(topics::partition_count(&cluster, &topic), 0);
}

#[tokio::test]
async fn a_broker_that_was_killed_comes_back_with_its_records() {
    let _turn = support::heavy();
    let mut broker = Broker::start(BrokerOptions { secure: true, ..BrokerOptions::default() });
    let topic = topics::fresh(&broker.cluster(), "survives", 1).await;
    Producer::new(&broker.cluster()).send(&topic, &deposits(10));
    broker.kill();
    broker.start_again();
    // Through the encrypted listener: its certificate and user outlive the crash too.
    assert_eq!(consumer::read_all(&broker.secure_cluster(), &topic).len(), 10);
    broker.stop();
}

#[tokio::test]
async fn a_broker_for_a_benchmark_takes_records_and_leaves_nothing_behind() {
    let _turn = support::heavy();
    let broker = private::Kafka::start(private::Options::for_a_benchmark()).expect("start Kafka");
    let cluster = Cluster::plain(broker.bootstrap_servers());
    let topic = topics::fresh(&cluster, "benchmark", 1).await;
    Producer::new(&cluster).send(&topic, &deposits(10));
    assert_eq!(consumer::read_all(&cluster, &topic).len(), 10);
    let directory = broker.log_file().parent().expect("a directory").to_owned();
    let process = Pid::from_raw(broker.id().cast_signed()).expect("a process id");
    assert!(directory.exists() && test_kill_process(process).is_ok());
    drop(broker);
    assert!(!directory.exists(), "{directory:?}");
    assert_eq!(test_kill_process(process), Err(Errno::SRCH));
}

#[test]
fn a_broker_that_cannot_start_says_why() {
    let settings = vec![("log.segment.bytes".to_owned(), "many".to_owned())];
    let failed = private::Kafka::start(private::Options { settings, ..Default::default() });
    let why = "Invalid value many for configuration log.segment.bytes";
    assert!(matches!(&failed, Err(private::Error::Failed { reason, .. }) if reason.contains(why)), "{failed:?}");
}

#[test]
fn what_needs_a_running_broker_is_refused_while_it_is_stopped() {
    let _turn = support::heavy();
    let mut broker = private::Kafka::start(private::Options::default()).expect("start Kafka");
    broker.stop().expect("stop Kafka");
    let frozen = broker.freeze();
    assert!(matches!(frozen, Err(private::Error::Stopped)), "{frozen:?}");
}

#[test]
fn the_embedded_broker_takes_and_gives_records() {
    let broker = Embedded::start(1).expect("start the embedded broker");
    broker.create_topic("commands", 4).expect("make a topic");
    let cluster = Cluster::plain(broker.bootstrap_servers());
    Producer::new(&cluster).send("commands", &deposits(20));
    assert_eq!(consumer::read_all(&cluster, "commands").len(), 20);
}

#[tokio::test]
async fn what_is_committed_survives_a_crash_of_postgres() {
    let _turn = support::heavy();
    let options = Options { durable: true, ..Options::default() };
    let mut postgres = Postgres::start(options).expect("start Postgres");
    let database = Database::fresh_in(&postgres.url(), "restart").await;
    database.execute("create table kept (n int); insert into kept values (1), (2)").await;
    postgres.stop_immediate().expect("stop Postgres");
    // One connection: a pool would go on trying.
    assert!(PgConnection::connect(&postgres.url()).await.is_err());
    postgres.start_again().expect("start Postgres again");
    let again = Database::fresh_in(&postgres.url(), "restart").await;
    assert_eq!(again.count("kept").await, 2);
}

#[tokio::test]
async fn a_data_directory_is_kept_and_belongs_to_one_postgres_at_a_time() {
    let directory = std::env::temp_dir().join(unique("solewriter-kept"));
    let options = Options { data_dir: Some(directory.clone()), ..Options::default() };
    let first = Postgres::start(options.clone()).expect("start Postgres");
    let database = Database::fresh_in(&first.url(), "kept").await;
    database.execute("create table kept as select 1 as n").await;
    let second = Postgres::start(options.clone());
    assert!(matches!(second, Err(postgres::Error::InUse { .. })), "{second:?}");
    drop(first);
    let again = Postgres::start(options).expect("start Postgres on the same data");
    let database = Database::fresh_in(&again.url(), "kept").await;
    assert_eq!(database.count("kept").await, 1);
    drop(again);
    std::fs::remove_dir_all(&directory).expect("remove what was kept");
}

#[tokio::test]
async fn a_lost_request_never_reaches_postgres_and_a_lost_answer_does() {
    let direct = Database::fresh("proxy").await;
    let table = format!("public.{}", direct.schema);
    direct.execute(&format!("create table {table} (n int)")).await;
    let proxy = Proxy::in_front_of(&direct.url);
    let proxied = Database::fresh_in(&proxy.url(&direct.url), "proxy").await;
    let insert = format!("insert into {table} values (1) returning n::bigint");
    let run = async || {
        let query = sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(insert.clone()));
        query.fetch_one(&proxied.pool).await
    };
    run().await.expect("an insert without a fault");

    proxy.arm("insert into", Fault::RequestLost);
    run().await.expect_err("the connection breaks");
    proxy.wait_fired(1, PATIENCE);
    assert_eq!(direct.count(&table).await, 1);

    proxy.arm("insert into", Fault::AnswerLost);
    run().await.expect_err("the connection breaks");
    proxy.wait_fired(2, PATIENCE);
    assert_eq!(direct.count(&table).await, 2);
    direct.execute(&format!("drop table {table}")).await;
}

#[tokio::test]
async fn a_held_proxy_is_silent_until_it_is_released() {
    let direct = Database::fresh("proxy").await;
    let proxy = Proxy::in_front_of(&direct.url);
    let proxied = Database::fresh_in(&proxy.url(&direct.url), "proxy").await;
    proxy.arm("select 42", Fault::Held);
    let mut answer = std::pin::pin!(proxied.number("select 42::bigint"));
    let early = tokio::time::timeout(Duration::from_millis(200), answer.as_mut()).await;
    assert!(early.is_err(), "held, and yet answered");
    proxy.release();
    assert_eq!(answer.await, Some(42));
}

#[tokio::test]
async fn a_proxy_that_is_down_refuses_until_it_is_up() {
    let direct = Database::fresh("proxy").await;
    let proxy = Proxy::in_front_of(&direct.url);
    let url = proxy.url(&direct.url);
    let connection = PgPool::connect(&url).await.expect("connect");
    proxy.down();
    assert!(PgConnection::connect(&url).await.is_err());
    proxy.up();
    sqlx::query("select 1").execute(&connection).await.expect("the pool connects again");
}
