//! A rejection: the business rule says no. Recorded, replied, never retried.

use std::borrow::Cow;

/// A business rule's no, with its code.
///
/// The code is checked when the program is compiled:
///
/// ```
/// use solewriter::Rejection;
/// const INSUFFICIENT_FUNDS: Rejection = Rejection::new("insufficient-funds");
/// let detailed = INSUFFICIENT_FUNDS.detail(format!("balance {} is less than {}", 20, 30));
/// assert_eq!(detailed.code(), "insufficient-funds");
/// ```
///
/// ```compile_fail
/// use solewriter::Rejection;
/// const INSUFFICIENT_FUNDS: Rejection = Rejection::new("Insufficient Funds");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    code: &'static str,
    detail: Option<Cow<'static, str>>,
}

impl Rejection {
    /// A rejection with this code: lower-case words joined by hyphens.
    ///
    /// # Panics
    /// On any other code; in a `const` that is a compile error.
    pub const fn new(code: &'static str) -> Self {
        assert!(is_kebab_case(code.as_bytes()), "a rejection's code is kebab-case: insufficient-funds");
        Self { code, detail: None }
    }

    /// The same, with an explanation for people.
    #[must_use]
    pub fn detail(self, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    /// The code.
    pub const fn code(&self) -> &'static str {
        self.code
    }

    pub(crate) fn into_detail(self) -> Option<Cow<'static, str>> {
        self.detail
    }
}

/// Whether this is a rejection's code: lower-case words joined by hyphens.
pub(crate) const fn is_kebab_case(code: &[u8]) -> bool {
    let mut previous = b'-';
    let mut i = 0;
    while i < code.len() {
        let c = code[i];
        let word = c.is_ascii_lowercase() || c.is_ascii_digit();
        if !(word || (c == b'-' && previous != b'-')) {
            return false;
        }
        previous = c;
        i += 1;
    }
    previous != b'-'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kebab_case_is_a_code() {
        for good in ["a", "insufficient-funds", "step-2"] {
            assert!(is_kebab_case(good.as_bytes()), "{good}");
        }
        for bad in ["", "-", "-a", "a-", "a--b", "A", "a_b", "é"] {
            assert!(!is_kebab_case(bad.as_bytes()), "{bad}");
        }
    }
}
