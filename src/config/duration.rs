//! Durations as people write them: `"20s"`, `"7d"`, `"1h 30m"`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de};

use super::error::Invalid;

/// Below this Postgres rounds a time-out to 0, which turns it off.
pub(super) const DURATION_MIN: Duration = Duration::from_millis(1);

/// Above this a time-out is a typo, and Postgres's limit of 2^31 ms is near.
pub(super) const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&text(*value))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text)
        .map_err(|error| de::Error::custom(format!("{text:?} is not a duration such as \"20s\" or \"7d\": {error}")))
}

/// The whole value in the largest unit that divides it, as the reference file writes it.
pub(super) fn text(value: Duration) -> String {
    const UNITS: [(u128, &str); 5] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
    let millis = value.as_millis();
    let exact = value.subsec_nanos().is_multiple_of(1_000_000);
    let unit = UNITS.iter().find(|(size, _)| millis > 0 && millis.is_multiple_of(*size));
    match unit {
        Some((size, unit)) if exact => format!("{}{unit}", millis / size),
        _ => humantime::format_duration(value).to_string(),
    }
}

/// Refuses what is shorter than `min` or longer than `max`, both allowed themselves.
pub(super) fn within(key: &str, value: Duration, min: Duration, max: Duration) -> Result<(), Invalid> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    let [value, min, max] = [value, min, max].map(text);
    Err(Invalid::new(key, format!("{value} is not between {min} and {max}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_written_in_its_largest_whole_unit() {
        let written = [604_800, 5_400, 20].map(|seconds| text(Duration::from_secs(seconds)));
        assert_eq!(written, ["7d", "90m", "20s"]);
        assert_eq!(text(Duration::from_millis(1_500)), "1500ms");
        assert_eq!(text(Duration::ZERO), "0s");
    }

    #[test]
    fn what_is_written_reads_back_as_the_same_duration() {
        for value in [1, 999, 1_000, 61_000, 90_000_000].map(Duration::from_millis) {
            assert_eq!(humantime::parse_duration(&text(value)).ok(), Some(value));
        }
    }
}
