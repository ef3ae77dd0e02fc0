//! A real Kafka broker with the tests' settings, and the one that they share.

pub mod acls;
mod cluster;
mod settings;

use std::env;
use std::sync::OnceLock;

pub use cluster::Cluster;
use solewriter::local::kafka::{Error, Kafka, Options, Secure};

use super::scratch::Scratch;
use super::tls;
use super::tls::Certificate;

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
    /// Broker settings; they win over the tests' own.
    pub properties: Vec<(String, String)>,
}

/// A private broker, running or stopped. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct Broker {
    kafka: Kafka,
    identity: Option<Identity>,
}

/// What the encrypted listener shows to its clients.
#[derive(Debug)]
struct Identity {
    certificate: Certificate,
    /// Of the certificate's files.
    _scratch: Scratch,
}

impl Identity {
    fn make() -> Self {
        let scratch = Scratch::new("certificate");
        Self { certificate: tls::certificate(scratch.path()), _scratch: scratch }
    }

    fn listener(&self) -> Secure {
        Secure { keystore: self.certificate.keystore.clone(), user: USER.to_owned(), password: PASSWORD.to_owned() }
    }
}

impl Broker {
    /// Starts a fresh broker; it accepts clients on return.
    pub fn start(options: BrokerOptions) -> Self {
        let identity = options.secure.then(Identity::make);
        let settings = settings::with(options.properties);
        let secure = identity.as_ref().map(Identity::listener);
        let kafka = done(Kafka::start(Options { secure, settings, ..Options::default() }));
        Self { kafka, identity }
    }

    /// How to reach the plain listener.
    pub fn cluster(&self) -> Cluster {
        Cluster::plain(self.kafka.bootstrap_servers())
    }

    /// How to reach the encrypted listener as [`USER`].
    pub fn secure_cluster(&self) -> Cluster {
        let secure = self.identity.as_ref().zip(self.kafka.secure_bootstrap_servers());
        let (identity, bootstrap_servers) = secure.expect("start the broker with `secure: true`");
        let properties = [
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", USER),
            ("sasl.password", PASSWORD),
            ("ssl.ca.location", &identity.certificate.authority.display().to_string()),
        ];
        let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Cluster { bootstrap_servers, properties }
    }

    /// A controlled shutdown, as in a rolling restart.
    pub fn stop(&mut self) {
        done(self.kafka.stop());
    }

    /// A crash.
    pub fn kill(&mut self) {
        done(self.kafka.kill());
    }

    /// Starts a stopped broker on the same ports and log; does nothing while it runs.
    pub fn start_again(&mut self) {
        done(self.kafka.start_again());
    }

    /// Freezes the broker: its sockets stay open and say nothing.
    pub fn freeze(&mut self) {
        done(self.kafka.freeze());
    }

    pub fn thaw(&mut self) {
        done(self.kafka.thaw());
    }
}

/// A test has no other way than a broker that does what it is told.
fn done<T>(result: Result<T, Error>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}
