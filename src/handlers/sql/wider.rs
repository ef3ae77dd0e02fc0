//! Of two types that a parameter seems to have, the one that is meant.

/// Later ones hold the values of earlier ones.
const NUMBERS: [&str; 6] = ["smallint", "integer", "bigint", "numeric", "real", "double precision"];
/// Those that hold any text, with no difference to who compares or stores it.
const TEXTS: [&str; 2] = ["text", "character varying"];

pub(super) fn is_text(name: &str) -> bool {
    TEXTS.contains(&name)
}

/// The one of two types that is more likely to be meant in both places.
pub(super) fn wider<'t>(there: &'t str, here: &'t str) -> &'t str {
    let rank = |name: &str| NUMBERS.iter().position(|number| *number == name);
    match (rank(there), rank(here)) {
        (Some(a), Some(b)) if a > b => there,
        // text is what a parameter is of which its use says nothing
        _ if is_text(here) => there,
        _ => here,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_types_the_wider_one_is_advised() {
        assert_eq!(wider("bigint", "numeric"), "numeric");
        assert_eq!(wider("numeric", "integer"), "numeric");
        assert_eq!(wider("integer", "bigint"), "bigint");
        assert_eq!(wider("uuid", "text"), "uuid");
        assert_eq!(wider("text", "uuid"), "uuid");
    }
}
