//! Settling in a shadow, as a writer settles in the live tables.

use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::cursor::{Cursor, Published};
use crate::horizon;
use crate::postgres::{self, Progress, Refusal, Store};
use crate::steps::Rules;
use crate::steps::commit::{Durable, Running, Settled, Settlement};
use crate::steps::decide::Decision;
use crate::steps::fence::Claimed;
use crate::writer::backoff;

/// A shadow that does not answer is asked again for so long, at most so far apart.
const PATIENCE: Duration = Duration::from_secs(60);
const WAIT_MAX: Duration = Duration::from_secs(2);

/// A decision is not settled.
#[derive(Debug)]
pub(super) enum Unsettled {
    /// The shadow refuses: there is something to be decided otherwise, or it cannot be used.
    Refused(postgres::Error),
    /// Somebody else writes it.
    Disturbed(String),
}

/// Settles a decision about a partition of `shadow`; days that it needs are made. A decision about one command alone is
/// sent again where others are decided again in smaller batches.
///
/// # Errors
/// If the shadow refuses, does not answer for a minute, or is written by somebody else.
pub(super) async fn settle(
    shadow: &Store,
    claimed: &Claimed,
    cursor: Cursor,
    rules: &Rules,
    decision: &std::sync::Arc<Decision>,
    type_ids: &(dyn Fn(&str) -> i16 + Send + Sync),
    is_alone: bool,
) -> Result<Durable, Unsettled> {
    let settlement = Settlement {
        claimed: claimed.clone(),
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
        match shadow.settle(&settlement, progress, type_ids).await {
            Ok(settling) => break settling,
            Err(postgres::Error::Refused(Refusal::DayMissing)) => {
                make_days(shadow, decision).await.map_err(Unsettled::Refused)?;
            }
            // sent again as it is: its decision id tells whether an earlier sending was heard
            Err(error) if is_passing(&error, is_alone) && began.elapsed() < PATIENCE => {
                tracing::warn!(source = %rules.source, %error, "the shadow database: sent again");
                tokio::time::sleep(waits.next().unwrap_or(WAIT_MAX)).await;
            }
            Err(error) => return Err(Unsettled::Refused(error)),
        }
    };
    match settlement.answered(settling.answer) {
        Settled::Durable(durable) => Ok(durable),
        other => Err(Unsettled::Disturbed(format!("{other:?}"))),
    }
}

async fn make_days(shadow: &Store, decision: &Decision) -> postgres::Result<()> {
    let days = decision.final_ids().filter_map(|id| horizon::id_time_ms(&id));
    let mut days: Vec<i64> = days.map(|time_ms| time_ms - time_ms % horizon::STEP_MS_MAX).collect();
    days.sort_unstable();
    days.dedup();
    for day in days {
        shadow.make_day(day).await?;
    }
    Ok(())
}

/// Whether the same settlement is sent again: one that took too long, or met others, only if it cannot be made smaller.
fn is_passing(error: &postgres::Error, is_alone: bool) -> bool {
    match error {
        postgres::Error::Unavailable { .. } => true,
        postgres::Error::Refused(Refusal::Contended(_) | Refusal::TimedOut(_)) => is_alone,
        postgres::Error::Refused(_) => false,
    }
}
