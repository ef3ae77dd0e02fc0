//! The librdkafka properties that a user may not set, each with the reason and what to do instead.

const CURSOR: &str = "refused: the cursor in Postgres is the truth, and offsets go to Kafka only after the commit. There is nothing to set instead";
const START: &str = "refused: a missing offset halts the partition instead of jumping. Where a new partition begins is `start` of its [[topics]]";
const PRODUCER: &str = "refused: outcomes are published idempotently, with acks=all and in order, whatever happens. There is nothing to set instead";
const EXPIRY: &str = "refused: an outcome never expires, because librdkafka would send the later ones first. There is nothing to set instead";
const LINGER: &str = "refused: outcomes already come in batches, so waiting for more would only delay whoever awaits them. There is nothing to set instead";
const REPORTS: &str = "refused: the published offset moves by delivery reports, so every one of them is needed. There is nothing to set instead";
const PARTITION: &str = "refused: an outcome goes to the partition of its command. The producers' partitioner is `partitioner` of its [[topics]]";
const ASSIGNMENT: &str = "refused: the assignment is cooperative-sticky. For the broker's own assignment set \"group.protocol\" = \"consumer\"";
const EVENTS: &str = "refused: solewriter watches the ends of partitions itself. There is nothing to set instead";
const TOPICS: &str =
    "refused: a command topic is never made by accident; create it with the partition count that its producers use";
const TRANSACTIONS: &str =
    "refused: the commit is in Postgres, and outcomes need no Kafka transaction. There is nothing to set instead";
const LOADS_CODE: &str =
    "refused: it would load code into the worker. There is no way around it; TLS, SCRAM and zstd are built in";
const RUNS_PROGRAMS: &str =
    "refused: it would run a program as the worker. Use SASL SCRAM or mutual TLS, which are built in";
const UNSECURE: &str = "refused: unsigned tokens prove nothing. Use SASL SCRAM or mutual TLS, which are built in";

/// Names and librdkafka's aliases for them. A trailing `*` stands for any ending.
const REFUSED: [(&str, &str); 35] = [
    ("bootstrap.servers", "refused: set bootstrap_servers under [kafka]"),
    ("metadata.broker.list", "refused: set bootstrap_servers under [kafka]"),
    ("group.id", "refused: set group_id under [kafka]"),
    ("enable.auto.commit", CURSOR),
    ("auto.commit.enable", CURSOR),
    ("auto.commit.interval.ms", CURSOR),
    ("enable.auto.offset.store", CURSOR),
    ("offset.store.*", CURSOR),
    ("auto.offset.reset", START),
    (
        "isolation.level",
        "refused: only committed records are commands, so it is read_committed. There is nothing to set instead",
    ),
    ("partition.assignment.strategy", ASSIGNMENT),
    ("enable.idempotence", PRODUCER),
    ("enable.gapless.guarantee", PRODUCER),
    ("acks", PRODUCER),
    ("request.required.acks", PRODUCER),
    ("retries", PRODUCER),
    ("message.send.max.retries", PRODUCER),
    ("max.in.flight*", PRODUCER),
    ("queuing.strategy", PRODUCER),
    ("produce.offset.report", REPORTS),
    ("delivery.report.only.error", REPORTS),
    ("partitioner", PARTITION),
    ("linger.ms", LINGER),
    ("queue.buffering.max.ms", LINGER),
    ("message.timeout.ms", EXPIRY),
    ("delivery.timeout.ms", EXPIRY),
    ("transactional.id", TRANSACTIONS),
    ("enable.partition.eof", EVENTS),
    ("allow.auto.create.topics", TOPICS),
    ("plugin.library.paths", LOADS_CODE),
    ("interceptors", LOADS_CODE),
    ("ssl.engine.*", LOADS_CODE),
    ("ssl.providers", LOADS_CODE),
    ("sasl.kerberos.kinit.cmd", RUNS_PROGRAMS),
    ("enable.sasl.oauthbearer.unsecure.jwt", UNSECURE),
];

/// Why `name` is refused, or nothing if it is not.
pub(super) fn reason(name: &str) -> Option<&'static str> {
    // librdkafka cuts this prefix off properties of topics: `topic.acks` is `acks`.
    let name = name.strip_prefix("topic.").unwrap_or(name);
    let matches = |pattern: &str| match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    };
    REFUSED.iter().find(|(pattern, _)| matches(pattern)).map(|(_, reason)| *reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_gives_its_reason_and_what_to_do() {
        for (name, reason) in REFUSED {
            assert!(reason.starts_with("refused: "), "{name}");
            assert!(reason.len() > "refused: ".len() + 20, "{name}");
        }
    }

    #[test]
    fn an_alias_or_a_prefix_does_not_get_past_a_refusal() {
        for name in ["delivery.timeout.ms", "topic.acks", "request.required.acks"] {
            assert!(reason(name).is_some(), "{name}");
        }
        assert!(reason("max.in.flight.requests.per.connection").is_some());
        assert!(reason("ssl.engine.location").is_some());
    }

    #[test]
    fn what_concerns_only_the_connection_is_allowed() {
        for name in ["session.timeout.ms", "client.rack", "ssl.ca.location", "topic.metadata.refresh.interval.ms"] {
            assert_eq!(reason(name), None, "{name}");
        }
    }
}
