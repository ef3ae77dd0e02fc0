//! The tests' own broker settings.

/// What makes one small broker start and rebalance quickly.
const QUICK: &[(&str, &str)] = &[
    ("group.initial.rebalance.delay.ms", "0"),
    ("group.min.session.timeout.ms", "1000"),
    ("group.consumer.heartbeat.interval.ms", "1000"),
    ("group.consumer.min.heartbeat.interval.ms", "500"),
    ("group.consumer.min.session.timeout.ms", "1000"),
    // A broker that was killed may come back when the controller has given its last life up.
    ("broker.session.timeout.ms", "3000"),
    ("broker.heartbeat.interval.ms", "500"),
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

/// The last setting of a name counts, so what the test asks for stands last.
pub fn with(wanted: Vec<(String, String)>) -> Vec<(String, String)> {
    let quick = QUICK.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    quick.chain(wanted).collect()
}
