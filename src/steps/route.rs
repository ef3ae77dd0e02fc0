//! Step 2, route: a record's key must hash to the partition that it came from.
//!
//! Two producers that hash one key differently, or partitions added to a live
//! topic, put one entity on two partitions, that is under two writers. Nothing
//! else in Kafka notices. (Java hashes with murmur2, librdkafka by default with
//! CRC-32, Sarama with FNV-1a: librdkafka's CONFIGURATION.md, `partitioner`.)

mod producer;

pub(crate) use self::producer::producer_of;
use super::Rules;
use crate::command::Command;
use crate::config::Partitioner;
use crate::dead_letter::{DeadCode, DeadLetter};

/// What no partitioner of ours would have chosen.
pub(crate) const UNKNOWN_PARTITIONER: &str = "none that is known: random or explicit";

impl Partitioner {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Murmur2, "murmur2 (the Java client, librdkafka's murmur2_random)"),
        (Self::Crc32, "crc32 (librdkafka's default)"),
        (Self::Fnv1a, "fnv1a (Sarama, librdkafka's fnv1a_random)"),
    ];

    /// The partition of a key among `partition_count`.
    pub fn partition(self, key: &[u8], partition_count: i32) -> i32 {
        let count = partition_count.max(1).unsigned_abs();
        let hash = match self {
            Self::Murmur2 => murmur2::murmur2(key, murmur2::KAFKA_SEED) & 0x7fff_ffff,
            Self::Crc32 => crc32fast::hash(key),
            Self::Fnv1a => fnv1a(key),
        };
        (hash % count) as i32
    }

    /// The names of all partitioners that would have chosen this partition.
    pub fn candidates(key: &[u8], partition: i32, partition_count: i32) -> Vec<&'static str> {
        let chooses = |(p, _): &&(Self, &str)| p.partition(key, partition_count) == partition;
        Self::ALL.iter().filter(chooses).map(|(_, name)| *name).collect()
    }
}

/// FNV-1a as librdkafka computes it (rdfnv1a.c): 32 bits, made positive.
fn fnv1a(key: &[u8]) -> u32 {
    let hash = key.iter().fold(0x811C_9DC5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    (hash as i32).unsigned_abs()
}

/// Passes a command that is on its own partition.
///
/// # Errors
/// Dead `misrouted`, which names the partitioner that the producer seems to use, and the producer, if
/// a header does.
pub fn route(command: Command, rules: &Rules) -> Result<Command, Box<DeadLetter>> {
    let key = command.record.key().unwrap_or_default();
    let expected = rules.partitioner.partition(key, rules.partition_count);
    if expected == rules.source.partition {
        return Ok(command);
    }
    let seems = Partitioner::candidates(key, rules.source.partition, rules.partition_count);
    let seems = if seems.is_empty() { UNKNOWN_PARTITIONER.to_owned() } else { seems.join(" or ") };
    let named = producer_of(&command.record).map(|named| format!("; its headers say {named}"));
    let detail = format!(
        "the key belongs on partition {expected} of {}; the producer's partitioner seems to be {seems}{}",
        rules.partition_count,
        named.unwrap_or_default()
    );
    Err(Box::new(command.dead((DeadCode::Misrouted, detail))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers, produced with librdkafka: key TT0124, 15 partitions.
    #[test]
    fn hashes_agree_with_the_clients() {
        assert_eq!(Partitioner::Murmur2.partition(b"TT0124", 15), 10);
        assert_eq!(Partitioner::Crc32.partition(b"TT0124", 15), 9);
        assert_eq!(Partitioner::Fnv1a.partition(b"TT0124", 15), 2);
    }

    #[test]
    fn a_misrouted_key_names_the_partitioner_in_use() {
        assert_eq!(Partitioner::candidates(b"TT0124", 9, 15), ["crc32 (librdkafka's default)"]);
        assert!(Partitioner::candidates(b"TT0124", 0, 15).is_empty());
    }
}
