//! A private Kafka: one broker that is its own controller, on its own ports, gone with this process.
//!
//! Needs Kafka's jars and a Java runtime, which `./dev` fetches; no service, no sudo, no Docker.
//! Everybody on this machine may connect (no password, loopback interface): not for data that
//! matters.

mod java;
mod log;
mod properties;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use java::Java;
use rustix::process::Signal;

use crate::local::directory::Directory;
use crate::local::fetched::FOLDER_VARIABLE;
use crate::local::guarded::{Guarded, Program};
use crate::local::port;

/// A JVM start beside a compiler and a Postgres on two cores has been seen to take 30 s.
const START_TIMEOUT: Duration = Duration::from_secs(120);
const START_POLL: Duration = Duration::from_millis(20);
/// A port that was free may be taken when the JVM has come up.
const START_ATTEMPTS: u32 = 3;
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// Kafka refuses a log directory that was not given a cluster's id: 16 bytes in base64.
const CLUSTER_ID: &str = "c29sZXdyaXRlci1sb2NhbA";
const BROKER: &str = "kafka.Kafka";
const FORMAT_TOOL: &str = "kafka.tools.StorageTool";

/// How the private Kafka shall be; the default is small and quick to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// For a short life or for speed.
    pub jvm: Jvm,
    /// The most that the JVM's heap may take, in MiB.
    pub heap_mib: u32,
    /// A second listener, for clients that have a password.
    pub secure: Option<Secure>,
    /// Broker settings, `(name, value)`; they win over the ones chosen here, and a later one over an
    /// earlier.
    pub settings: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self { jvm: Jvm::Quick, heap_mib: 256, secure: None, settings: Vec::new() }
    }
}

impl Options {
    /// As Kafka's start script runs a broker: 1 GiB of heap, the full compiler, G1. Segments, page
    /// cache and flushing are as Kafka ships them: it acknowledges what the operating system has
    /// taken, and does not wait for the disk (no fsync).
    pub fn for_a_benchmark() -> Self {
        Self { jvm: Jvm::Full, heap_mib: 1024, ..Self::default() }
    }
}

/// How the JVM spends its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jvm {
    /// Starts soon and compiles little: for a broker that lives for seconds.
    Quick,
    /// Compiles what runs often as well as it can, and has all its heap from the start.
    Full,
}

/// A listener with encryption (SASL_SSL) and one user (SCRAM-SHA-512).
#[derive(Debug, Clone)]
pub struct Secure {
    /// Private key and certificate in one PEM file, which lives as long as the broker.
    pub keystore: PathBuf,
    /// Who may connect.
    pub user: String,
    /// With which password.
    pub password: String,
}

/// A Kafka that could not be had; what to do about it stands in the message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The jars have not been fetched.
    #[error(
        "no Kafka in {looked:?}\n\
         `./dev bench` or `./dev setup` fetch it, in a checkout of solewriter ({FOLDER_VARIABLE} names the folder of what \
         they have fetched elsewhere); or set KAFKA_BOOTSTRAP_SERVERS to a Kafka that runs"
    )]
    NoKafka {
        /// Where they were looked for.
        looked: PathBuf,
    },
    /// Nothing to run the jars with.
    #[error(
        "no Java runtime (java), which Kafka runs on, found in {looked}\n\
         install version 17 or later (Debian, Ubuntu: apt-get install default-jre-headless), or set JAVA_HOME, \
         or type `./dev setup` in a checkout of solewriter, which fetches one, or set KAFKA_BOOTSTRAP_SERVERS to a Kafka that runs"
    )]
    NoJava {
        /// Where it was looked for.
        looked: String,
    },
    /// The broker, or the tool that prepares its directory, ended or was not done in time.
    #[error("{program} failed; its log says:\n{reason}")]
    Failed {
        /// The main class that failed.
        program: &'static str,
        /// The part of its log that matters.
        reason: String,
    },
    /// What was asked for needs a running broker, and this one is stopped.
    #[error("the private Kafka is stopped")]
    Stopped,
    /// This machine refused something ordinary.
    #[error("could not {doing}: {source}")]
    Io {
        /// What was tried.
        doing: String,
        /// What the operating system says.
        source: io::Error,
    },
}

impl Error {
    fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    /// By another program, between the choice of the port and its use.
    fn is_port_taken(&self) -> bool {
        matches!(self, Self::Failed { reason, .. } if log::says_port_taken(reason))
    }
}

/// A private broker, running or stopped. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct Kafka {
    java: Java,
    options: Options,
    /// Chosen at the first start and kept, so that the addresses stay true over a restart.
    ports: Ports,
    log: PathBuf,
    /// Of the last start.
    process: u32,
    /// `None` while stopped. Stands before `directory`, whose drop removes the data of a broker that
    /// has ended.
    server: Option<Guarded>,
    /// Among the temporary files (`TMPDIR`).
    directory: Directory,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    plain: u16,
    controller: u16,
    /// Listened on only where it is asked for.
    secure: u16,
}

impl Ports {
    fn choose() -> io::Result<Self> {
        Ok(Self { plain: port::free()?, controller: port::free()?, secure: port::free()? })
    }
}

impl Kafka {
    /// Finds Kafka and Java on this machine and starts a fresh broker; it accepts clients on return.
    pub fn start(options: Options) -> Result<Self, Error> {
        let java = Java::find()?;
        let mut attempt = 1;
        loop {
            match Self::start_fresh(&java, &options) {
                Err(error) if error.is_port_taken() && attempt < START_ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    /// Where clients connect, without encryption and credentials.
    pub fn bootstrap_servers(&self) -> String {
        format!("127.0.0.1:{}", self.ports.plain)
    }

    /// Where clients connect as the user of [`Options::secure`]; `None` without one.
    pub fn secure_bootstrap_servers(&self) -> Option<String> {
        self.options.secure.as_ref().map(|_| format!("127.0.0.1:{}", self.ports.secure))
    }

    /// Process id of the broker; while it is stopped, that of its last life.
    pub fn id(&self) -> u32 {
        self.process
    }

    /// What the broker has logged since its last start.
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// A controlled shutdown, as in a rolling restart.
    pub fn stop(&mut self) -> Result<(), Error> {
        self.end(Signal::TERM)
    }

    /// A crash.
    pub fn kill(&mut self) -> Result<(), Error> {
        self.end(Signal::KILL)
    }

    /// Starts a stopped broker on the same ports and data; does nothing while it runs.
    pub fn start_again(&mut self) -> Result<(), Error> {
        match self.server {
            Some(_) => Ok(()),
            None => self.launch(),
        }
    }

    /// Freezes the broker: its sockets stay open and say nothing.
    pub fn freeze(&mut self) -> Result<(), Error> {
        self.signal(Signal::STOP)
    }

    /// Ends a [`Self::freeze`].
    pub fn thaw(&mut self) -> Result<(), Error> {
        self.signal(Signal::CONT)
    }

    fn signal(&mut self, signal: Signal) -> Result<(), Error> {
        let server = self.server.as_mut().ok_or(Error::Stopped)?;
        server.signal(signal).map_err(Error::io("signal Kafka"))
    }

    fn end(&mut self, signal: Signal) -> Result<(), Error> {
        let Some(mut server) = self.server.take() else {
            return Ok(());
        };
        server.signal(signal).map_err(Error::io("signal Kafka"))?;
        match server.wait(STOP_TIMEOUT).map_err(Error::io("wait for Kafka"))? {
            Some(_) => Ok(()),
            None => Err(self.failed(BROKER)),
        }
    }

    fn start_fresh(java: &Java, options: &Options) -> Result<Self, Error> {
        let ports = Ports::choose().map_err(Error::io("find free ports"))?;
        let directory = Directory::make("kafka").map_err(Error::io("make a directory for Kafka"))?;
        let text = properties::text(directory.path(), ports, options.secure.as_ref(), &options.settings);
        let file = directory.path().join("server.properties");
        fs::write(&file, text).map_err(Error::io(format!("write {file:?}")))?;
        let log = directory.path().join("broker.log");
        let mut kafka =
            Self { java: java.clone(), options: options.clone(), ports, log, process: 0, server: None, directory };
        kafka.format()?;
        kafka.launch()?;
        Ok(kafka)
    }

    /// Prepares the directory of the broker's log; the user of the second listener lives there too.
    fn format(&self) -> Result<(), Error> {
        let mut arguments = vec![FORMAT_TOOL, "format", "-t", CLUSTER_ID];
        let scram = self
            .options
            .secure
            .as_ref()
            .map(|Secure { user, password, .. }| format!("SCRAM-SHA-512=[name={user},password={password}]"));
        if let Some(scram) = &scram {
            arguments.extend(["--add-scram", scram]);
        }
        arguments.extend(["-c", "server.properties"]);
        let small = Options::default();
        let mut tool = self.run(small.jvm, small.heap_mib, &arguments)?;
        let status = tool.wait(START_TIMEOUT).map_err(Error::io(format!("wait for {FORMAT_TOOL}")))?;
        let done = status.is_some_and(|status| status.success());
        if done { Ok(()) } else { Err(self.failed(FORMAT_TOOL)) }
    }

    /// Starts the broker and waits until it accepts clients.
    fn launch(&mut self) -> Result<(), Error> {
        // What an earlier life logged must not be taken for a sign of this one.
        fs::write(&self.log, "").map_err(Error::io(format!("empty {:?}", self.log)))?;
        let mut server = self.run(self.options.jvm, self.options.heap_mib, &[BROKER, "server.properties"])?;
        let deadline = Instant::now() + START_TIMEOUT;
        while !log::says_started(&self.log_text()) {
            let ended = server.exit_status().map_err(Error::io("look after Kafka"))?.is_some();
            if ended || Instant::now() > deadline {
                return Err(self.failed(BROKER));
            }
            thread::sleep(START_POLL);
        }
        self.process = server.id();
        self.server = Some(server);
        Ok(())
    }

    /// Runs a main class in the broker's directory, which goes when this process is gone.
    fn run(&self, jvm: Jvm, heap_mib: u32, arguments: &[&str]) -> Result<Guarded, Error> {
        let directory = self.directory.path();
        let program = Program {
            directory: directory.to_owned(),
            stdout: self.log.clone(),
            stderr: self.log.clone(),
            remove_when_orphaned: Some(directory.to_owned()),
            ..Program::new(self.java.command(jvm, heap_mib, arguments))
        };
        program.spawn().map_err(Error::io("run java"))
    }

    fn failed(&self, program: &'static str) -> Error {
        Error::Failed { program, reason: log::reason(&self.log_text()) }
    }

    fn log_text(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}
