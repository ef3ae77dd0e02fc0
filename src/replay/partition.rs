//! A claimed partition of a shadow: what is decided about its commands is settled there as a writer settles it in the
//! live tables.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::ReplayError;
use crate::cursor::{Cursor, Published};
use crate::dead_letter::DeadCode;
use crate::halt::Halt;
use crate::parked_keys::ParkedKeys;
use crate::postgres::{self, ClaimRequest, Progress, Refusal, Refused, Store};
use crate::steps::Rules;
use crate::steps::commit::{Durable, Running, Settled, Settlement};
use crate::steps::decide::{Caution, Decision, Judgement};
use crate::steps::fence::Claimed;
use crate::writer::backoff;
use crate::writer::batch::Batch;
use crate::writer::batch_size::BatchSize;
use crate::writer::cache::Cache;
use crate::writer::judged::{delivery_of, judgements};

/// Records that are read, and commands that are settled, at a time.
pub(super) const CHUNK_RECORDS_MAX: usize = 2_000;
/// A shadow that does not answer is asked again for so long, at most so far apart.
const PATIENCE: Duration = Duration::from_secs(60);
const WAIT_MAX: Duration = Duration::from_secs(2);

/// One task owns it.
pub(super) struct ShadowPartition {
    pub shadow: Store,
    pub rules: Rules,
    pub claimed: Claimed,
    pub cursor: Cursor,
    pub cache: Cache,
    /// Commands that are settled at a time.
    pub batch_size: BatchSize,
    type_ids: Arc<dyn Fn(&str) -> i16 + Send + Sync>,
}

/// A partition as its claim found it.
pub(super) struct Begun {
    pub partition: ShadowPartition,
    /// The keys that are parked there.
    pub parked: ParkedKeys,
    /// The halt that is in force: code and detail.
    pub halted: Option<(String, String)>,
}

impl ShadowPartition {
    /// Claims it, as a worker does.
    ///
    /// # Errors
    /// If the shadow refuses, or somebody else has removed the partition.
    pub async fn claim(
        shadow: &Store,
        rules: Rules,
        request: &ClaimRequest<'_>,
        cache_entries_max: NonZeroUsize,
    ) -> Result<Begun, ReplayError> {
        let source = &rules.source;
        let names = rules.handlers.command_names();
        let names: Vec<&str> = names.iter().map(|name| &**name).collect();
        let numbered = shadow.number_command_types(&source.topic, &rules.handlers.entity_type, &names).await;
        let numbered = numbered.map_err(ReplayError::Shadow)?;
        let row = shadow.claim(request).await.map_err(ReplayError::Shadow)?;
        let row = row.ok_or_else(|| ReplayError::Disturbed(source.clone(), "its row is gone".to_owned()))?;
        let partition = Self {
            shadow: shadow.clone(),
            rules,
            claimed: row.claimed,
            cursor: row.cursor,
            cache: Cache::new(cache_entries_max),
            batch_size: BatchSize::new(CHUNK_RECORDS_MAX, CHUNK_RECORDS_MAX),
            type_ids: Arc::new(move |name| {
                numbered.iter().find(|row| row.command_type == name).map_or(0, |row| row.type_id)
            }),
        };
        Ok(Begun { partition, parked: row.parked, halted: row.halted })
    }

    /// Halts it, as a writer does.
    ///
    /// # Errors
    /// If the shadow does not answer, or is written by somebody else.
    pub async fn halt(&mut self, halt: &Halt) -> Result<(), ReplayError> {
        let halted = self.shadow.halt(&self.claimed, halt).await.map_err(ReplayError::Shadow)?;
        let disturbed = || ReplayError::Disturbed(self.rules.source.clone(), "its claim is stale".to_owned());
        self.claimed = halted.ok_or_else(disturbed)?;
        Ok(())
    }

    /// Settles a decision; days that it needs are made. A decision about one command alone is sent again where others
    /// are decided again in smaller batches. `None`, with the refusal: there is something to be decided otherwise.
    ///
    /// # Errors
    /// If the shadow does not answer for a minute, or is written by somebody else.
    pub async fn settle(
        &mut self,
        decision: &Arc<Decision>,
        is_alone: bool,
    ) -> Result<Result<Durable, Refusal>, ReplayError> {
        let (cursor, rules) = (self.cursor, &self.rules);
        let settlement = Settlement {
            claimed: self.claimed.clone(),
            cursor,
            decision_id: Uuid::new_v4(),
            entity_type: rules.handlers.entity_type.clone(),
            decision: decision.clone(),
            // who raises is named at once: a subtransaction for each batch is nothing that lasts
            running: Running::of(decision, rules, true),
        };
        let published = Published { batch_seq: cursor.batch_seq, next_offset: cursor.next_offset };
        let progress = Progress { published, log_time_ms: None };
        let (mut waits, began) = (backoff(WAIT_MAX), Instant::now());
        let settling = loop {
            match self.shadow.settle(&settlement, progress, &*self.type_ids).await {
                Ok(settling) => break settling,
                Err(postgres::Error::Refused(Refusal::DayMissing)) => {
                    self.shadow.make_days_of(decision.final_ids()).await.map_err(ReplayError::Shadow)?;
                    self.shadow.set_unlogged().await.map_err(ReplayError::Shadow)?;
                }
                // sent again as it is: its decision id tells whether an earlier sending was heard
                Err(error) if is_passing(&error, is_alone) && began.elapsed() < PATIENCE => {
                    tracing::warn!(source = %rules.source, %error, "the shadow database: sent again");
                    tokio::time::sleep(waits.next().unwrap_or(WAIT_MAX)).await;
                }
                Err(postgres::Error::Refused(refusal)) => return Ok(Err(refusal)),
                Err(error) => return Err(ReplayError::Shadow(error)),
            }
        };
        match settlement.answered(settling.answer) {
            Settled::Durable(durable) => {
                self.cursor = durable.cursor();
                Ok(Ok(durable))
            }
            other => Err(ReplayError::Disturbed(rules.source.clone(), format!("{other:?}"))),
        }
    }

    /// What a refusal means for deciding the same batch again: what only the database could tell, or a smaller one.
    ///
    /// # Errors
    /// If nothing can be decided otherwise.
    pub fn refused(
        &mut self,
        refusal: Refusal,
        batch: &Batch,
        decision: &Decision,
        caution: &mut Caution,
    ) -> Result<(), ReplayError> {
        let count = batch.items.len();
        self.forget(decision);
        match refusal {
            Refusal::Judged(refused) => self.judged(decision, refused, caution),
            Refusal::Data(why) => {
                match batch.items.as_slice() {
                    [item] => {
                        let dead = Judgement::Dead(DeadCode::DataError, why);
                        caution.judged.insert(delivery_of(item), dead);
                    }
                    // it belongs to one of them, which is found alone
                    items => self.batch_size.halve(items.len()),
                }
                Ok(())
            }
            Refusal::Contended(_) | Refusal::TimedOut(_) if count > 1 => {
                self.batch_size.collided(count);
                Ok(())
            }
            refusal => Err(ReplayError::Shadow(refusal.into())),
        }
    }

    /// Entities that a refused decision has changed are as they were.
    pub fn forget(&mut self, decision: &Decision) {
        self.cache.forget(decision.entities.iter().map(|change| &change.entity_id));
    }

    fn judged(&self, decision: &Decision, refused: Vec<Refused>, caution: &mut Caution) -> Result<(), ReplayError> {
        let mut is_new = false;
        for (delivery, judgement) in judgements(&self.rules.handlers, decision, refused) {
            is_new |= caution.judged.insert(delivery, judgement.clone()) != Some(judgement);
        }
        // or it would be decided alike for ever
        let again = || ReplayError::Halts("the database refuses what it has refused before".to_owned());
        is_new.then_some(()).ok_or_else(again)
    }
}

/// Whether the same settlement is sent again: one that took too long, or met others, only if it cannot be made smaller.
fn is_passing(error: &postgres::Error, is_alone: bool) -> bool {
    match error {
        postgres::Error::Unavailable { .. } => true,
        postgres::Error::Refused(Refusal::Contended(_) | Refusal::TimedOut(_)) => is_alone,
        postgres::Error::Refused(_) => false,
    }
}
