//! What a writer remembers between batches: states of its entities and ids that
//! it settled lately. The partition is its own, so what it remembers is right
//! unless a foreign writer interferes; and every commit checks the versions.
//! Forgotten at every claim.

use std::collections::{HashSet, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use uuid::Uuid;

use crate::handlers::State;
use crate::steps::decide::{Entities, Entity};

/// How many ids a writer remembers, so that a quick repeat is looked up before
/// the commit refuses it. A count: 8 bytes each, about 1 MiB in all.
const RECENT_IDS_MAX: usize = 32_768;

/// An entity as the last decision left it.
struct Cached {
    version: Option<i64>,
    state: Result<Box<dyn State>, String>,
}

/// States of entities, least recently used last.
pub(crate) struct Cache {
    entities: LruCache<Arc<str>, Cached>,
}

impl Cache {
    pub fn new(entries_max: NonZeroUsize) -> Self {
        // grown on demand: most partitions stay far below the limit
        let mut entities = LruCache::unbounded();
        entities.resize(entries_max);
        Self { entities }
    }

    /// Takes an entity out, to work on it.
    pub fn take(&mut self, entity_id: &str) -> Option<(Arc<str>, Entity)> {
        let (id, cached) = self.entities.pop_entry(entity_id)?;
        let version = cached.version.unwrap_or(0);
        Some((id, Entity { base: cached.version, version, state: cached.state }))
    }

    /// Puts entities back as the decision left them.
    pub fn put_back(&mut self, entities: Entities) {
        for (id, entity) in entities {
            let version = if entity.version > 0 { Some(entity.version) } else { entity.base };
            self.entities.put(id, Cached { version, state: entity.state });
        }
    }

    /// Forgets entities whose decision did not commit.
    pub fn forget<'a>(&mut self, entity_ids: impl Iterator<Item = &'a Arc<str>>) {
        for id in entity_ids {
            self.entities.pop(&**id);
        }
    }
}

/// Ids settled lately.
#[derive(Default)]
pub(super) struct RecentIds {
    set: HashSet<u64>,
    order: VecDeque<u64>,
}

impl RecentIds {
    /// Half of an id tells it well enough: a false alarm costs one look-up.
    fn short(id: &Uuid) -> u64 {
        id.as_u64_pair().1
    }

    pub fn contains(&self, id: &Uuid) -> bool {
        self.set.contains(&Self::short(id))
    }

    pub fn insert(&mut self, id: &Uuid) {
        if !self.set.insert(Self::short(id)) {
            return;
        }
        self.order.push_back(Self::short(id));
        if self.order.len() > RECENT_IDS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_ids_are_forgotten_first() {
        let mut recent = RecentIds::default();
        for n in 0..=RECENT_IDS_MAX as u128 {
            recent.insert(&Uuid::from_u128(n));
        }
        assert!(!recent.contains(&Uuid::from_u128(0)) && recent.contains(&Uuid::from_u128(1)));
        assert_eq!(recent.set.len(), RECENT_IDS_MAX);
    }
}
