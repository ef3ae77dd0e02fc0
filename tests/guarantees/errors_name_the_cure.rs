//! What a stranger meets first: each message says what, where, why, and what to type.

use std::fs;
use std::net::TcpListener;

use serde_json::Value;
use solewriter::local::postgres::{Options, Postgres};

use crate::support;
use crate::support::bank::Bank;
use crate::support::kafka::{Broker, BrokerOptions};
use crate::support::patience::{PATIENCE, wait_until};
use crate::support::postgres::Database;
use crate::support::scratch::{Scratch, free_port};
use crate::support::topics;
use crate::support::worker::{Said, Worker, WorkerOptions};

/// What the verb says in its last line, with the parts that differ from run to run named.
fn told(said: &Said, parts: &[(&str, &str)]) -> (Option<i32>, String) {
    let line = said.stderr.lines().last().unwrap_or_default().to_owned();
    (said.code, parts.iter().fold(line, |line, (part, name)| line.replace(part, name)))
}

/// The check of this name.
fn check(options: &WorkerOptions, name: &str) -> Value {
    let said = options.run_verb(&["check", "-o", "json"]);
    let report: Value = serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    let found = report["checks"].as_array().and_then(|checks| checks.iter().find(|check| check["name"] == name));
    found.unwrap_or_else(|| panic!("no check {name:?} in {report}")).clone()
}

async fn bank(name: &str) -> Bank {
    Bank::open(name, 2).await
}

#[tokio::test]
async fn a_database_that_is_down() {
    let bank = bank("database-down").await;
    let port = free_port().to_string();
    let options = bank.options.clone().database_url(format!("postgres://app@127.0.0.1:{port}/app"));
    let expected = "error: no Postgres answers at 127.0.0.1:PORT: Connection refused (os error 111); start it, or correct database.url";
    assert_eq!(told(&options.run_verb(&["status"]), &[(&port, "PORT")]), (Some(4), expected.to_owned()));
    assert_eq!(check(&options, "database")["cure"], "start it, or correct database.url");
}

#[tokio::test]
async fn a_wrong_password() {
    let bank = bank("password").await;
    let scratch = Scratch::new("password");
    let rules = scratch.path().join("pg_hba.conf");
    fs::write(
        &rules,
        "host all guarded 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\nlocal all all trust\n",
    )
    .expect("write the rules");
    let settings = vec![("hba_file".to_owned(), rules.display().to_string())];
    let postgres = Postgres::start(Options { settings, ..Options::default() }).expect("start Postgres");
    let database = Database::fresh_in(&postgres.url(), "password").await;
    database.execute("create role guarded login password 'right'").await;
    let at = postgres.url().rsplit_once('@').map(|(_, at)| at.to_owned()).expect("user@host");
    let address = at.split('/').next().unwrap_or_default().to_owned();
    let options = bank.options.clone().database_url(format!("postgres://guarded:wrong@{at}"));
    let expected = "error: Postgres at ADDRESS refuses user guarded: password authentication failed for user \"guarded\"; correct user and password in database.url";
    for verb in ["status", "migrate", "run"] {
        let told = told(&options.run_verb(&[verb]), &[(&address, "ADDRESS")]);
        assert_eq!(told, (Some(1), expected.to_owned()), "{verb}");
    }
}

#[tokio::test]
async fn a_database_that_does_not_exist() {
    let bank = bank("no-database").await;
    let (server, _) = bank.options.database_url.rsplit_once('/').expect("a path");
    let address = server.rsplit_once('@').map_or(server, |(_, address)| address).to_owned();
    let (host, port) = address.rsplit_once(':').expect("a port");
    let options = bank.options.clone().database_url(format!("{server}/nowhere"));
    let parts = [(address.as_str(), "ADDRESS"), (host, "HOST"), (port, "PORT")];
    let expected = "error: Postgres at ADDRESS has no database nowhere; type: createdb -h HOST -p PORT nowhere";
    assert_eq!(told(&options.run_verb(&["migrate"]), &parts), (Some(1), expected.to_owned()));
}

#[tokio::test]
async fn a_schema_that_is_missing_or_too_old() {
    let bank = bank("old-schema").await;
    let schema = bank.database.schema.clone();
    bank.database
        .execute("delete from _solewriter_migrations where version = (select max(version) from _solewriter_migrations)")
        .await;
    let (code, line) = told(&bank.options.run_verb(&["run"]), &[(&schema, "SCHEMA")]);
    assert_eq!(code, Some(2));
    assert!(
        line.starts_with("error: schema \"SCHEMA\" is at migration 2") && line.ends_with("; type: solewriter migrate"),
        "{line}"
    );
    let missing = WorkerOptions { schema: "nowhere".into(), ..bank.options.clone() };
    let expected = "error: schema \"nowhere\" has no solewriter tables; type: solewriter migrate";
    assert_eq!(told(&missing.run_verb(&["run"]), &[]), (Some(2), expected.to_owned()));
}

#[tokio::test]
async fn a_schema_that_this_role_has_no_right_to_use() {
    let bank = bank("foreign-schema").await;
    let role = format!("{}_role", bank.database.schema);
    bank.database.execute(&format!("create role {role} login")).await;
    let options = bank.options.clone().database_url(bank.database.url_of(&role));
    let parts = [(role.as_str(), "ROLE"), (bank.database.schema.as_str(), "SCHEMA")];
    let expected = "error: schema \"SCHEMA\" is there, but role \"ROLE\" has no right to use it; its owner types: grant usage on schema \"SCHEMA\" to \"ROLE\"";
    for verb in [&["status"][..], &["run"], &["checkpoint", "list"], &["replay", "verify"]] {
        assert_eq!(told(&options.run_verb(verb), &parts), (Some(2), expected.to_owned()), "{verb:?}");
    }
    assert_eq!(
        check(&options, "schema")["cure"],
        format!("grant usage on schema \"{}\" to \"{role}\"", bank.database.schema)
    );
    bank.database.execute(&format!("drop role {role}")).await;
}

#[tokio::test]
async fn a_broker_that_is_down() {
    let mut bank = bank("broker-down").await;
    bank.cluster.bootstrap_servers = format!("127.0.0.1:{}", free_port());
    let options = WorkerOptions { cluster: bank.cluster.clone(), ..bank.options.clone() };
    let found = check(&options, "kafka");
    assert_eq!(found["status"], "failed");
    assert_eq!(found["detail"], format!("no broker answers at {}", bank.cluster.bootstrap_servers));
    let worker = Worker::start(&options);
    support::patience::wait_for("the worker to say that it waits", PATIENCE, || {
        let said = worker.output();
        (said.contains("waiting for the command topic") && said.contains(&bank.topic)).then_some(())
    });
    // what is collected is JSON; a tool's lines are for people
    assert!(worker.output().lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{}", worker.output());
    let told = options.run_verb(&["status"]);
    assert!(told.stderr.contains(" WARN ") && !told.stderr.contains('{'), "{told:?}");
}

#[tokio::test]
async fn a_topic_that_is_missing() {
    let bank = bank("no-topic").await;
    let options = WorkerOptions { topics: vec![("no.such.topic".into(), "account".into())], ..bank.options.clone() };
    let found = check(&options, "topic no.such.topic");
    assert_eq!((&found["status"], &found["detail"]), (&"failed".into(), &"the topic does not exist".into()));
    let servers = &bank.cluster.bootstrap_servers;
    let create = format!("kafka-topics.sh --bootstrap-server {servers} --create --topic no.such.topic --partitions 12");
    assert!(found["cure"].as_str().is_some_and(|cure| cure.starts_with(&create)), "{found}");
    let worker = Worker::start(&options);
    support::patience::wait_for("the worker to say that it waits", PATIENCE, || {
        worker.output().contains(&create).then_some(())
    });
}

#[tokio::test]
async fn a_partition_count_that_has_changed() {
    let bank = bank("count").await;
    let _worker = bank.worker();
    wait_until("both partitions to be claimed", PATIENCE, async || bank.database.count("partitions").await == 2).await;
    topics::add_partitions(&bank.cluster, &bank.topic, 3).await;
    let found = check(&bank.options, &format!("partitions of {}", bank.topic));
    assert_eq!(found["detail"], "there are 3, its keys were placed for 2");
    assert_eq!(bank.options.run_verb(&["check"]).code, Some(3));
}

#[tokio::test]
async fn a_topic_that_the_broker_refuses_to_create() {
    // three copies, on one broker
    let properties = vec![("default.replication.factor".to_owned(), "3".to_owned())];
    let broker = Broker::start(BrokerOptions { properties, ..BrokerOptions::default() });
    let database = Database::fresh("refused").await;
    let bank = Bank::open_on(broker.cluster(), database, "refused", 2).await;
    let (topic, servers) = (bank.topic.clone(), bank.cluster.bootstrap_servers.clone());
    let said = bank.options.run_verb(&["run"]);
    let (code, line) = told(&said, &[(&topic, "TOPIC"), (&servers, "SERVERS")]);
    assert_eq!(code, Some(2), "{said:?}");
    let expected = "type: kafka-topics.sh --bootstrap-server SERVERS --create --topic TOPIC.outcomes --partitions 2 --config cleanup.policy=delete";
    assert!(line.contains("is missing and the broker refuses to create it") && line.ends_with(expected), "{line}");
}

#[tokio::test]
async fn a_port_that_is_taken() {
    let bank = bank("port").await;
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let said = bank.options.clone().setting(&format!("[http]\nlisten = \"{address}\"")).run_verb(&["run"]);
    let (code, line) = told(&said, &[(&address, "ADDRESS")]);
    assert_eq!(code, Some(1), "{said:?}");
    assert!(line.starts_with("error: http.listen = \"ADDRESS\" cannot be used"), "{line}");
    assert!(line.contains("SOLEWRITER__HTTP__LISTEN=") && line.contains("Address already in use"), "{line}");
}

#[tokio::test]
async fn an_unknown_key_and_a_file_that_is_no_toml() {
    let bank = bank("config").await;
    let unknown = bank.options.clone().setting("[worker]\nbatch_comands_max = 3").run_verb(&["status"]);
    let (code, line) = told(&unknown, &[]);
    assert_eq!(code, Some(2));
    assert!(
        line.contains("unknown key worker.batch_comands_max") && line.ends_with("did you mean batch_commands_max?"),
        "{line}"
    );
    let scratch = Scratch::new("toml");
    let file = scratch.path().join("broken.toml");
    fs::write(&file, "[database]\nschema == \"a\"\n").expect("write a file");
    let name = file.display().to_string();
    let environment = vec![("SOLEWRITER_CONFIG".to_owned(), name.clone())];
    let said = WorkerOptions { environment, ..bank.options.clone() }.run_verb_without_file(&["status"]);
    assert_eq!(told(&said, &[(&name, "FILE")]), (Some(2), "error: FILE:2:9: extra `=`, expected nothing".to_owned()));
}
