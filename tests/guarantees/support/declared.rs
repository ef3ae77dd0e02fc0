//! Commands in SQL that a test declares itself.

use std::fs;

use super::bank::Bank;
use super::postgres::Database;
use super::scratch::Scratch;
use super::worker::WorkerOptions;
use super::{kafka, topics};

/// A topic of `entity`'s commands, which `commands` declares over what `tables` makes, in the test's
/// own schema. The scratch holds the files as long as the verbs need them.
pub async fn project(name: &str, entity: &str, partitions: i32, tables: &str, commands: &str) -> (Scratch, Bank) {
    let (scratch, options, database) = declared(name, entity, partitions, tables, commands).await;
    let topic = options.topics[0].0.clone();
    let bank = Bank::with(kafka::shared(), database, topic, options.in_sql_of(entity));
    (scratch, bank)
}

/// The same, not migrated and for whatever program: the topic stays that of the bank's accounts.
pub async fn declared(
    name: &str,
    entity: &str,
    partitions: i32,
    tables: &str,
    commands: &str,
) -> (Scratch, WorkerOptions, Database) {
    let scratch = Scratch::new(name);
    let file = scratch.path().join("commands.toml");
    fs::write(scratch.path().join("tables.sql"), tables).expect("write the tables' script");
    fs::write(&file, format!("entity = {entity:?}\ntables = \"tables.sql\"\n{commands}")).expect("write the commands");
    let database = Database::fresh(&name.replace('-', "_")).await;
    let cluster = kafka::shared();
    let topic = topics::fresh(&cluster, name, partitions).await;
    let options = WorkerOptions::new(&cluster, &database, &topic).declared(&[file]);
    (scratch, options, database)
}
