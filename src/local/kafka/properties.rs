//! `server.properties` of the one broker.

use std::path::Path;

use super::{Ports, Secure};

/// What makes one broker a whole cluster. All else is as Kafka ships it.
const ALONE: &[(&str, &str)] = &[
    ("process.roles", "broker,controller"),
    ("node.id", "1"),
    ("controller.listener.names", "CONTROLLER"),
    ("inter.broker.listener.name", "PLAIN"),
    ("listener.security.protocol.map", "PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL"),
    // A topic that nobody made shall be an error, as in production.
    ("auto.create.topics.enable", "false"),
    ("offsets.topic.num.partitions", "1"),
    ("offsets.topic.replication.factor", "1"),
    ("transaction.state.log.num.partitions", "1"),
    ("transaction.state.log.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("share.coordinator.state.topic.num.partitions", "1"),
    ("share.coordinator.state.topic.replication.factor", "1"),
    ("share.coordinator.state.topic.min.isr", "1"),
];

/// A later line of the same name wins in Java's properties, so what the caller asks for stands last.
pub(super) fn text(directory: &Path, ports: Ports, secure: Option<&Secure>, wanted: &[(String, String)]) -> String {
    let mut lines: Vec<_> = ALONE.iter().map(|(name, value)| format!("{name}={value}")).collect();
    lines.push(format!("log.dirs={}", directory.join("log").display()));
    lines.push(format!("controller.quorum.voters=1@127.0.0.1:{}", ports.controller));
    let second = secure.map(|_| format!("SECURE://127.0.0.1:{}", ports.secure));
    let clients = [Some(format!("PLAIN://127.0.0.1:{}", ports.plain)), second];
    let clients = clients.into_iter().flatten().collect::<Vec<_>>().join(",");
    lines.push(format!("listeners={clients},CONTROLLER://127.0.0.1:{}", ports.controller));
    lines.push(format!("advertised.listeners={clients}"));
    lines.extend(secure.map(secure_listener));
    lines.extend(wanted.iter().map(|(name, value)| format!("{name}={value}")));
    lines.join("\n")
}

fn secure_listener(secure: &Secure) -> String {
    let login = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    let settings = [
        ("ssl.keystore.type", "PEM".to_owned()),
        ("ssl.keystore.location", secure.keystore.display().to_string()),
        ("sasl.enabled.mechanisms", "SCRAM-SHA-512".to_owned()),
        ("scram-sha-512.sasl.jaas.config", login.to_owned()),
    ];
    let lines = settings.map(|(name, value)| format!("listener.name.secure.{name}={value}"));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: Ports = Ports { plain: 1, controller: 2, secure: 3 };

    #[test]
    fn what_is_asked_for_stands_after_what_is_chosen_here() {
        let wanted = [("offsets.topic.num.partitions".to_owned(), "50".to_owned())];
        let text = text(Path::new("/data"), PORTS, None, &wanted);
        let mut said = text.lines().filter(|line| line.starts_with("offsets.topic.num.partitions="));
        assert_eq!(said.next_back(), Some("offsets.topic.num.partitions=50"));
        assert_eq!(said.count(), 1);
    }

    #[test]
    fn there_is_an_encrypted_listener_only_where_it_is_asked_for() {
        let keystore = "/keys.pem".into();
        let secure = Secure { keystore, user: "alice".to_owned(), password: "secret".to_owned() };
        let listeners = |secure| {
            let text = text(Path::new("/data"), PORTS, secure, &[]);
            text.lines().find_map(|line| line.strip_prefix("listeners=").map(str::to_owned))
        };
        let plain = listeners(None).expect("listens");
        assert_eq!(plain, "PLAIN://127.0.0.1:1,CONTROLLER://127.0.0.1:2");
        let both = listeners(Some(&secure)).expect("listens");
        assert_eq!(both, "PLAIN://127.0.0.1:1,SECURE://127.0.0.1:3,CONTROLLER://127.0.0.1:2");
    }
}
