//! `expect`: how many rows a step returns or writes.

use std::fmt;

/// A row count that a step expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expect {
    /// At least so many rows.
    pub least: u32,
    /// At most so many rows; `None`: any number.
    pub most: Option<u32>,
}

impl Expect {
    /// Any number of rows.
    pub const ANY: Self = Self { least: 0, most: None };

    /// Exactly so many rows.
    #[must_use]
    pub const fn exactly(count: u32) -> Self {
        Self { least: count, most: Some(count) }
    }

    /// `"0..1"`, `">=1"`; `None` for anything else.
    #[must_use]
    pub fn range(text: &str) -> Option<Self> {
        if let Some(least) = text.strip_prefix(">=") {
            return Some(Self { least: number(least.trim_start())?, most: None });
        }
        let (least, most) = text.split_once("..")?;
        let (least, most) = (number(least)?, number(most)?);
        (least <= most).then_some(Self { least, most: Some(most) })
    }

    /// Every number is expected, so nothing can be otherwise.
    #[must_use]
    pub fn is_any(self) -> bool {
        self == Self::ANY
    }

    /// At most one row can come, and one may: it can be taken with `into`.
    #[must_use]
    pub fn is_one_row(self) -> bool {
        self.most == Some(1)
    }
}

/// A sign would be a slip.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|_| !text.starts_with('+'))
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.least, self.most) {
            (0, None) => f.write_str("any number of rows"),
            (least, None) => write!(f, "{least} rows or more"),
            (1, Some(1)) => f.write_str("1 row"),
            (least, Some(most)) if least == most => write!(f, "{least} rows"),
            (least, Some(most)) => write!(f, "{least} to {most} rows"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_and_only_a_range() {
        assert_eq!(Expect::range("0..1"), Some(Expect { least: 0, most: Some(1) }));
        assert_eq!(Expect::range(">=1"), Some(Expect { least: 1, most: None }));
        assert_eq!(Expect::range(">= 2"), Some(Expect { least: 2, most: None }));
        assert_eq!(Expect::range(">=0"), Some(Expect::ANY));
        for bad in ["", "1", "any", "2..1", "1..", "..1", "-1..1", ">1", ">=", "+1..2", "0...1", "0..4294967296"] {
            assert_eq!(Expect::range(bad), None, "{bad}");
        }
    }
}
