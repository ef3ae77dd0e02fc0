//! The invariant, in large letters.

use super::words::grouped;
use crate::dev::board::Shown;

/// `SUM OF BALANCES  1,234 = 1,234  DEPOSITED`
pub(super) fn line(Shown { held_words, held, added, added_words }: &Shown) -> String {
    let sign = if held == added { "=" } else { "≠" };
    let (held_words, added_words) = (held_words.to_uppercase(), added_words.to_uppercase());
    format!("{held_words}  {} {sign} {}  {added_words}", grouped(*held), grouped(*added))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_no_equation() {
        let words = |held: &str, added: &str| (held.to_owned(), added.to_owned());
        let (held_words, added_words) = words("sum of balances", "deposited");
        let mut shown = Shown { held_words, held: 1_234, added: 1_234, added_words };
        assert_eq!(line(&shown), "SUM OF BALANCES  1,234 = 1,234  DEPOSITED");
        shown.held = 1_235;
        assert_eq!(line(&shown), "SUM OF BALANCES  1,235 ≠ 1,234  DEPOSITED");
    }
}
