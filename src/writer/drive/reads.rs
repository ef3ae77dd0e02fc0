//! What a batch reads before it is decided, tried again until it is answered.

use std::time::Duration;

use uuid::Uuid;

use super::{Ended, Step, TICK, Writer, halt_for, stale};
use crate::parked_keys::ParkedKeys;
use crate::postgres::{Error, Refusal};
use crate::steps::decide::{Decision, Entities, Settles};
use crate::steps::deduplicate::Deduplicator;
use crate::writer::backoff;
use crate::writer::batch::Batch;
use crate::writer::prefetch::{self, Suspects};

impl Writer<'_> {
    /// An outcome of an id that was settled before is refused by the commit's
    /// unique key; a dead letter has no such key. So before one stands, its id is
    /// looked up: a known id is a duplicate or `id-reuse`, whatever else is wrong.
    pub(super) async fn hides_a_settled_id(&mut self, decision: &Decision) -> Step<bool> {
        if matches!(decision.settles, Settles::Letters(_)) {
            return Ok(false);
        }
        let judged_late = decision.dead.iter().filter(|letter| letter.code.follows_look_up());
        let ids: Vec<Uuid> = judged_late.filter_map(|letter| letter.command_id).collect();
        if ids.is_empty() || self.again.look_up_all {
            return Ok(false);
        }
        let mut waits = backoff(self.partition.worker.limits.database_backoff_max);
        loop {
            match self.partition.worker.store.outcomes_of(&ids).await {
                Ok(known) => return Ok(!known.is_empty()),
                Err(error) => self.read_again(error, &mut waits).await?,
            }
        }
    }

    pub(super) async fn prefetch(
        &mut self,
        batch: &Batch,
        before: Option<&Decision>,
    ) -> Step<(Deduplicator, Entities)> {
        let store = &self.partition.worker.store;
        let mut waits = backoff(self.partition.worker.limits.database_backoff_max);
        loop {
            let horizon = self.partition.worker.horizon();
            let all = self.again.look_up_all || batch.is_of_letters();
            let suspects = Suspects { all, recent: &self.recent, horizon };
            let deciding = self.deciding;
            let read = async {
                if !deciding && !store.begin_deciding(&self.claim.row.claimed).await? {
                    return Err(Refusal::Fenced.into());
                }
                let known = prefetch::known_outcomes(batch, store, before, suspects).await?;
                let entities =
                    prefetch::entities(batch, &mut self.cache, store, &self.rules, &self.claim.row.claimed).await?;
                Ok::<_, Error>((Deduplicator::new(known, horizon, self.clock.now_ms()), entities))
            };
            let read = async {
                let unanswered = || Error::unanswered(self.partition.worker.limits.answer_wait_max);
                tokio::time::timeout(self.partition.worker.limits.answer_wait_max, read)
                    .await
                    .map_err(|_| unanswered())?
            };
            let read = tokio::select! {
                () = self.stop.revoked.cancelled() => return Err(Ended::Stopped),
                read = read => read,
            };
            match read {
                Ok(read) => {
                    self.deciding = true;
                    return Ok(read);
                }
                Err(error) => self.read_again(error, &mut waits).await?,
            }
        }
    }

    /// The parked keys, as another decision than this writer knows has left them.
    pub(super) async fn parked_keys(&mut self) -> Step<ParkedKeys> {
        let mut waits = backoff(self.partition.worker.limits.database_backoff_max);
        loop {
            match self.partition.worker.store.parked_keys(&self.partition.source).await {
                Ok(parked) => return Ok(parked),
                Err(error) => self.read_again(error, &mut waits).await?,
            }
        }
    }

    /// Waits before a read is tried again, if that can help.
    pub(super) async fn read_again(
        &mut self,
        error: Error,
        waits: &mut (impl Iterator<Item = Duration> + Send),
    ) -> Step<()> {
        match error {
            Error::Refused(Refusal::Fenced) => return Err(stale()),
            Error::Refused(refusal) if !matches!(refusal, Refusal::TimedOut(_) | Refusal::Contended(_)) => {
                return Err(Ended::Halted(halt_for(refusal)));
            }
            error => tracing::warn!(source = %self.partition.source, %error, "reading what the batch needs"),
        }
        tokio::select! {
            () = self.stop.revoked.cancelled() => Err(Ended::Stopped),
            () = tokio::time::sleep(waits.next().unwrap_or(TICK)) => Ok(()),
        }
    }
}
