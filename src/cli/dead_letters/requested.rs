//! What is requested of letters and not done yet.

use std::collections::HashSet;

use crate::dead_letter::LetterState;
use crate::postgres::{Store, StoredLetter};

/// A parked key: topic, home, entity id.
pub(super) type ParkedKey = (String, i32, String);

/// The parked key that a letter belongs to.
pub(super) fn key_of(letter: &StoredLetter) -> Option<ParkedKey> {
    let parked = LetterState::parse(&letter.state).is_some_and(LetterState::holds_its_key);
    letter.entity_id.clone().filter(|_| parked).map(|key| (letter.topic.clone(), letter.home, key))
}

/// The open requests.
pub(super) struct Requested {
    letters: HashSet<i64>,
    keys: HashSet<ParkedKey>,
}

impl Requested {
    pub(super) async fn now(store: &Store) -> anyhow::Result<Self> {
        let (mut letters, mut keys) = (HashSet::new(), HashSet::new());
        for (topic, home, letter, key) in store.requested_already().await? {
            letters.extend(letter);
            keys.extend(key.map(|key| (topic, home, key)));
        }
        Ok(Self { letters, keys })
    }

    /// Whether something is requested of this letter by itself.
    pub(super) fn has_letter(&self, letter: &StoredLetter) -> bool {
        self.letters.contains(&letter.dead_letter_id)
    }

    /// Whether something is requested of a parked key.
    pub(super) fn has_key(&self, key: Option<&ParkedKey>) -> bool {
        key.is_some_and(|key| self.keys.contains(key))
    }
}
