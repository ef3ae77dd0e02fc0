//! How to reach a broker, whoever runs it.

use rdkafka::ClientConfig;

/// What every helper that talks to Kafka takes.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub bootstrap_servers: String,
    /// Further librdkafka properties: protocol, credentials.
    pub properties: Vec<(String, String)>,
}

impl Cluster {
    /// Without encryption and credentials.
    pub fn plain(bootstrap_servers: impl Into<String>) -> Self {
        Self { bootstrap_servers: bootstrap_servers.into(), properties: Vec::new() }
    }

    /// The base of every client's configuration.
    pub fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap_servers);
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
    }
}
