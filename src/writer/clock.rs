//! The database's clock, as the writer knows it between answers.

use std::time::Instant;

/// What the database's clock last said, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct DatabaseClock {
    read_ms: i64,
    at: Instant,
}

impl DatabaseClock {
    pub fn read(database_time_ms: i64) -> Self {
        Self { read_ms: database_time_ms, at: Instant::now() }
    }

    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        self.read_ms + i64::try_from(self.at.elapsed().as_millis()).unwrap_or(i64::MAX / 2)
    }
}
