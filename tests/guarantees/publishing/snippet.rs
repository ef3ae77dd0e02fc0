//! A program of another language, run as its reader would run it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use solewriter::local::guarded::{Guarded, Program};

use crate::support::bank::Bank;
use crate::support::scratch::{Scratch, unique};

/// Three attempts of 30 s, and some more.
const RUN_TIMEOUT: Duration = Duration::from_secs(150);
/// At the same time.
const RUNS_MAX: usize = 8;

const OPEN: [&str; 2] = ["account.open", r#"{"initial": 100}"#];

/// A program that publishes one command and prints what became of it.
pub struct Snippet {
    /// Takes KEY TYPE JSON.
    one: Call,
    /// Takes keys and opens an account for each; for a client that starts slowly.
    many: Option<Call>,
    /// What it consists of, and what it prints.
    scratch: Scratch,
}

impl Snippet {
    pub fn new(one: Call, scratch: Scratch) -> Self {
        Self { one, many: None, scratch }
    }

    pub fn many(self, many: Call) -> Self {
        Self { many: Some(many), ..self }
    }

    /// Returns what was printed, one value for each line.
    pub fn open_accounts(&self, bank: &Bank, keys: &[String]) -> Vec<Value> {
        let calls: Vec<Call> = match &self.many {
            Some(many) => vec![many.clone().args(keys)],
            None => keys.iter().map(|key| self.one.clone().arg(key).args(OPEN)).collect(),
        };
        calls.chunks(RUNS_MAX).flat_map(|calls| self.run(bank, calls)).collect()
    }

    /// Sends the command of which `line` tells once more.
    pub fn open_account_again(&self, bank: &Bank, line: &Value) -> Value {
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let call = self.one.clone().arg(text(&line["outcome"]["entity_id"])).args(OPEN);
        let call = call.variable("COMMAND_ID", text(&line["command_id"]));
        self.run(bank, &[call]).pop().expect("one line")
    }

    fn run(&self, bank: &Bank, calls: &[Call]) -> Vec<Value> {
        let environment = [
            ("KAFKA_BOOTSTRAP_SERVERS", bank.cluster.bootstrap_servers.as_str()),
            ("TOPIC", &bank.topic),
            // Java 17 reads its arguments as the locale says.
            ("LC_ALL", "C.UTF-8"),
        ];
        let started: Vec<_> = calls.iter().map(|call| call.start(&environment, &self.scratch)).collect();
        let ended = started.into_iter().map(|run| run.end(RUN_TIMEOUT).unwrap_or_else(|failure| panic!("{failure}")));
        let lines = ended.flat_map(|printed| printed.lines().map(str::to_owned).collect::<Vec<_>>());
        lines.map(|line| serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
    }
}

/// A command line and its surroundings.
#[derive(Debug, Clone)]
pub struct Call {
    command: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: PathBuf,
}

impl Call {
    pub fn new<S: Into<OsString>>(command: impl IntoIterator<Item = S>) -> Self {
        Self { command: Vec::new(), environment: Vec::new(), directory: PathBuf::from("/") }.args(command)
    }

    pub fn arg(self, argument: impl Into<OsString>) -> Self {
        self.args([argument])
    }

    pub fn args<S: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.extend(arguments.into_iter().map(Into::into));
        self
    }

    pub fn variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    pub fn directory(self, directory: &Path) -> Self {
        Self { directory: directory.to_owned(), ..self }
    }

    /// `scratch` gets what it prints.
    pub fn start(&self, environment: &[(&str, &str)], scratch: &Scratch) -> Started {
        let more = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let (stdout, stderr) = (scratch.path().join(unique("stdout")), scratch.path().join(unique("stderr")));
        let program = Program {
            environment: self.environment.iter().cloned().chain(more).collect(),
            directory: self.directory.clone(),
            stdout: stdout.clone(),
            stderr: stderr.clone(),
            ..Program::new(self.command.clone())
        };
        let process = program.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", self.command));
        Started { process, command: self.command.clone(), stdout, stderr }
    }
}

/// A program that runs.
pub struct Started {
    process: Guarded,
    command: Vec<OsString>,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Started {
    /// Waits for its end and returns what it printed, or how it failed.
    pub fn end(mut self, timeout: Duration) -> Result<String, String> {
        let ended = self.process.wait(timeout).expect("wait for a program");
        let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        let (stdout, stderr) = (read(&self.stdout), read(&self.stderr));
        match ended {
            Some(status) if status.success() => Ok(stdout),
            Some(status) => Err(format!("{:?}: {status}\n{stdout}{stderr}", self.command)),
            None => Err(format!("{:?} has not ended within {timeout:?}\n{stdout}{stderr}", self.command)),
        }
    }
}
