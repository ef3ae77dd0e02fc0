//! The bank, a worker in a process of its own that can be killed, stopped and asked.

mod configuration;
mod metrics;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;
use std::{env, fs};

pub use configuration::WorkerOptions;
pub use metrics::Metrics;
use rustix::process::Signal;
use solewriter::config::Config;
use solewriter::local::guarded::{Guarded, Program};

use super::http;
use super::patience::{PATIENCE, wait_for};
use super::scratch::{Scratch, free_port};

/// A worker drains for 20 s at most by default.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const VERB_TIMEOUT: Duration = Duration::from_secs(60);

/// A running (or ended) `bank run`. Dropping it kills it.
pub struct Worker {
    process: Guarded,
    address: SocketAddr,
    options: WorkerOptions,
    /// Configuration and output; dropped last, kept when the test fails.
    scratch: Scratch,
}

/// What a verb that ends by itself has said.
#[derive(Debug)]
pub struct Said {
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Worker {
    /// Starts a worker; `wait_ready` tells when it works.
    pub fn start(options: &WorkerOptions) -> Self {
        Self::start_verb(options, &["run"])
    }

    /// Starts another verb, which can be killed like a worker.
    pub fn start_verb(options: &WorkerOptions, arguments: &[&str]) -> Self {
        let scratch = Scratch::new("worker");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let config = write_config(options, address, scratch.path());
        let log = scratch.path().join("worker.log");
        let mut command = vec![options.program.clone()];
        command.extend(arguments.iter().map(PathBuf::from));
        command.extend(["--config".into(), config]);
        let program = Program { stdout: log.clone(), stderr: log, ..bank_program(&command, options) };
        let process = program.spawn().expect("run the bank");
        Self { process, address, options: options.clone(), scratch }
    }

    /// Waits until `/readyz` says so; panics when the worker ends instead.
    pub fn wait_ready(&mut self) {
        wait_for("the worker to be ready", PATIENCE, || {
            let ended = self.process.exit_status().expect("look after the worker");
            assert!(ended.is_none(), "the worker ended ({ended:?}):\n{}", self.output());
            self.get("/readyz").is_some_and(|(code, _)| code == 200).then_some(())
        });
    }

    /// A crash.
    pub fn kill9(&mut self) {
        self.signal(Signal::KILL);
        self.wait_ended(PATIENCE);
    }

    /// The orderly end, as an orchestrator asks for it.
    pub fn sigterm_and_wait(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_ended(STOP_TIMEOUT)
    }

    /// Freezes the process, as a suspended machine or a very long collection of garbage does.
    pub fn sigstop(&mut self) {
        self.signal(Signal::STOP);
    }

    pub fn sigcont(&mut self) {
        self.signal(Signal::CONT);
    }

    /// Waits for an end that the test has brought about; panics with the worker's output when it
    /// does not come.
    pub fn wait_ended(&mut self, timeout: Duration) -> ExitStatus {
        let ended = self.process.wait(timeout).expect("wait for the worker");
        ended.unwrap_or_else(|| panic!("the worker still runs after {timeout:?}:\n{}", self.output()))
    }

    /// Panics when the worker does not answer.
    pub fn metrics(&self) -> Metrics {
        let (code, body) = http::get(self.address, "/metrics").expect("the worker answers");
        assert_eq!(code, 200, "GET /metrics: {body}");
        Metrics::parse(&body)
    }

    /// `None` when nobody answers.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        http::get(self.address, path).ok()
    }

    /// What it has logged and printed so far.
    pub fn output(&self) -> String {
        read(&self.scratch.path().join("worker.log"))
    }

    /// Runs another verb with this worker's configuration.
    pub fn run_verb(&self, arguments: &[&str]) -> Said {
        self.options.run_verb(arguments)
    }

    fn signal(&mut self, signal: Signal) {
        self.process.signal(signal).expect("signal the worker");
    }
}

impl WorkerOptions {
    /// The same configuration, for a worker in the test's own process.
    pub fn config(&self) -> Config {
        let scratch = Scratch::new("embedded");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let file = write_config(self, address, scratch.path());
        Config::load(Some(file)).expect("a configuration")
    }

    /// Runs a verb that ends by itself, such as `migrate`.
    pub fn run_verb(&self, arguments: &[&str]) -> Said {
        self.run_verb_with(arguments, "")
    }

    /// The same for a verb that reads standard input, such as `publish`.
    pub fn run_verb_with(&self, arguments: &[&str], input: &str) -> Said {
        let scratch = Scratch::new("verb");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let config = write_config(self, address, scratch.path());
        self.run_verb_in(&scratch, arguments, &["--config".into(), config], input)
    }

    /// The same with what the environment says, and nothing else.
    pub fn run_verb_without_file(&self, arguments: &[&str]) -> Said {
        self.run_verb_in(&Scratch::new("verb"), arguments, &[], "")
    }

    fn run_verb_in(&self, scratch: &Scratch, arguments: &[&str], more: &[PathBuf], input: &str) -> Said {
        let file = |name: &str| scratch.path().join(name);
        fs::write(file("stdin"), input).expect("write the verb's input");
        let mut command = vec![self.program.clone()];
        command.extend(arguments.iter().map(PathBuf::from));
        command.extend_from_slice(more);
        let program = Program {
            stdin: file("stdin"),
            stdout: file("stdout"),
            stderr: file("stderr"),
            ..bank_program(&command, self)
        };
        let mut process = program.spawn().expect("run the bank");
        let status = process.wait(VERB_TIMEOUT).expect("wait for the verb");
        let (stdout, stderr) = (read(&file("stdout")), read(&file("stderr")));
        let status = status.unwrap_or_else(|| panic!("{arguments:?} does not end:\n{stdout}{stderr}"));
        Said { code: status.code(), stdout, stderr }
    }
}

fn bank_program(command: &[PathBuf], options: &WorkerOptions) -> Program {
    let environment = options.environment.iter();
    let environment = environment.map(|(name, value)| (name.into(), value.into())).collect();
    Program { environment, ..Program::new(command) }
}

fn write_config(options: &WorkerOptions, listen: SocketAddr, directory: &Path) -> PathBuf {
    let path = directory.join("solewriter.toml");
    fs::write(&path, options.to_toml(listen)).expect("write the worker's configuration");
    path
}

/// A worker in this process, until the guard is dropped.
pub fn embedded(
    options: &WorkerOptions,
    handler: impl FnOnce(solewriter::Worker) -> solewriter::Worker,
) -> tokio_util::sync::DropGuard {
    let shutdown = tokio_util::sync::CancellationToken::new();
    let worker = handler(solewriter::Worker::new());
    let running = worker.run(options.config(), shutdown.clone());
    tokio::spawn(async move { running.await.expect("run the worker") });
    shutdown.drop_guard()
}

/// The binary without handlers of its own.
pub fn stock_binary() -> PathBuf {
    env!("CARGO_BIN_EXE_solewriter").into()
}

/// Cargo builds the examples before it runs the tests, into the folder beside that of the tests.
pub fn bank() -> PathBuf {
    let test = env::current_exe().expect("the path of this test program");
    let profile = test.parent().and_then(Path::parent).expect("target/<profile>/deps/<test>");
    let bank = profile.join("examples/bank");
    assert!(bank.is_file(), "{} is missing: cargo test builds it", bank.display());
    bank
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
