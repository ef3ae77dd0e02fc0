//! The horizon: ids older than it are refused, so that none is ever run twice.
//!
//! A UUIDv7 carries its time. Ids above the horizon are remembered; an id below
//! it that is not found is refused as `expired`. Then a day of the idempotency
//! table that lies below the horizon can be dropped without a duplicate ever
//! being taken for new.
//!
//! What may raise it: a *look* is (database time, then the log's end). Once
//! everything below that end is settled and published, nothing that was in the
//! log at that time is still to come, so the partition's *log time* is the
//! look's time. The horizon is the smallest log time (or the database's clock)
//! less the window. No producer's clock takes part, and days without a worker,
//! a broker or a database expire nothing, as log times do not move meanwhile.

use uuid::Uuid;

/// A day: 24 hours.
pub const DAY_MS: i64 = 24 * 3_600_000;

/// An id further ahead of the database's clock than this is refused: 24 hours.
pub const FUTURE_MS_MAX: i64 = DAY_MS;

/// How far the horizon moves in one pass of the maintenance duty: one day.
pub const STEP_MS_MAX: i64 = DAY_MS;

/// The two clocks may differ by this much before the horizon stands still: 5 minutes.
pub const CLOCK_SKEW_MS_MAX: i64 = 5 * 60_000;

/// The days of these ids, each once, as the times at which they begin: milliseconds since 1970. What settled ids are
/// kept by; ids without a time have none.
pub fn days_of(ids: impl Iterator<Item = Uuid>) -> Vec<i64> {
    let mut days: Vec<i64> = ids.filter_map(|id| id_time_ms(&id)).map(|time_ms| time_ms - time_ms % DAY_MS).collect();
    days.sort_unstable();
    days.dedup();
    days
}

/// The time of a UUIDv7 in milliseconds since 1970; `None` for other versions.
pub fn id_time_ms(id: &Uuid) -> Option<i64> {
    if id.get_version_num() != 7 {
        return None;
    }
    let mut bytes = [0; 8];
    bytes[2..].copy_from_slice(&id.as_bytes()[..6]);
    Some(i64::from_be_bytes(bytes))
}

/// Where the horizon stands, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Horizon(pub i64);

impl Horizon {
    /// Whether an id is too old to be remembered. Ids without a time never are.
    pub fn is_below(self, id: &Uuid) -> bool {
        id_time_ms(id).is_some_and(|time| time < self.0)
    }
}

/// Whether an id lies further ahead than a wrong clock explains.
pub fn is_from_future(id: &Uuid, database_time_ms: i64) -> bool {
    id_time_ms(id).is_some_and(|time| time > database_time_ms + FUTURE_MS_MAX)
}

/// What the maintenance duty knows when it considers raising the horizon. All
/// times in milliseconds since 1970.
#[derive(Clone, Debug)]
pub struct Pass {
    /// Where the horizon stands.
    pub horizon_ms: i64,
    /// The database's clock.
    pub database_time_ms: i64,
    /// This worker's clock: only ever holds the horizon back.
    pub worker_time_ms: i64,
    /// The log time of every partition of every topic; `None` was never looked at.
    pub log_times_ms: Vec<Option<i64>>,
    /// How long ids are remembered.
    pub window_ms: i64,
}

/// What a pass of the maintenance duty decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Raise {
    /// The horizon moves up to this time.
    To(i64),
    /// Nothing to do.
    Stay,
    /// The database's clock and the worker's differ too much to trust either.
    ClocksDiffer {
        /// By how much, in milliseconds.
        by_ms: i64,
    },
}

/// Where the horizon goes: never down, at most a day up, never past what is
/// still to come.
pub fn raise(pass: &Pass) -> Raise {
    let by_ms = pass.database_time_ms - pass.worker_time_ms;
    if by_ms.abs() > CLOCK_SKEW_MS_MAX {
        return Raise::ClocksDiffer { by_ms };
    }
    let mut oldest = pass.database_time_ms;
    for log_time in &pass.log_times_ms {
        match log_time {
            Some(time) => oldest = oldest.min(*time),
            None => return Raise::Stay,
        }
    }
    let target = (oldest - pass.window_ms).min(pass.horizon_ms + STEP_MS_MAX);
    if target > pass.horizon_ms { Raise::To(target) } else { Raise::Stay }
}

/// A look at a log: all that was in it at `database_time_ms` lies below `end_offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The database's clock, read before the broker was asked.
    pub database_time_ms: i64,
    /// The log's end (the high watermark, not the last stable offset).
    pub end_offset: i64,
}

/// The looks of one partition. Holds one that waits to be satisfied and the
/// newest after it, so that a partition with lag advances too.
#[derive(Clone, Debug, Default)]
pub struct Looks {
    waiting: Option<Look>,
    newest: Option<Look>,
}

impl Looks {
    /// Takes a new look into account.
    pub fn looked(&mut self, look: Look) {
        if self.waiting.is_none() {
            self.waiting = Some(look);
        } else {
            self.newest = Some(look);
        }
    }

    /// The log time that `published_offset` now proves, if it proves a newer one.
    pub fn satisfied(&mut self, published_offset: i64) -> Option<i64> {
        let mut log_time = None;
        while let Some(look) = self.waiting.filter(|look| look.end_offset <= published_offset) {
            log_time = Some(look.database_time_ms);
            self.waiting = self.newest.take();
        }
        log_time
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: i64 = DAY_MS;

    fn v7(time_ms: i64) -> Uuid {
        let mut bytes = [0xab; 16];
        bytes[..6].copy_from_slice(&time_ms.to_be_bytes()[2..]);
        bytes[6] = 0x7b;
        bytes[8] = 0x8b;
        Uuid::from_bytes(bytes)
    }

    fn pass(horizon_ms: i64, now: i64, log_times_ms: Vec<Option<i64>>) -> Pass {
        Pass { horizon_ms, database_time_ms: now, worker_time_ms: now, log_times_ms, window_ms: 7 * DAY }
    }

    #[test]
    fn ten_days_of_downtime_expire_nothing() {
        let stopped = 100 * DAY;
        let after = pass(stopped - 7 * DAY, stopped + 10 * DAY, vec![Some(stopped), Some(stopped)]);
        assert_eq!(raise(&after), Raise::Stay);
    }

    #[test]
    fn a_partition_never_looked_at_holds_the_horizon() {
        assert_eq!(raise(&pass(0, 100 * DAY, vec![Some(100 * DAY), None])), Raise::Stay);
    }

    #[test]
    fn clocks_that_differ_hold_the_horizon() {
        let mut pass = pass(0, 100 * DAY, vec![Some(100 * DAY)]);
        pass.worker_time_ms -= CLOCK_SKEW_MS_MAX + 1;
        assert_eq!(raise(&pass), Raise::ClocksDiffer { by_ms: CLOCK_SKEW_MS_MAX + 1 });
    }

    #[test]
    fn other_versions_of_ids_never_expire_and_are_never_from_the_future() {
        let v4 = Uuid::from_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x4f, 0xff, 0xbf, 0, 0, 0, 0, 0, 0, 1]);
        assert!(!Horizon(i64::MAX).is_below(&v4) && !is_from_future(&v4, 0));
    }

    #[test]
    fn a_log_time_waits_until_its_look_is_published() {
        let mut looks = Looks::default();
        looks.looked(Look { database_time_ms: 1, end_offset: 10 });
        looks.looked(Look { database_time_ms: 2, end_offset: 30 });
        looks.looked(Look { database_time_ms: 3, end_offset: 20 });
        assert_eq!(looks.satisfied(9), None);
        assert_eq!(looks.satisfied(10), Some(1));
        assert_eq!(looks.satisfied(20), Some(3));
        assert_eq!(looks.satisfied(1000), None);
    }

    proptest! {
        #[test]
        fn the_horizon_never_falls_nor_leaps_nor_passes_what_is_to_come(
            horizon in 0..200 * DAY, now in 0..200 * DAY,
            logs in prop::collection::vec(prop::option::of(0..200 * DAY), 0..5),
        ) {
            if let Raise::To(to) = raise(&pass(horizon, now, logs.clone())) {
                prop_assert!(to > horizon && to <= horizon + DAY && to <= now - 7 * DAY);
                prop_assert!(logs.iter().all(|log| log.is_some_and(|log| to <= log - 7 * DAY)));
            }
        }

        #[test]
        fn an_id_is_below_the_horizon_exactly_if_it_is_older(time in 0..1i64 << 47, horizon in 0..1i64 << 47) {
            prop_assert_eq!(id_time_ms(&v7(time)), Some(time));
            prop_assert_eq!(Horizon(horizon).is_below(&v7(time)), time < horizon);
        }
    }
}
