//! `dev`: the demonstration ends with balanced books, and leaves nothing behind, however it ends.

use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs};

use rustix::process::Signal;
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
    /// `database_url` empty: a private Postgres.
    fn start(database_url: &str) -> Self {
        let scratch = Scratch::new("demo");
        let command: [PathBuf; 4] = [bank(), "dev".into(), "--for".into(), "5s".into()];
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
        assert!(stdout.contains("the first effect") && stdout.contains("1 take-overs"), "{stdout}");
    }

    /// Kills it as soon as commands have been settled.
    fn kill_after_the_first_effect(&mut self) {
        wait_for("the demo's first effect", PATIENCE, || {
            self.read("stdout").contains("the first effect").then_some(())
        });
        self.process.signal(Signal::KILL).expect("kill the demo");
        self.process.wait(PATIENCE).expect("wait for the demo");
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
            let named = |directory: &PathBuf| {
                let entries = fs::read_dir(directory).into_iter().flatten().flatten();
                entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with(&mark))
            };
            (!answers && !directories.iter().any(named)).then_some(())
        });
    }

    /// No schema in a Postgres that is not its own.
    async fn leaves_no_schema(&self) {
        let schema = self.said_after("), schema");
        assert!(schema.starts_with("solewriter_dev_"), "{schema}");
        let database = Database::fresh("demo").await;
        let left = format!("pg_namespace where nspname = '{schema}'");
        wait_until("the schema to be gone", Duration::from_secs(60), async || database.count(&left).await == 0).await;
    }
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
