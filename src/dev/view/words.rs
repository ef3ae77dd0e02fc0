//! Numbers and durations as people read them.

/// 1234567 as `1,234,567`.
pub(super) fn grouped(number: impl Into<i128>) -> String {
    let number = number.into();
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 zombie`, `2 zombies`.
pub(super) fn counted(number: impl Into<i128>, noun: &str) -> String {
    let number = number.into();
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(number))
}

/// Three digits with a unit: `640 µs`, `12.3 ms`, `2.95 s`; a dash where nothing was measured.
pub(super) fn latency(micros: Option<u64>) -> String {
    let Some(micros) = micros else {
        return "-".to_owned();
    };
    // below 2^52, as no wait lasts a century
    let ms = micros as f64 / 1e3;
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..99_950 => format!("{ms:.1} ms"),
        99_950..999_500 => format!("{ms:.0} ms"),
        _ => format!("{:.2} s", ms / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        let numbers = [(0, "0"), (999, "999"), (1_000, "1,000"), (-1_234_567, "-1,234,567"), (-999, "-999")];
        for (number, text) in numbers {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn one_thing_is_singular() {
        assert_eq!([counted(1, "claim"), counted(0, "claim")], ["1 claim", "0 claims"]);
    }

    #[test]
    fn a_latency_has_three_digits_at_most() {
        let latencies = [(640, "640 µs"), (12_340, "12.3 ms"), (99_960, "100 ms"), (2_951_000, "2.95 s")];
        for (micros, text) in latencies {
            assert_eq!(latency(Some(micros)), text);
        }
        assert_eq!(latency(None), "-");
    }
}
