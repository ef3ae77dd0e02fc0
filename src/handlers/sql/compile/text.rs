//! Pieces of SQL text that are safe to put together.

use crate::handlers::sql::typed::Relation;

/// A string literal, whatever `standard_conforming_strings` says.
pub(crate) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// An identifier in quotes.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Relation {
    /// As a statement names it.
    pub(crate) fn quoted(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.name))
    }
}

/// A name that needs no quotes, for the eye.
pub(super) fn identifier(name: &str, bytes_max: usize) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    name.chars().map(legal).take(bytes_max).collect()
}

/// A dollar quote that the text does not contain.
pub(super) fn dollar_tag(text: &str) -> String {
    let tags = std::iter::once(String::new()).chain((1..).map(|n: u32| n.to_string()));
    let mut tags = tags.map(|n| format!("$solewriter{n}$"));
    tags.find(|tag| !text.contains(tag.as_str())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_cannot_be_left() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\'; drop"), r"E'a\\''; drop'");
    }

    #[test]
    fn a_body_cannot_end_its_own_quotes() {
        assert_eq!(dollar_tag("select 1"), "$solewriter$");
        assert_eq!(dollar_tag("select $solewriter$x$solewriter$"), "$solewriter1$");
    }
}
