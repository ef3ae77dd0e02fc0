//! The tokens of a statement with the bytes at which they begin and end: sqlparser counts lines and
//! columns in characters.

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Location, Token, Tokenizer};

/// A token and where it is.
#[derive(Debug)]
pub(super) struct Located {
    pub(super) token: Token,
    /// Its first byte.
    pub(super) at: usize,
    /// The byte after its last.
    pub(super) end: usize,
}

impl Located {
    /// White space or a comment.
    pub(super) fn is_blank(&self) -> bool {
        matches!(self.token, Token::Whitespace(_))
    }
}

/// What is no SQL at all: a string or a comment without its end.
#[derive(Debug)]
pub(super) struct Untokenizable {
    pub(super) at: usize,
    pub(super) why: String,
}

/// All tokens of `text`, blanks too; together they are the whole text.
pub(super) fn tokens(text: &str) -> Result<Vec<Located>, Untokenizable> {
    let mut cursor = Cursor { text, at: 0, line: 1, column: 1 };
    // as it is written: what an escape stands for does not matter here
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text)
        .with_unescape(false)
        .tokenize_with_location()
        .map_err(|error| Untokenizable { at: cursor.advance(error.location), why: error.message })?;
    let mut located: Vec<Located> = Vec::with_capacity(tokens.len());
    for token in tokens {
        let at = cursor.advance(token.span.start);
        if let Some(before) = located.last_mut() {
            before.end = at;
        }
        located.push(Located { token: token.token, at, end: text.len() });
    }
    Ok(located)
}

/// Walks along a text once, from location to location.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
    line: u64,
    column: u64,
}

impl Cursor<'_> {
    fn advance(&mut self, to: Location) -> usize {
        for c in self.text[self.at..].chars() {
            if (self.line, self.column) >= (to.line, to.column) {
                break;
            }
            self.at += c.len_utf8();
            (self.line, self.column) = if c == '\n' { (self.line + 1, 1) } else { (self.line, self.column + 1) };
        }
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_lie_end_to_end_whatever_the_characters() {
        let text = "select 'é漢', \"ü\" -- ä\r\n\tfrom t/* 🦀 */where $$ 🦀\n $$ = E'\\n' and a::text = x";
        let tokens = tokens(text).unwrap();
        let together: String = tokens.iter().map(|token| &text[token.at..token.end]).collect();
        assert_eq!(together, text);
        let words: Vec<&str> =
            tokens.iter().filter(|t| matches!(t.token, Token::Word(_))).map(|t| &text[t.at..t.end]).collect();
        assert_eq!(words, ["select", "\"ü\"", "from", "t", "where", "and", "a", "text", "x"]);
    }

    #[test]
    fn a_string_without_its_end_is_found_where_it_begins() {
        let error = tokens("select 1,\n  'é oops").unwrap_err();
        assert_eq!(error.at, 12, "{error:?}");
    }
}
