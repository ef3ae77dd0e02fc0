//! `[deduplication]`: how long a command id is remembered.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration;
use super::error::Invalid;

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Under an hour the retries of an ordinary upstream would already be refused as expired.
const WINDOW_MIN: Duration = HOUR;

/// Ten years; more is a typo, and times before 1970 are near.
const WINDOW_MAX: Duration = DAY.saturating_mul(3_650);

/// The window of the horizon.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Deduplication {
    /// How long a command id is remembered, with its unit; an older id is refused, never run
    /// twice. At least 1h.
    #[serde(with = "duration")]
    #[schemars(with = "String")]
    pub window: Duration,
}

impl Default for Deduplication {
    fn default() -> Self {
        Self { window: DAY.saturating_mul(7) }
    }
}

impl Deduplication {
    /// The window in milliseconds.
    #[must_use]
    pub fn window_ms(&self) -> i64 {
        i64::try_from(self.window.as_millis()).unwrap_or(i64::MAX)
    }

    pub(super) fn validate(&self) -> Result<(), Invalid> {
        duration::within("deduplication.window", self.window, WINDOW_MIN, WINDOW_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_at_least_an_hour() {
        let window = |seconds| Deduplication { window: Duration::from_secs(seconds) };
        assert!(window(3_599).validate().is_err());
        assert!(window(3_600).validate().is_ok());
    }
}
