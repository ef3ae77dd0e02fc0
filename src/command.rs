//! A command: what an upstream service asks of one entity.

use std::ops::Range;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::handlers::CommandType;
use crate::record::Record;

/// What makes two deliveries the same command: the first 16 bytes of a SHA-256
/// over entity type, key, command type and the exact bytes of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    /// The fingerprint of a command. Lengths are hashed too, so that no two
    /// different commands concatenate to the same bytes.
    pub fn of(entity_type: &str, key: &[u8], command_type: &str, data: Option<&[u8]>) -> Self {
        let mut hasher = Sha256::new();
        for part in [Some(entity_type.as_bytes()), Some(key), Some(command_type.as_bytes()), data] {
            hasher.update(part.map_or(-1, |p| p.len() as i64).to_le_bytes());
            hasher.update(part.unwrap_or_default());
        }
        let mut first = [0; 16];
        first.copy_from_slice(&hasher.finalize()[..16]);
        Self(first)
    }
}

/// A record whose envelope could be read: it has an id, a known type and a key.
/// Its payload is still bytes; the handler's type judges it.
#[derive(Clone, Debug)]
pub struct Command {
    /// The command id: an idempotency key, made once by the upstream.
    pub id: Uuid,
    /// Its type, with the handler.
    pub command_type: Arc<CommandType>,
    /// See [`Fingerprint`].
    pub fingerprint: Fingerprint,
    /// W3C trace context, carried over to the outcome.
    pub traceparent: Option<String>,
    /// The data's place in the record's value; `None` if there is no data.
    pub data: Option<Range<usize>>,
    /// The record as received.
    pub record: Record,
}

impl Command {
    /// The entity's id: the record's key.
    pub fn entity_id(&self) -> &str {
        // receive has checked it: a command without a readable key is none
        self.record.key().and_then(|key| std::str::from_utf8(key).ok()).unwrap_or_default()
    }

    /// The payload's bytes.
    pub fn data(&self) -> Option<&[u8]> {
        let value = self.record.value()?;
        self.data.clone().and_then(|range| value.get(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_covers_type_key_and_exact_bytes() {
        let base = Fingerprint::of("account", b"a", "account.open", Some(b"{}"));
        assert_eq!(base, Fingerprint::of("account", b"a", "account.open", Some(b"{}")));
        for other in [
            Fingerprint::of("accoun", b"ta", "account.open", Some(b"{}")),
            Fingerprint::of("account", b"b", "account.open", Some(b"{}")),
            Fingerprint::of("account", b"a", "account.close", Some(b"{}")),
            Fingerprint::of("account", b"a", "account.open", Some(b"{ }")),
            Fingerprint::of("account", b"a", "account.open", None),
        ] {
            assert_ne!(base, other);
        }
    }
}
