//! The search for an entity's commands.
//!
//! No index leads from an entity to its commands: it would cost each of them more than asking costs.
//! So the idempotency table is looked through day by day, the newest first, until there are enough
//! or the time is up; the answer says how far it got.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::SCAN_TIMEOUT;
use crate::horizon::FUTURE_MS_MAX;
use crate::outcome::{FinalOutcome, rfc3339};
use crate::postgres::{self, EntityQuery, Ids, Refusal, Store, StoredLetter};

const DAY_MS: i64 = 24 * 3_600_000;

/// With a `--since`, ids are looked for that were made up to a day before their record: an upstream
/// may have kept them for a while.
const MADE_BEFORE_MAX_MS: i64 = DAY_MS;

/// What was found, and why it is not all.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    pub(super) outcomes: Vec<FinalOutcome>,
    pub(super) letters: Vec<StoredLetter>,
    pub(super) cut: Option<String>,
}

/// Of the last `since`, or of all time.
pub(super) async fn search(
    store: &Store,
    entity_type: &str,
    entity_id: &str,
    since: Option<Duration>,
    commands_max: u32,
) -> postgres::Result<Timeline> {
    let horizon = store.horizon().await?;
    let now_ms = horizon.database_time_ms;
    let since_ms = since.map_or(0, |since| now_ms - i64::try_from(since.as_millis()).unwrap_or(now_ms)).max(0);
    let query = EntityQuery { entity_type, entity_id, since_ms, rows_max: i64::from(commands_max) };
    let mut search = Search { store, query, found: Timeline::default(), deadline: Instant::now() + SCAN_TIMEOUT };
    // below the horizon days are dropped
    let days = days(now_ms + FUTURE_MS_MAX, horizon.at_ms.max(since_ms - MADE_BEFORE_MAX_MS).min(now_ms));
    let untimed = std::iter::once((Ids::Untimed, now_ms));
    for (ids, to_ms) in untimed.chain(days.map(|(from, to)| (Ids::Made(from, to), to))) {
        if search.look(ids, to_ms).await?.is_break() {
            break;
        }
    }
    search.letters().await?;
    Ok(search.found)
}

/// From the day that holds `newest_ms` down to the one that holds `oldest_ms`.
fn days(newest_ms: i64, oldest_ms: i64) -> impl Iterator<Item = (i64, i64)> {
    let (newest, oldest) = (newest_ms.div_euclid(DAY_MS), oldest_ms.div_euclid(DAY_MS));
    (oldest..=newest).rev().map(|day| (day * DAY_MS, (day + 1) * DAY_MS))
}

struct Search<'a> {
    store: &'a Store,
    query: EntityQuery<'a>,
    found: Timeline,
    deadline: Instant,
}

impl Search<'_> {
    fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Looks through one day of ids; breaks when the search is over.
    async fn look(&mut self, ids: Ids, to_ms: i64) -> postgres::Result<ControlFlow<()>> {
        let outcomes = self.store.outcomes_of_entity(&self.query, ids, self.time_left()).await;
        match unless_timed_out(outcomes)? {
            Some(outcomes) => self.found.outcomes.extend(outcomes),
            None => {
                self.found.cut = Some(format!(
                    "the search ended after {SCAN_TIMEOUT:?}: commands with ids made before {} are missing; name a \
                     shorter --since, or a smaller --limit",
                    rfc3339(to_ms)
                ));
                return Ok(ControlFlow::Break(()));
            }
        }
        let enough = i64::try_from(self.found.outcomes.len()).is_ok_and(|found| found >= self.query.rows_max);
        // ids without a time may be of any day
        if enough && ids != Ids::Untimed {
            let rows_max = self.query.rows_max;
            self.found.cut = Some(format!("only the newest {rows_max} are shown: there may be older ones (--limit)"));
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    }

    async fn letters(&mut self) -> postgres::Result<()> {
        let letters = self.store.dead_letters_of_entity(&self.query, self.time_left().max(SCAN_TIMEOUT / 2)).await;
        match unless_timed_out(letters)? {
            Some(letters) => self.found.letters = letters,
            None => {
                let cut = "dead letters are missing: to look through them took too long; name a shorter --since";
                self.found.cut = Some(cut.to_owned());
            }
        }
        Ok(())
    }
}

/// A scan that was cancelled has found nothing; anything else is a failure.
fn unless_timed_out<T>(scanned: postgres::Result<T>) -> postgres::Result<Option<T>> {
    match scanned {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.refusal(), Some(Refusal::TimedOut(_))) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_looked_through_from_the_newest() {
        let found: Vec<_> = days(2 * DAY_MS + 5, DAY_MS - 1).collect();
        assert_eq!(found, [(2 * DAY_MS, 3 * DAY_MS), (DAY_MS, 2 * DAY_MS), (0, DAY_MS)]);
    }
}
