//! A real Kafka broker: one JVM, KRaft, quick settings, gone with this process.

pub mod acls;
mod cluster;
mod java;
mod properties;

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;
use std::{env, fs};

pub use cluster::Cluster;
use rustix::process::Signal;
use solewriter::local::guarded::Guarded;

use super::patience::wait_for;
use super::scratch::{free_port, unique};
use super::tls;
use super::tls::Certificate;

/// A JVM start beside a compiler and a Postgres on two cores has been seen to take 30 s.
const START_TIMEOUT: Duration = Duration::from_secs(120);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const START_ATTEMPTS: u32 = 3;

/// The user of the encrypted listener.
pub const USER: &str = "alice";
pub const PASSWORD: &str = "alice-secret";

/// The broker that tests share: `KAFKA_BOOTSTRAP_SERVERS` when set, otherwise one started by the
/// first who asks.
pub fn shared() -> Cluster {
    static SHARED: OnceLock<Broker> = OnceLock::new();
    match env::var("KAFKA_BOOTSTRAP_SERVERS") {
        Ok(servers) if !servers.is_empty() => Cluster::plain(servers),
        _ => SHARED.get_or_init(|| Broker::start(BrokerOptions::default())).cluster(),
    }
}

#[derive(Debug, Clone, Default)]
pub struct BrokerOptions {
    /// Adds a second listener with SASL_SSL and one SCRAM-SHA-512 user.
    pub secure: bool,
    /// Broker settings; they win over the ones chosen here.
    pub properties: Vec<(String, String)>,
}

/// A private broker, running or stopped. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct Broker {
    directory: PathBuf,
    ports: Ports,
    certificate: Option<Certificate>,
    /// `None` while stopped.
    server: Option<Guarded>,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    plain: u16,
    controller: u16,
    secure: u16,
}

impl Broker {
    /// Starts a fresh broker; it accepts clients on return.
    pub fn start(options: BrokerOptions) -> Self {
        // A port that was free may be taken when the JVM has come up: then another try with others.
        let mut failures = Vec::new();
        for _ in 0..START_ATTEMPTS {
            let mut broker = Self::format(&options);
            match broker.launch() {
                Ok(()) => return broker,
                Err(failure) => failures.push(failure),
            }
        }
        panic!("Kafka did not start:\n{}", failures.join("\n"));
    }

    /// How to reach the plain listener.
    pub fn cluster(&self) -> Cluster {
        Cluster::plain(self.bootstrap_servers())
    }

    pub fn bootstrap_servers(&self) -> String {
        format!("127.0.0.1:{}", self.ports.plain)
    }

    /// How to reach the encrypted listener as [`USER`].
    pub fn secure_cluster(&self) -> Cluster {
        let certificate = self.certificate.as_ref().expect("start the broker with `secure: true`");
        let properties = [
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", USER),
            ("sasl.password", PASSWORD),
            ("ssl.ca.location", &certificate.authority.display().to_string()),
        ];
        Cluster {
            bootstrap_servers: format!("127.0.0.1:{}", self.ports.secure),
            properties: properties.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        }
    }

    /// A controlled shutdown, as in a rolling restart.
    pub fn stop(&mut self) {
        self.end(Signal::TERM);
    }

    /// A crash.
    pub fn kill(&mut self) {
        self.end(Signal::KILL);
    }

    /// Starts a stopped broker on the same ports and log; does nothing while it runs.
    pub fn start_again(&mut self) {
        if self.server.is_none() {
            self.launch().unwrap_or_else(|failure| panic!("Kafka did not start again:\n{failure}"));
        }
    }

    /// Freezes the broker: its sockets stay open and say nothing.
    pub fn freeze(&mut self) {
        self.server().signal(Signal::STOP).expect("stop the JVM's threads");
    }

    pub fn thaw(&mut self) {
        self.server().signal(Signal::CONT).expect("continue the JVM's threads");
    }

    fn server(&mut self) -> &mut Guarded {
        self.server.as_mut().expect("the broker runs")
    }

    fn end(&mut self, signal: Signal) {
        let Some(mut server) = self.server.take() else {
            return;
        };
        server.signal(signal).expect("signal the broker");
        let ended = server.wait(STOP_TIMEOUT).expect("wait for the broker");
        assert!(ended.is_some(), "the broker does not stop; its log: {}", self.log().display());
    }

    fn format(options: &BrokerOptions) -> Self {
        let directory = env::temp_dir().join(unique("solewriter-kafka"));
        fs::create_dir_all(&directory).expect("make a directory for the broker");
        let ports = Ports { plain: free_port(), controller: free_port(), secure: free_port() };
        let certificate = options.secure.then(|| tls::certificate(&directory));
        let properties = properties::text(&directory, ports, certificate.as_ref(), &options.properties);
        fs::write(directory.join("server.properties"), properties).expect("write server.properties");
        let broker = Self { directory, ports, certificate, server: None };
        broker.format_storage();
        broker
    }

    /// Kafka refuses a log directory that was not given a cluster id before.
    fn format_storage(&self) {
        let mut arguments = vec!["kafka.tools.StorageTool", "format", "-t", "c29sZXdyaXRlci10ZXN0cw"];
        let scram = format!("SCRAM-SHA-512=[name={USER},password={PASSWORD}]");
        if self.certificate.is_some() {
            arguments.extend(["--add-scram", &scram]);
        }
        arguments.push("-c");
        let mut format = self.java(&arguments);
        let status = format.wait(START_TIMEOUT).expect("wait for the format tool");
        let fine = status.is_some_and(|status| status.success());
        assert!(fine, "Kafka's format tool failed:\n{}", self.log_text());
    }

    fn launch(&mut self) -> Result<(), String> {
        // What an earlier life logged must not be taken for a sign of this one.
        fs::write(self.log(), "").expect("empty the broker's log");
        let mut server = self.java(&["kafka.Kafka"]);
        let started = wait_for("Kafka to start", START_TIMEOUT, || {
            if self.log_text().contains("from STARTING to STARTED") {
                return Some(true);
            }
            server.exit_status().expect("look after the broker").map(|_| false)
        });
        if !started {
            return Err(self.log_text());
        }
        self.server = Some(server);
        Ok(())
    }

    /// Runs a main class with `server.properties` as its last argument.
    fn java(&self, arguments: &[&str]) -> Guarded {
        java::run(arguments, &self.directory, &self.log())
    }

    fn log(&self) -> PathBuf {
        self.directory.join("broker.log")
    }

    fn log_text(&self) -> String {
        fs::read(self.log()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.server.take());
        let _ = fs::remove_dir_all(&self.directory);
    }
}
