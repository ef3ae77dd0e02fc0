//! `server.properties` of the test broker.

use std::path::Path;

use super::Ports;
use crate::support::tls::Certificate;

/// What makes one small broker start and rebalance quickly.
const QUICK: &[(&str, &str)] = &[
    ("process.roles", "broker,controller"),
    ("node.id", "1"),
    ("controller.listener.names", "CONTROLLER"),
    ("inter.broker.listener.name", "PLAIN"),
    ("listener.security.protocol.map", "PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL"),
    // A topic that a test forgot to make shall be an error, as in production.
    ("auto.create.topics.enable", "false"),
    ("group.initial.rebalance.delay.ms", "0"),
    ("group.min.session.timeout.ms", "1000"),
    ("group.consumer.heartbeat.interval.ms", "1000"),
    ("group.consumer.min.heartbeat.interval.ms", "500"),
    ("group.consumer.min.session.timeout.ms", "1000"),
    // A broker that was killed may come back when the controller has given its last life up.
    ("broker.session.timeout.ms", "3000"),
    ("broker.heartbeat.interval.ms", "500"),
    ("offsets.topic.num.partitions", "1"),
    ("offsets.topic.replication.factor", "1"),
    ("transaction.state.log.num.partitions", "1"),
    ("transaction.state.log.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("share.coordinator.state.topic.num.partitions", "1"),
    ("share.coordinator.state.topic.replication.factor", "1"),
    ("share.coordinator.state.topic.min.isr", "1"),
    ("default.replication.factor", "1"),
    ("min.insync.replicas", "1"),
    ("num.partitions", "1"),
    // A command of 1 MiB and its headers shall reach the worker, whose limit is what the tests
    // test.
    ("message.max.bytes", "4194304"),
    // Each log allocates its index files at once; the default of 10 MiB fills a small disk with
    // empty topics.
    ("log.index.size.max.bytes", "65536"),
    ("log.segment.bytes", "16777216"),
    // Deleted topics and records go soon, but not before a test can look.
    ("log.segment.delete.delay.ms", "1000"),
    ("log.cleaner.dedupe.buffer.size", "2097152"),
    ("log.cleaner.threads", "1"),
    ("num.network.threads", "2"),
    ("num.io.threads", "2"),
    ("num.recovery.threads.per.data.dir", "1"),
    ("background.threads", "2"),
    ("controlled.shutdown.enable", "true"),
];

/// A later line of the same name wins in Java's properties, so what the test asks for stands last.
pub fn text(directory: &Path, ports: Ports, certificate: Option<&Certificate>, wanted: &[(String, String)]) -> String {
    let mut lines: Vec<_> = QUICK.iter().map(|(name, value)| format!("{name}={value}")).collect();
    lines.push(format!("log.dirs={}", directory.join("log").display()));
    lines.push(format!("controller.quorum.voters=1@127.0.0.1:{}", ports.controller));
    let secure = certificate.map(|_| format!("SECURE://127.0.0.1:{}", ports.secure));
    let clients = [Some(format!("PLAIN://127.0.0.1:{}", ports.plain)), secure];
    let clients = clients.into_iter().flatten().collect::<Vec<_>>().join(",");
    lines.push(format!("listeners={clients},CONTROLLER://127.0.0.1:{}", ports.controller));
    lines.push(format!("advertised.listeners={clients}"));
    lines.extend(certificate.map(secure_listener));
    lines.extend(wanted.iter().map(|(name, value)| format!("{name}={value}")));
    lines.join("\n")
}

fn secure_listener(certificate: &Certificate) -> String {
    let login = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    let settings = [
        ("ssl.keystore.type", "PEM".to_owned()),
        ("ssl.keystore.location", certificate.keystore.display().to_string()),
        ("sasl.enabled.mechanisms", "SCRAM-SHA-512".to_owned()),
        ("scram-sha-512.sasl.jaas.config", login.to_owned()),
    ];
    let lines = settings.map(|(name, value)| format!("listener.name.secure.{name}={value}"));
    lines.join("\n")
}
