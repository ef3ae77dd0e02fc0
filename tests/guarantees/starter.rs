//! The stock binary alone shows something at once: `dev` without a word of configuration, a project
//! that `new` has written, an example. It leaves nothing behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use solewriter::local::guarded::{Guarded, Program};

use crate::support;
use crate::support::patience::{PATIENCE, wait_for, wait_until};
use crate::support::postgres::{Database, shared_url};
use crate::support::scratch::Scratch;
use crate::support::worker::stock_binary;

/// The stock binary at work in a directory.
struct Stock {
    process: Guarded,
    said: Scratch,
}

impl Stock {
    /// `database_url` empty: a private Postgres.
    fn start(directory: &Path, arguments: &[&str], database_url: &str) -> Self {
        let said = Scratch::new("starter");
        let command = [stock_binary()].into_iter().chain(arguments.iter().map(PathBuf::from));
        let program = Program {
            environment: vec![("DATABASE_URL".into(), database_url.into())],
            environment_without: vec!["SOLEWRITER_CONFIG".into()],
            directory: directory.to_owned(),
            stdout: said.path().join("stdout"),
            stderr: said.path().join("stderr"),
            ..Program::new(command)
        };
        Self { process: program.spawn().expect("run the stock binary"), said }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.said.path().join(name)).unwrap_or_default()
    }

    /// What stands on stdout and stderr at the end.
    fn ends_with(&mut self, code: i32) -> (String, String) {
        let ended = self.process.wait(PATIENCE).expect("wait for the stock binary");
        let (stdout, stderr) = (self.read("stdout"), self.read("stderr"));
        assert_eq!(ended.and_then(|status| status.code()), Some(code), "{stdout}{stderr}");
        (stdout, stderr)
    }

    fn ends_with_balanced_books(&mut self) -> String {
        let (stdout, _) = self.ends_with(0);
        assert!(stdout.ends_with("\nthe books balance\n"), "{stdout}");
        assert!(!stdout.contains("settled    0 applied"), "{stdout}");
        stdout
    }

    fn wait_until_it_says(&self, words: &str) {
        // a zombie that came to nothing on a busy machine is followed by another half a minute later
        wait_for(format!("dev to say: {words}"), PATIENCE * 5, || self.read("stdout").contains(words).then_some(()));
    }

    /// Neither its schema nor that of the tables.
    async fn leaves_no_schema(&self) {
        let stdout = self.read("stdout");
        let (_, schema) = stdout.split_once(", schema ").expect("dev names its schema");
        let schema = schema.split_whitespace().next().unwrap_or_default();
        assert!(schema.starts_with("solewriter_dev_"), "{schema}");
        assert!(stdout.contains(&format!("table {schema}_tables.")), "the team's tables are beside it: {stdout}");
        let database = Database::fresh("starter").await;
        let left = format!("pg_namespace where starts_with(nspname::text, '{schema}')");
        wait_until("the schemas to be gone", Duration::from_secs(60), async || database.count(&left).await == 0).await;
    }
}

#[test]
fn a_new_project_runs_as_it_is_and_is_not_written_twice() {
    let _turn = support::heavy();
    let scratch = Scratch::new("new");
    let (stdout, _) = Stock::start(scratch.path(), &["new", "cards"], "").ends_with(0);
    assert!(stdout.contains("\n  cd cards\n  solewriter dev\n"), "{stdout}");
    let project = scratch.path().join("cards");
    let stdout = Stock::start(&project, &["dev", "--for", "8s"], "").ends_with_balanced_books();
    assert!(stdout.contains("commands on cards.commands") && stdout.contains("table public.card "), "{stdout}");
    let (_, stderr) = Stock::start(scratch.path(), &["new", "cards"], "").ends_with(2);
    assert!(stderr.contains("cards is not empty"), "{stderr}");
}

#[test]
fn what_was_written_is_told_to_programs_too() {
    let scratch = Scratch::new("new");
    let (stdout, _) = Stock::start(scratch.path(), &["new", "cards", "-o", "json"], "").ends_with(0);
    let told: serde_json::Value = serde_json::from_str(&stdout).expect("one JSON document");
    assert_eq!(told["directory"], "cards");
    let files = told["files"].as_array().expect("a list");
    let is_file =
        |file: &serde_json::Value| scratch.path().join("cards").join(file.as_str().expect("a path")).is_file();
    assert!(files.len() > 5 && files.iter().all(is_file), "{stdout}");
}

/// A zombie is among it: the bank is not in any file, and the third worker runs it too.
#[test]
fn without_a_configuration_the_bank_is_shown() {
    let _turn = support::heavy();
    let scratch = Scratch::new("bare");
    let mut dev = Stock::start(scratch.path(), &["dev", "--for", "10min"], "");
    dev.wait_until_it_says("is halted (SIGSTOP)");
    dev.wait_until_it_says("wakes up (SIGCONT)");
    dev.process.signal(Signal::INT).expect("interrupt dev");
    let stdout = dev.ends_with_balanced_books();
    assert!(stdout.contains("\nsum        account: "), "{stdout}");
    assert!(fs::read_dir(scratch.path()).expect("a directory").next().is_none(), "nothing is written there");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_database_that_is_named_nothing_is_left_behind() {
    let _turn = support::heavy();
    let scratch = Scratch::new("bare");
    let mut dev = Stock::start(scratch.path(), &["dev", "--for", "8s"], &shared_url());
    dev.ends_with_balanced_books();
    dev.leaves_no_schema().await;
    let mut killed = Stock::start(scratch.path(), &["dev"], &shared_url());
    killed.wait_until_it_says("the first effect");
    killed.process.signal(Signal::KILL).expect("kill dev");
    killed.process.wait(PATIENCE).expect("wait for dev");
    killed.leaves_no_schema().await;
}

#[test]
fn an_example_runs_from_everywhere() {
    let _turn = support::heavy();
    let scratch = Scratch::new("example");
    let config = support::example("stock").join("solewriter.toml");
    let config = config.to_str().expect("a path");
    let stdout =
        Stock::start(scratch.path(), &["dev", "--config", config, "--for", "8s"], "").ends_with_balanced_books();
    assert!(!stdout.contains("\nsum "), "nobody reckons what it adds: {stdout}");
}

#[test]
fn samples_that_are_missing_or_wrong_are_named_before_anything_is_started() {
    let scratch = Scratch::new("samples");
    Stock::start(scratch.path(), &["new", "."], "").ends_with(0);
    let dev = |code| Stock::start(scratch.path(), &["dev", "--for", "1s"], "").ends_with(code).1;
    let samples = scratch.path().join("dev.jsonl");
    fs::write(&samples, r#"{"key":"a","type":"card.isue","data":{}}"#).expect("samples");
    let stderr = dev(2);
    assert!(stderr.contains("dev.jsonl:1: ") && stderr.contains("did you mean card.issue?"), "{stderr}");
    fs::remove_file(&samples).expect("no samples");
    let stderr = dev(2);
    assert!(stderr.contains("config/dev.jsonl or dev.jsonl") && stderr.contains(r#""type":"card.issue""#), "{stderr}");
}

#[test]
fn a_sample_that_becomes_a_dead_letter_is_a_difference() {
    let _turn = support::heavy();
    let scratch = Scratch::new("samples");
    Stock::start(scratch.path(), &["new", "."], "").ends_with(0);
    let samples = scratch.path().join("dev.jsonl");
    fs::write(&samples, r#"{"key":"a","type":"card.issue","data":{"amount":"much"}}"#).expect("samples");
    let (stdout, stderr) = Stock::start(scratch.path(), &["dev", "--for", "5s"], "").ends_with(3);
    // the first of the partition that is settled first, whichever pass it is of
    assert!(stdout.contains("\nthe books do NOT balance: card.issue to a"), "{stdout}");
    assert!(stdout.contains(" is a dead letter: malformed-payload: field amount: "), "{stdout}");
    assert!(stdout.contains(" dead malformed-payload\nNOTE       card.issue was never applied\n"), "{stdout}");
    let logged = stderr.lines().filter(|line| line.contains("dead letter")).count();
    assert_eq!(logged, 0, "the view tells of them: {stderr}");
}

/// The order numbers are unique, and no customer is another's.
#[test]
fn samples_name_the_round_in_what_has_to_be_unique() {
    let _turn = support::heavy();
    let scratch = Scratch::new("rounds");
    let config = support::example("orders").join("solewriter.toml");
    let config = config.to_str().expect("a path");
    let stdout =
        Stock::start(scratch.path(), &["dev", "--config", config, "--for", "5s"], "").ends_with_balanced_books();
    let placed = stdout.lines().find_map(|line| line.strip_prefix("by type    order.cancel")?.strip_suffix(" applied"));
    let cancelled: u32 = placed.and_then(|count| count.trim().replace(',', "").parse().ok()).expect("a count");
    assert!(cancelled > 3, "in later rounds, too: {stdout}");
}
