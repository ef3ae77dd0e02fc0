//! Parked keys: keys behind a dead letter, whose commands wait until the letters before them are
//! redriven or discarded.

use std::collections::HashMap;
use std::sync::Arc;

/// The parked keys of one partition, each with how many commands wait behind its first letter.
///
/// A value: a decision makes the next one, which counts once that decision is durable. Cheap to
/// clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParkedKeys {
    waiting: Arc<HashMap<Arc<str>, u64>>,
    waiting_in_all: u64,
}

impl ParkedKeys {
    /// Whether commands of this key wait.
    pub fn contains(&self, entity_id: &str) -> bool {
        self.waiting.contains_key(entity_id)
    }

    /// How many keys are parked.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no key is parked.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many commands of this key wait.
    pub fn waiting(&self, entity_id: &str) -> u64 {
        self.waiting.get(entity_id).copied().unwrap_or(0)
    }

    /// How many commands wait behind all keys.
    pub fn waiting_in_all(&self) -> u64 {
        self.waiting_in_all
    }

    /// Parks a key, if it is not parked.
    pub fn park(&mut self, entity_id: &str) {
        self.add(entity_id, 0);
    }

    /// So many more commands of this key wait.
    pub fn add(&mut self, entity_id: &str, waiting: u64) {
        *Arc::make_mut(&mut self.waiting).entry(entity_id.into()).or_default() += waiting;
        self.waiting_in_all += waiting;
    }

    /// One command of this key waits no more.
    pub fn remove_one(&mut self, entity_id: &str) {
        if let Some(waiting) = Arc::make_mut(&mut self.waiting).get_mut(entity_id)
            && *waiting > 0
        {
            *waiting -= 1;
            self.waiting_in_all -= 1;
        }
    }

    /// Nothing of this key waits any more: its next command runs.
    pub fn release(&mut self, entity_id: &str) {
        if let Some(waiting) = Arc::make_mut(&mut self.waiting).remove(entity_id) {
            self.waiting_in_all -= waiting;
        }
    }
}

impl FromIterator<(String, u64)> for ParkedKeys {
    fn from_iter<I: IntoIterator<Item = (String, u64)>>(keys: I) -> Self {
        let mut parked = Self::default();
        for (entity_id, waiting) in keys {
            parked.add(&entity_id, waiting);
        }
        parked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_counted_by_key_and_in_all_and_a_clone_is_another_value() {
        let before: ParkedKeys = [("a".to_owned(), 2), ("b".to_owned(), 1)].into_iter().collect();
        let mut after = before.clone();
        after.add("a", 1);
        after.park("c");
        after.remove_one("b");
        assert_eq!((after.waiting("a"), after.waiting("b"), after.waiting_in_all(), after.len()), (3, 0, 3, 3));
        after.release("a");
        assert!(!after.contains("a") && after.contains("b"));
        assert_eq!(after.waiting_in_all(), 0);
        assert_eq!((before.waiting_in_all(), before.len()), (3, 2));
    }
}
