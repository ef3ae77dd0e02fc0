//! The identifiers and keywords of a statement.

use sqlparser::tokenizer::Token;

use super::tokens::Located;

/// An identifier or keyword of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Lower-case, unless it was quoted; without the quotes.
    pub text: String,
    /// The byte of the statement's text at which it begins.
    pub at: usize,
    /// It was written in double quotes: no keyword.
    pub quoted: bool,
    /// `(` follows: a function, if it is no keyword.
    pub called: bool,
    /// The word before it, if only a `.` is between them.
    pub qualifier: Option<String>,
}

/// The words among `tokens`, without those that are `skipped`; `start` is the byte at which the
/// statement begins.
pub(super) fn words(tokens: &[Located], start: usize, skipped: impl Fn(&Located) -> bool) -> Vec<Word> {
    let solid: Vec<&Located> = tokens.iter().filter(|token| !token.is_blank()).collect();
    let mut words = Vec::new();
    for (nth, located) in solid.iter().enumerate() {
        let Token::Word(word) = &located.token else { continue };
        if skipped(located) {
            continue;
        }
        let qualifier = match solid[..nth] {
            [.., before, period] if period.token == Token::Period && !skipped(before) => name(&before.token),
            _ => None,
        };
        words.push(Word {
            text: folded(word),
            at: located.at - start,
            quoted: word.quote_style.is_some(),
            called: solid.get(nth + 1).is_some_and(|next| next.token == Token::LParen),
            qualifier,
        });
    }
    words
}

fn name(token: &Token) -> Option<String> {
    match token {
        Token::Word(word) => Some(folded(word)),
        _ => None,
    }
}

/// As Postgres reads it: ASCII lower-case, unless it is quoted.
fn folded(word: &sqlparser::tokenizer::Word) -> String {
    match word.quote_style {
        None => word.value.to_ascii_lowercase(),
        Some(_) => word.value.replace("\"\"", "\""),
    }
}
