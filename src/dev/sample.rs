//! Sample traffic: what a program's own `dev` sends, and what must hold at the end.

use std::collections::HashSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// One sample command.
#[derive(Clone, Debug)]
pub struct Sample {
    pub(super) entity_id: String,
    pub(super) command_type: String,
    pub(super) data: Vec<u8>,
    pub(super) adds: i64,
}

impl Sample {
    /// A command of this type to this entity.
    ///
    /// # Panics
    /// If JSON cannot hold `data`: a mistake in the program.
    pub fn new(entity_id: impl Into<String>, command_type: impl Into<String>, data: &impl Serialize) -> Self {
        let data = serde_json::to_vec(data).expect("a sample command is JSON");
        let (entity_id, command_type) = (entity_id.into(), command_type.into());
        Self { entity_id, command_type, data, adds: 0 }
    }

    /// If it is applied, it adds this much to what all entities together hold.
    #[must_use]
    pub fn adds(self, amount: i64) -> Self {
        Self { adds: amount, ..self }
    }
}

/// What sample commands are made with.
#[derive(Debug, Default)]
pub struct Sampler {
    random: fastrand::Rng,
    known: HashSet<String>,
}

impl Sampler {
    /// A random number of this range.
    ///
    /// # Panics
    /// If the range is empty.
    pub fn number(&mut self, range: RangeInclusive<i64>) -> i64 {
        self.random.i64(range)
    }

    /// Whether nobody has asked about this entity before: the time to open it.
    pub fn is_new(&mut self, entity_id: &str) -> bool {
        self.known.insert(entity_id.to_owned())
    }
}

type Next = dyn Fn(&mut Sampler) -> Sample + Send + Sync;
type ReadState = dyn Fn(&str) -> Result<i64, String> + Send + Sync;

/// Where it stands how much an entity holds of what the commands add.
#[derive(Clone)]
pub(super) enum Holds {
    /// In its state.
    State(Arc<ReadState>),
    /// In a team's table: a query that returns ids (text) and what each entity holds (bigint).
    Query(&'static str),
}

/// The sample traffic of one entity type, with the state's type erased.
#[derive(Clone)]
pub(crate) struct SampleTraffic {
    pub(crate) entity_type: Arc<str>,
    /// Makes the next command.
    pub(super) next: Arc<Next>,
    /// What an entity holds.
    pub(super) holds: Holds,
    /// What the sum is called.
    pub(crate) words: Words,
}

/// What is shown of the invariant: `held` 42 = 42 `added`.
#[derive(Clone, Debug)]
pub(crate) struct Words {
    pub(crate) held: String,
    pub(crate) added: String,
}

impl SampleTraffic {
    pub(crate) fn new<E: DeserializeOwned>(
        entity_type: &str,
        next: impl Fn(&mut Sampler) -> Sample + Send + Sync + 'static,
        holds: impl Fn(&E) -> i64 + Send + Sync + 'static,
    ) -> Self {
        let holds = move |state: &str| match serde_json::from_str(state) {
            Ok(state) => Ok(holds(&state)),
            Err(error) => Err(error.to_string()),
        };
        let words = Words { held: format!("{entity_type}: held"), added: "added by applied commands".to_owned() };
        Self { entity_type: entity_type.into(), next: Arc::new(next), holds: Holds::State(Arc::new(holds)), words }
    }

    /// Of commands in SQL: `query` says what an entity holds.
    pub(super) fn in_sql(
        entity_type: &str,
        next: impl Fn(&mut Sampler) -> Sample + Send + Sync + 'static,
        query: &'static str,
        words: Words,
    ) -> Self {
        Self { entity_type: entity_type.into(), next: Arc::new(next), holds: Holds::Query(query), words }
    }
}

impl fmt::Debug for SampleTraffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SampleTraffic").field(&self.entity_type).finish()
    }
}
