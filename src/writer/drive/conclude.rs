//! What the database's answer to a settlement means, and what follows: steps 7
//! and 8 if it is durable, deciding again if it was refused, the end if the
//! claim is stale.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::{CAREFUL_BATCHES, Decided, Ended, InFlight, Step, Writer, halt_for};
use crate::dead_letter::DeadCode;
use crate::postgres::{Refusal, Settling};
use crate::steps::acknowledge::acknowledge;
use crate::steps::commit::{Durable, Held, Settled};
use crate::steps::decide::{Decision, Judgement, Settles};
use crate::steps::fence;
use crate::telemetry::metrics;
use crate::writer::batch::Batch;
use crate::writer::clock::DatabaseClock;
use crate::writer::judged::{delivery_of, judgements};
use crate::writer::report;

impl Writer<'_> {
    /// What the database answered: true if the batch is durable.
    pub(super) async fn conclude(&mut self, mut in_flight: InFlight) -> Step<bool> {
        in_flight.finished().await;
        let InFlight { decided, settlement, answer, started, .. } = in_flight;
        let settling = match answer.flatten() {
            Some(Ok(settling)) => settling,
            Some(Err(refusal)) => return self.refused(decided, refusal).await.map(|()| false),
            None if self.stop.revoked.is_cancelled() => return Err(Ended::Stopped),
            None => return Err(Ended::Fenced),
        };
        metrics::batch(decided.batch.items.len(), started.elapsed());
        let Settling { answer, database_time_ms } = settling;
        self.clock = DatabaseClock::read(database_time_ms);
        match settlement.answered(answer) {
            Settled::Durable(durable) => self.durable(decided, durable).await.map(|()| true),
            Settled::Fenced(held) => Err(self.fenced(held)),
            Settled::Superseded(held) => self.superseded(decided, held).await.map(|()| false),
            Settled::Behind(held) => Err(self.behind(held)),
            Settled::Halted => Err(Ended::Poked),
        }
    }

    /// Steps 7 and 8.
    pub(super) async fn durable(&mut self, decided: Decided, durable: Durable) -> Step<()> {
        self.cursor = durable.cursor();
        self.partition.oldest_unsettled(None);
        self.partition.witnessed(self.claim.row.claimed.token(), self.cursor);
        report::settled(&self.rules, &durable, self.clock.now_ms());
        self.partition.worker.consumer.acknowledge(acknowledge(&durable));
        self.publisher.publish(durable);
        let Decided { batch, decision } = decided;
        self.lane.give_back(batch.size_bytes());
        self.again.settled();
        self.batch_size.settled(batch.items.len());
        if decision.runs_in_database() {
            self.careful_batches = self.careful_batches.saturating_sub(1);
        }
        self.parked = decision.parked.clone();
        self.partition.gauges.parked(&self.parked);
        match &decision.settles {
            Settles::Log { .. } => match self.flood.settled(&decision) {
                Ok(()) => Ok(()),
                Err(halt) => Err(self.halted_at_last(halt).await),
            },
            Settles::Letters(changes) => {
                self.needs_room = false;
                self.refuse(&changes.refused).await
            }
        }
    }

    /// A stale claim: remembered only in what was decided on it.
    pub(super) fn fenced(&self, held: Held) -> Ended {
        metrics::fenced();
        let claimed = &self.claim.row.claimed;
        tracing::warn!(source = %self.partition.source, token = %claimed.token(), held = %held.token, "fenced: nothing was written");
        match fence::check_not_behind(self.partition.witness(), held.token, held.cursor, self.claim.row.accepted_offset)
        {
            Ok(()) => Ended::Fenced,
            // the next claim will see the same, and record it under its own token
            Err(_) => Ended::Poked,
        }
    }

    /// The claim stands, the history below it does not: nobody else owns the
    /// partition, so this is no fence. The next claim finds the reason to halt.
    pub(super) fn behind(&self, held: Held) -> Ended {
        tracing::warn!(source = %self.partition.source, next_offset = held.cursor.next_offset, expected = self.cursor.next_offset, "the database holds another history: nothing was written");
        Ended::Poked
    }

    /// An earlier attempt won: what it decided is published, not this.
    pub(super) async fn superseded(&mut self, decided: Decided, held: Held) -> Step<()> {
        tracing::warn!(source = %self.partition.source, next_offset = held.cursor.next_offset, "an earlier attempt had committed");
        self.forget(&decided.decision);
        self.partition.witnessed(self.claim.row.claimed.token(), held.cursor);
        self.cursor = held.cursor;
        self.publisher.publish_through(held.cursor);
        self.parked = self.parked_keys().await?;
        if decided.batch.is_of_letters() {
            // what it has left is requested still
            return Ok(());
        }
        self.again.push_front(decided.batch);
        let settled_bytes = self.again.drop_below(held.cursor.next_offset);
        self.lane.give_back(settled_bytes);
        Ok(())
    }

    /// The database refused, and undid everything: decide again, differently.
    pub(super) async fn refused(&mut self, decided: Decided, refusal: Refusal) -> Step<()> {
        let Decided { batch, decision } = decided;
        tracing::debug!(source = %self.partition.source, %refusal, commands = batch.items.len(), "decided again");
        self.forget(&decision);
        match refusal {
            Refusal::Duplicate => self.again.look_up_all = true,
            // its letters may be somebody else's doing: they are read again
            Refusal::Conflict if batch.is_of_letters() => {
                self.pause().await;
                return Ok(());
            }
            Refusal::Conflict => self.pause().await,
            Refusal::BelowHorizon => {
                self.partition.worker.look_at_horizon();
                self.pause().await;
            }
            Refusal::Contended(_) => {
                self.batch_size.collided(batch.items.len());
                self.pause().await;
            }
            Refusal::TimedOut(why) => {
                self.batch_size.collided(batch.items.len());
                self.timed_out(&batch, &decision, why)?;
                self.pause().await;
            }
            // found by name, not by trial; a name that does not exist may be a value of one of them
            Refusal::Data(_) | Refusal::Broken(_) if decision.runs_in_database() && self.careful_batches == 0 => {
                self.careful_batches = CAREFUL_BATCHES;
            }
            Refusal::Parked => return Err(Ended::Poked),
            Refusal::Judged(refused) => {
                self.again.caution.judged.extend(judgements(&self.rules.handlers, &decision, refused));
            }
            Refusal::Data(why) => self.narrow(&batch, why),
            refusal => return Err(Ended::Halted(halt_for(refusal))),
        }
        self.again.push_front(batch);
        Ok(())
    }

    /// Lets whoever it collided with finish: some ten milliseconds, with jitter.
    pub(super) async fn pause(&mut self) {
        tokio::select! {
            () = self.stop.revoked.cancelled() => {}
            () = tokio::time::sleep(Duration::from_millis(fastrand::u64(5..40))) => {}
        }
    }

    /// A handler in Rust waits for nobody, so its command is never condemned for a lock that
    /// somebody else holds. A command in SQL may wait for long on its own account.
    fn timed_out(&mut self, batch: &Batch, decision: &Decision, why: String) -> Step<()> {
        let [item] = batch.items.as_slice() else { return Ok(()) };
        if !decision.runs_in_database() {
            return Ok(());
        }
        let delivery = delivery_of(item);
        let since = match self.again.timed_out {
            Some((before, since)) if before == delivery => since,
            _ => {
                self.again.timed_out = Some((delivery, Instant::now()));
                return Ok(());
            }
        };
        let waited = since.elapsed();
        if waited < self.partition.worker.limits.timed_out_retry_max {
            return Ok(());
        }
        let why = format!("its statements timed out for {} s: {why}", waited.as_secs());
        self.condemn(delivery, DeadCode::HandlerFailed, why);
        Ok(())
    }

    fn condemn(&mut self, delivery: (i64, Uuid), code: DeadCode, why: String) {
        self.again.caution.judged.insert(delivery, Judgement::Dead(code, why));
    }

    /// A value that the database does not take belongs to one command: halve the
    /// batch until that one is alone, then condemn it.
    pub(super) fn narrow(&mut self, batch: &Batch, why: String) {
        match batch.items.as_slice() {
            [item] => self.condemn(delivery_of(item), DeadCode::DataError, why),
            items => self.batch_size.halve(items.len()),
        }
    }

    pub(super) fn forget(&mut self, decision: &Decision) {
        self.cache.forget(decision.entities.iter().map(|entity| &entity.entity_id));
    }
}
