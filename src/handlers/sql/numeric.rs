//! The limits of Postgres's `numeric`, judged on the digits as they are written.

/// Digits before the decimal point.
const WHOLE_DIGITS_MAX: i64 = 131_072;
/// Digits after it, zeros too.
const FRACTION_DIGITS_MAX: i64 = 16_383;
/// Postgres reads no larger exponent, even of zero.
const EXPONENT_MAX: i64 = i32::MAX as i64 / 2 - 1;

/// Whether `numeric` can hold a JSON number.
pub(super) fn fits(number: &str) -> bool {
    let number = number.strip_prefix('-').unwrap_or(number);
    let (digits, exponent) = match number.split_once(['e', 'E']) {
        Some((digits, exponent)) => (digits, exponent.parse().ok().filter(|e: &i64| e.abs() <= EXPONENT_MAX)),
        None => (number, Some(0)),
    };
    let Some(exponent) = exponent else { return false };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let length = |digits: &str| i64::try_from(digits.len()).unwrap_or(i64::MAX / 2);
    if length(fraction) - exponent > FRACTION_DIGITS_MAX {
        return false;
    }
    let leading_zeros = whole.bytes().chain(fraction.bytes()).position(|digit| digit != b'0');
    // zero has no digits before the point, however far that is moved
    leading_zeros.is_none_or(|zeros| length(whole) - i64::try_from(zeros).unwrap_or(0) + exponent <= WHOLE_DIGITS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_of_numeric_are_kept_to_the_digit() {
        for good in [
            "0",
            "-0",
            "70.00",
            "1e131071",
            "9.99E+131071",
            "0.0001e131075",
            "1e-16383",
            "0e400000",
            "-0.5e-16382",
            &"9".repeat(131_072),
            &format!("0.{}", "1".repeat(16_383)),
        ] {
            assert!(fits(good), "{good:.40}");
        }
        for bad in [
            "1e131072",
            "1e400000",
            "10e131071",
            "1e-16384",
            "0e-16384",
            "1.0e-16383",
            "1e99999999999999999999",
            "1e-99999999999999999999",
            "0e9999999999",
            &"9".repeat(131_073),
            &format!("0.{}", "0".repeat(16_384)),
        ] {
            assert!(!fits(bad), "{bad:.40}");
        }
    }
}
