//! An entity's versions: 1, 2, 3 and so on, one for each applied command. Values only.

use std::collections::{HashMap, HashSet};

use super::Difference;
use crate::postgres::{EntityState, SettledCommand};

/// Whom a command was for.
pub(super) fn entity(row: &SettledCommand) -> (&str, &str) {
    (&row.entity_type, &row.entity_id)
}

/// Versions without gaps: as many different ones, up to the entity's own, as commands were applied.
pub(super) fn check_versions(settled: &[SettledCommand], entities: &[EntityState]) -> Result<(), Difference> {
    let mut versions: HashMap<(&str, &str), HashSet<i64>> = HashMap::new();
    let mut applied: HashMap<(&str, &str), i64> = HashMap::new();
    for row in settled.iter().filter(|row| row.applied) {
        *applied.entry(entity(row)).or_default() += 1;
        versions.entry(entity(row)).or_default().insert(row.version);
    }
    for EntityState { entity_type, entity_id, version, .. } in entities {
        let key = (entity_type.as_str(), entity_id.as_str());
        let count = applied.remove(&key).unwrap_or(0);
        let gapless = versions.get(&key).is_none_or(|found| (1..=*version).all(|v| found.contains(&v)));
        if count != *version || !gapless {
            let (entity_type, entity_id) = (entity_type.clone(), entity_id.clone());
            return Err(Difference::Version { entity_type, entity_id, version: *version, applied: count });
        }
    }
    match applied.into_iter().next() {
        Some(((entity_type, entity_id), applied)) => {
            let (entity_type, entity_id) = (entity_type.to_owned(), entity_id.to_owned());
            Err(Difference::Version { entity_type, entity_id, version: 0, applied })
        }
        None => Ok(()),
    }
}
