//! `dev`: the demonstration ends with balanced books, and leaves nothing behind, however it ends.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use rustix::process::{Pid, Signal};
use solewriter::local::guarded::{Guarded, Program};

use crate::support;
use crate::support::patience::{PATIENCE, wait_for, wait_until};
use crate::support::postgres::{Database, shared_url};
use crate::support::scratch::Scratch;
use crate::support::worker::bank;

/// A running `bank dev`.
struct Demo {
    process: Guarded,
    scratch: Scratch,
}

impl Demo {
    /// Too short for a zombie. `database_url` empty: a private Postgres.
    fn start(database_url: &str) -> Self {
        Self::start_for("5s", database_url)
    }

    fn start_for(length: &str, database_url: &str) -> Self {
        let scratch = Scratch::new("demo");
        let command: [PathBuf; 4] = [bank(), "dev".into(), "--for".into(), length.into()];
        let program = Program {
            environment: vec![("DATABASE_URL".into(), database_url.into())],
            stdout: scratch.path().join("stdout"),
            stderr: scratch.path().join("stderr"),
            ..Program::new(command)
        };
        let process = program.spawn().expect("run the bank");
        Self { process, scratch }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.scratch.path().join(name)).unwrap_or_default()
    }

    /// Exit code and summary are as they should be.
    fn ends_with_balanced_books(&mut self) {
        let ended = self.process.wait(PATIENCE).expect("wait for the demo");
        let (stdout, stderr) = (self.read("stdout"), self.read("stderr"));
        assert_eq!(ended.and_then(|status| status.code()), Some(0), "{stdout}{stderr}");
        assert!(stdout.ends_with("\nthe books balance\n"), "{stdout}");
        assert!(stdout.contains("the first effect") && !stdout.contains(" 0 take-overs"), "{stdout}");
    }

    fn wait_until_it_says(&self, words: &str) {
        // a zombie that came to nothing on a busy machine is followed by another half a minute later
        let patience = PATIENCE * 5;
        wait_for(format!("the demo to say: {words}"), patience, || self.read("stdout").contains(words).then_some(()));
    }

    /// Kills it as soon as commands have been settled.
    fn kill_after_the_first_effect(&mut self) {
        self.wait_until_it_says("the first effect");
        self.kill();
    }

    fn kill(&mut self) {
        self.process.signal(Signal::KILL).expect("kill the demo");
        self.process.wait(PATIENCE).expect("wait for the demo");
    }

    /// Waits for its third worker to be halted.
    fn halted_zombie(&self) -> Pid {
        self.wait_until_it_says("is halted (SIGSTOP)");
        let id = self.said_after("a third worker joins: process").parse().ok();
        id.and_then(Pid::from_raw).expect("a process id")
    }

    /// Neither the process nor its directory, which its guard removes after it.
    fn leaves_no_zombie(&self, zombie: Pid) {
        let mark = format!("solewriter-zombie-{}-", self.process.id());
        wait_for("the third worker to be gone", PATIENCE, || {
            let is_gone = rustix::process::test_kill_process(zombie) == Err(rustix::io::Errno::SRCH);
            (is_gone && !has_entry(&env::temp_dir(), &mark)).then_some(())
        });
    }

    /// What stands behind `word` in its first lines.
    fn said_after(&self, word: &str) -> String {
        let said = self.read("stdout");
        let (_, after) = said.split_once(word).expect("the demo says it");
        after.split_whitespace().next().unwrap_or_default().to_owned()
    }

    /// Neither the server nor its directory.
    fn leaves_no_postgres(&self) {
        let port: u16 =
            self.said_after("@127.0.0.1:").split('/').next().and_then(|port| port.parse().ok()).expect("a port");
        let mark = format!("solewriter-postgres-{}-", self.process.id());
        wait_for("the private Postgres to be gone", PATIENCE, || {
            let answers = TcpStream::connect(("127.0.0.1", port)).is_ok();
            let directories = [PathBuf::from("/var/tmp"), env::temp_dir()];
            (!answers && !directories.iter().any(|directory| has_entry(directory, &mark))).then_some(())
        });
    }

    /// No schema in a Postgres that is not its own.
    async fn leaves_no_schema(&self) {
        let schema = self.said_after(", schema");
        assert!(schema.starts_with("solewriter_dev_"), "{schema}");
        let database = Database::fresh("demo").await;
        let left = format!("pg_namespace where nspname = '{schema}'");
        wait_until("the schema to be gone", Duration::from_secs(60), async || database.count(&left).await == 0).await;
    }
}

fn has_entry(directory: &Path, beginning: &str) -> bool {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with(beginning))
}

#[test]
fn the_demo_ends_with_balanced_books() {
    let _turn = support::heavy();
    let mut demo = Demo::start("");
    demo.ends_with_balanced_books();
    demo.leaves_no_postgres();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_takes_a_schema_of_its_own_in_a_database_that_is_named() {
    let _turn = support::heavy();
    let mut demo = Demo::start(&shared_url());
    demo.ends_with_balanced_books();
    demo.leaves_no_schema().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_that_is_killed_leaves_nothing_behind() {
    let _turn = support::heavy();
    let mut demo = Demo::start("");
    demo.kill_after_the_first_effect();
    demo.leaves_no_postgres();
    let mut demo = Demo::start(&shared_url());
    demo.kill_after_the_first_effect();
    demo.leaves_no_schema().await;
}

/// The embedded broker knows no times.
#[test]
fn the_log_of_the_demo_can_be_asked_by_time() {
    let _turn = support::heavy();
    let mut demo = Demo::start_for("60s", "");
    demo.wait_until_it_says("the first effect");
    let (database, broker) = (demo.said_after("SOLEWRITER__DATABASE__URL="), demo.said_after("BOOTSTRAP_SERVERS="));
    let topic = demo.said_after("commands on ");
    let config = demo.scratch.path().join("solewriter.toml");
    let text = format!(
        "[database]\nurl = {database:?}\n[kafka]\nbootstrap_servers = {broker:?}\n[[topics]]\nname = {topic:?}\nentity = \"account\"\n"
    );
    fs::write(&config, text).expect("write the configuration");
    let records = |range: [&str; 2]| {
        let mut plan = Command::new(bank());
        let said = plan
            .args(["replay", "plan", "-o", "json"])
            .args(range)
            .arg("--config")
            .arg(&config)
            .output()
            .expect("run the verb");
        assert!(said.status.success(), "{said:?}");
        String::from_utf8_lossy(&said.stdout).matches(r#"{"type":"record""#).count()
    };
    assert!(records(["--since", "1h"]) > 0);
    assert_eq!(records(["--from-datetime", "2100-01-01T00:00:00Z"]), 0);
    demo.kill();
}

#[test]
fn a_zombie_s_late_write_is_refused_and_the_books_balance() {
    let _turn = support::heavy();
    let mut demo = Demo::start_for("10min", "");
    let zombie = demo.halted_zombie();
    demo.wait_until_it_says("the fence refused its late write: account.commands:");
    demo.process.signal(Signal::INT).expect("interrupt the demo");
    demo.ends_with_balanced_books();
    let stdout = demo.read("stdout");
    assert!(stdout.contains(" late write") && !stdout.contains(" 0 late writes"), "{stdout}");
    demo.leaves_no_zombie(zombie);
}

/// A halted owner of partitions that nobody has taken over yet.
#[test]
fn a_demo_that_ends_while_its_zombie_is_halted_still_balances() {
    let _turn = support::heavy();
    let mut demo = Demo::start_for("10min", "");
    let zombie = demo.halted_zombie();
    demo.process.signal(Signal::INT).expect("interrupt the demo");
    demo.ends_with_balanced_books();
    demo.leaves_no_zombie(zombie);
}

#[test]
fn a_demo_that_is_killed_takes_its_halted_zombie_along() {
    let _turn = support::heavy();
    let mut demo = Demo::start_for("10min", "");
    let zombie = demo.halted_zombie();
    demo.kill();
    demo.leaves_no_zombie(zombie);
    demo.leaves_no_postgres();
}

/// The second look would find everything in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_difference_that_was_seen_once_ends_the_demo_with_3() {
    let _turn = support::heavy();
    let mut demo = Demo::start_for("10min", &shared_url());
    demo.wait_until_it_says("the first effect");
    let entities = format!("{}.entities", demo.said_after(", schema"));
    let database = Database::fresh("demo").await;
    let from_nowhere = r#"'account', 'nobody', 'account.commands', 0, 0, '{"balance": 1000000}'"#;
    let columns = "entity_type, entity_id, topic, partition, version, state";
    database.execute(&format!("insert into {entities} ({columns}) values ({from_nowhere})")).await;
    demo.wait_until_it_says("A DIFFERENCE");
    database.execute(&format!("delete from {entities} where entity_id = 'nobody'")).await;
    demo.process.signal(Signal::INT).expect("interrupt the demo");
    let ended = demo.process.wait(PATIENCE).expect("wait for the demo");
    let stdout = demo.read("stdout");
    assert_eq!(ended.and_then(|status| status.code()), Some(3), "{stdout}");
    let (_, verdict) = stdout.rsplit_once("the books do NOT balance: ").expect("the verdict");
    assert!(verdict.starts_with("the account entities hold 1"), "{verdict}");
}
