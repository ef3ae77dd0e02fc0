//! Reads what a batch needs before it is decided: entities that are not cached,
//! outcomes of ids that may be settled.

use std::collections::HashMap;
use std::sync::Arc;

use uuid::Uuid;

use super::batch::Batch;
use super::cache::{Cache, RecentIds};
use crate::command::Command;
use crate::handlers::Handler;
use crate::horizon::Horizon;
use crate::outcome::FinalOutcome;
use crate::postgres::{Refusal, Result, Store, StoredEntity};
use crate::steps::Rules;
use crate::steps::decide::{Decision, Entities, Entity};
use crate::steps::fence::Claimed;

/// The outcomes of ids of this batch that are settled, as far as that can be
/// suspected: ids settled lately or below the horizon, or all of them.
pub(super) async fn known_outcomes(
    batch: &Batch,
    store: &Store,
    in_flight: Option<&Decision>,
    suspects: Suspects<'_>,
) -> Result<HashMap<Uuid, Arc<FinalOutcome>>> {
    let mut known = HashMap::new();
    // the batch before is about to commit: this one is sent only if it does
    for outcome in in_flight.into_iter().flat_map(|decision| &decision.outcomes) {
        known.insert(outcome.delivery.command_id, outcome.clone());
    }
    let look_up: Vec<Uuid> =
        batch.ids().filter(|id| !known.contains_key(*id) && suspects.include(id)).copied().collect();
    known.extend(store.outcomes_of(&look_up).await?);
    Ok(known)
}

/// Which ids are looked up before the batch is decided.
#[derive(Clone, Copy)]
pub(super) struct Suspects<'a> {
    pub all: bool,
    pub recent: &'a RecentIds,
    pub horizon: Horizon,
}

impl Suspects<'_> {
    fn include(&self, id: &Uuid) -> bool {
        self.all || self.recent.contains(id) || self.horizon.is_below(id)
    }
}

/// The entities of a batch: out of the cache, else from the database.
///
/// # Errors
/// [`Refusal::WrongHome`] if one lives on another partition, [`Refusal::Fenced`]
/// if the claim is stale.
pub(crate) async fn entities(
    batch: &Batch,
    cache: &mut Cache,
    store: &Store,
    rules: &Rules,
    claimed: &Claimed,
) -> Result<Entities> {
    let mut entities = Entities::with_capacity(batch.items.len().min(1024));
    let mut missing: Vec<&str> = Vec::new();
    let in_rust = |command: &&Command| matches!(command.command_type.handler, Handler::Rust(_));
    for command in batch.items.iter().flatten().filter(in_rust) {
        let id = command.entity_id();
        if entities.contains_key(id) {
            continue;
        }
        let (id, entity) = cache.take(id).unwrap_or_else(|| {
            missing.push(id);
            (id.into(), Entity { base: None, version: 0, state: Ok(rules.handlers.initial()) })
        });
        entities.insert(id, entity);
    }
    let stored = store.entities(claimed, &rules.handlers.entity_type, &missing).await?;
    for stored in stored.ok_or(Refusal::Fenced)? {
        check_home(&stored, rules)?;
        if let Some(entity) = entities.get_mut(&*stored.entity_id) {
            *entity = decoded(stored, rules);
        }
    }
    Ok(entities)
}

fn decoded(stored: StoredEntity, rules: &Rules) -> Entity {
    let state = match &stored.state {
        Some(state) => rules.handlers.decode(state),
        None => Err("its state belongs to SQL commands".into()),
    };
    Entity { base: Some(stored.version), version: stored.version, state }
}

fn check_home(stored: &StoredEntity, rules: &Rules) -> Result<()> {
    if *stored.topic == *rules.source.topic && stored.partition == rules.source.partition {
        return Ok(());
    }
    Err(Refusal::WrongHome(format!(
        "entity {} {:?} lives on {}:{}, its commands come on {}",
        rules.handlers.entity_type, stored.entity_id, stored.topic, stored.partition, rules.source
    ))
    .into())
}
