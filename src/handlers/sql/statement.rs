//! One SQL statement with `:named` parameters.

use sqlparser::tokenizer::Token;

use super::diagnostic::{Diagnostic, Place};
pub use super::parameter::Parameter;
use super::tokens::{Located, tokens};
pub use super::words::Word;
use super::words::words;

/// The first verb that stands in no parentheses.
fn verb(tokens: &[Located]) -> Verb {
    let mut depth = 0_usize;
    for token in tokens {
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            Token::Word(word) if depth == 0 && word.quote_style.is_none() => {
                match word.value.to_ascii_lowercase().as_str() {
                    "select" | "values" => return Verb::Read,
                    "insert" | "update" | "delete" | "merge" => return Verb::Write,
                    _ => {}
                }
            }
            _ => {}
        }
    }
    Verb::Read
}

/// What a statement may begin with.
const BEGINNINGS: [&str; 7] = ["select", "insert", "update", "delete", "merge", "with", "values"];

/// A statement, taken apart at its parameters.
#[derive(Clone, Debug)]
pub struct Statement {
    /// As it is written, without what surrounds it in the file: blanks, comments, a last semicolon.
    pub text: String,
    /// Where its first character stands; the start of the string that holds it, if that has escapes.
    pub place: Place,
    /// The text, in order.
    pub pieces: Vec<Piece>,
    /// Every identifier and keyword, in order; not what is in strings and comments, and no parameter.
    pub words: Vec<Word>,
    /// What the statement itself does, behind its `with`.
    pub verb: Verb,
}

/// What a statement does by itself; what the parts of its `with` do is another question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `select`, `values`.
    Read,
    /// `insert`, `update`, `delete`, `merge`: its row count is what it wrote.
    Write,
}

/// A piece of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// SQL as it is.
    Sql(String),
    /// A parameter, and the byte of the statement's text at which its colon stands.
    Parameter(Parameter, usize),
}

impl Statement {
    /// Takes `text` apart. `place` is where its first character stands in the file, or, if the file
    /// has escapes there, the start of the string.
    ///
    /// # Errors
    ///
    /// What is no single statement that a command may run, and where.
    pub fn parse(text: &str, place: &Place) -> Result<Self, Diagnostic> {
        let refused = |at: usize, problem: &str, cure: &str| Diagnostic {
            place: within(place, text, at),
            problem: problem.to_owned(),
            cure: cure.to_owned(),
        };
        let tokens = tokens(text).map_err(|error| {
            refused(error.at, &error.why, "close the string, the quoted name or the comment that begins here")
        })?;
        let tokens = statement_tokens(&tokens).map_err(|second| {
            refused(second, "a second statement in one sql", "make it a step of its own: one statement each")
        })?;
        let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else {
            return Err(refused(0, "there is no statement here", "write one: select, insert, update, delete, merge"));
        };
        if let Some(beginning) = forbidden_beginning(tokens) {
            let problem =
                format!("a command runs no statement that begins with {}", &text[beginning.at..beginning.end]);
            let cure = format!("begin with {}", BEGINNINGS.join(", "));
            return Err(refused(beginning.at, &problem, &cure));
        }
        if let Some(positional) = tokens.iter().find(|token| matches!(token.token, Token::Placeholder(_))) {
            let problem = format!("{} is no parameter", &text[positional.at..positional.end]);
            return Err(refused(positional.at, &problem, "name it: `:amount` is the payload's field amount"));
        }
        let parameters = parameters_of(tokens, text);
        let statement = &text[first.at..last.end];
        Ok(Self {
            verb: verb(tokens),
            pieces: pieces(statement, first.at, &parameters),
            words: words(tokens, first.at, |token| parameters.iter().any(|p| (p.at..p.end).contains(&token.at))),
            text: statement.to_owned(),
            place: within(place, text, first.at),
        })
    }

    /// Whether it has no `with`.
    #[must_use]
    pub fn begins_with_its_verb(&self) -> bool {
        self.words.first().is_none_or(|word| word.text != "with")
    }

    /// The distinct parameters, in the order of their first use.
    #[must_use]
    pub fn parameters(&self) -> Vec<Parameter> {
        self.numbered().1
    }

    /// The statement as Postgres takes it, with `$1`, `$2`, …, and the parameter of each number.
    #[must_use]
    pub fn numbered(&self) -> (String, Vec<Parameter>) {
        let mut sql = String::with_capacity(self.text.len());
        let mut parameters: Vec<Parameter> = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Sql(text) => sql.push_str(text),
                Piece::Parameter(parameter, _) => {
                    let known = parameters.iter().position(|known| known == parameter);
                    let number = known.unwrap_or_else(|| {
                        parameters.push(parameter.clone());
                        parameters.len() - 1
                    });
                    sql.push_str(&format!("${}", number + 1));
                }
            }
        }
        (sql, parameters)
    }

    /// The byte of [`text`](Self::text) that stands at a position of the [`numbered`](Self::numbered)
    /// statement as Postgres reports it: in characters, from 1.
    #[must_use]
    pub fn byte_of(&self, position: usize) -> usize {
        let mut left = position.saturating_sub(1);
        let mut byte = 0;
        let mut numbers: Vec<&Parameter> = Vec::new();
        for piece in &self.pieces {
            let (characters, bytes) = match piece {
                Piece::Sql(sql) => match sql.char_indices().nth(left) {
                    Some((within, _)) => return byte + within,
                    None => (sql.chars().count(), sql.len()),
                },
                Piece::Parameter(parameter, at) => {
                    let known = numbers.iter().position(|known| *known == parameter);
                    let number = known.unwrap_or_else(|| {
                        numbers.push(parameter);
                        numbers.len() - 1
                    });
                    let characters = format!("${}", number + 1).len();
                    if left < characters {
                        return *at;
                    }
                    (characters, parameter.to_string().len())
                }
            };
            left -= characters;
            byte += bytes;
        }
        self.text.len()
    }

    /// Where a byte of [`text`](Self::text) stands in the file.
    #[must_use]
    pub fn place_of(&self, byte: usize) -> Place {
        within(&self.place, &self.text, byte)
    }

    /// The parameters as they are used, each with its place: a parameter that is used twice is there
    /// twice.
    pub fn uses(&self) -> impl Iterator<Item = (&Parameter, Place)> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Sql(_) => None,
            Piece::Parameter(parameter, at) => Some((parameter, self.place_of(*at))),
        })
    }

    /// It cannot write by itself: it is a query, perhaps one that locks rows. The functions that it
    /// calls may write.
    #[must_use]
    pub fn is_select_only(&self) -> bool {
        let writes = |(nth, word): (usize, &Word)| {
            if word.quoted || word.qualifier.is_some() {
                return false;
            }
            match word.text.as_str() {
                "insert" | "delete" | "merge" | "into" => true,
                "update" => !locks(&self.words[..nth]),
                _ => false,
            }
        };
        !self.words.iter().enumerate().any(writes)
    }
}

/// What comes before the `update` of `for update` and of `for no key update`.
fn locks(before: &[Word]) -> bool {
    let is = |word: &Word, keyword: &str| !word.quoted && word.text == keyword;
    match before {
        [.., word] if is(word, "for") => true,
        [.., r#for, no, key] => is(r#for, "for") && is(no, "no") && is(key, "key"),
        _ => false,
    }
}

/// The place of a byte of `text`, which begins at `place`. Where the file spells it otherwise, with
/// escapes, bytes cannot be counted: `place` itself.
fn within(place: &Place, text: &str, byte: usize) -> Place {
    let as_written = place.file.text.get(place.at..).is_some_and(|rest| rest.starts_with(text));
    let at = if as_written { place.at + byte } else { place.at };
    Place { file: place.file.clone(), at }
}

/// Without the blanks around the statement and its last semicolon; or the byte at which a second
/// statement begins.
fn statement_tokens(tokens: &[Located]) -> Result<&[Located], usize> {
    let ends = |token: &Located| token.token == Token::SemiColon;
    let Some(start) = tokens.iter().position(|token| !token.is_blank()) else {
        return Ok(&[]);
    };
    let end = tokens[start..].iter().position(ends).map_or(tokens.len(), |end| start + end);
    if let Some(second) = tokens[end..].iter().find(|token| !token.is_blank() && !ends(token)) {
        return Err(second.at);
    }
    let last = tokens[start..end].iter().rposition(|token| !token.is_blank());
    Ok(last.map_or(&[], |last| &tokens[start..=start + last]))
}

/// The first token that is not a parenthesis, if it is not what a statement may begin with.
fn forbidden_beginning(tokens: &[Located]) -> Option<&Located> {
    let first = tokens.iter().find(|token| !token.is_blank() && token.token != Token::LParen);
    first.filter(|first| match &first.token {
        Token::Word(word) => {
            word.quote_style.is_some() || !BEGINNINGS.contains(&word.value.to_ascii_lowercase().as_str())
        }
        _ => true,
    })
}

struct Found {
    parameter: Parameter,
    at: usize,
    end: usize,
}

/// A colon with a name directly behind it. A colon that touches what stands before it belongs to an
/// array's slice, or to JSON_OBJECT.
fn parameters_of(tokens: &[Located], text: &str) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    for (nth, colon) in tokens.iter().enumerate().filter(|(_, token)| token.token == Token::Colon) {
        if nth > 0 && is_operand(&tokens[nth - 1].token) {
            continue;
        }
        let name = tokens.get(nth + 1).filter(|token| is_plain_word(token));
        let Some(name) = name else { continue };
        let column = match tokens.get(nth + 2..nth + 4) {
            Some([period, column]) if period.token == Token::Period && is_plain_word(column) => Some(column),
            _ => None,
        };
        let end = column.unwrap_or(name).end;
        if let Some(parameter) = Parameter::named(&text[name.at..end]) {
            found.push(Found { parameter, at: colon.at, end });
        }
    }
    found
}

fn is_plain_word(token: &Located) -> bool {
    matches!(&token.token, Token::Word(word) if word.quote_style.is_none())
}

fn is_operand(token: &Token) -> bool {
    use Token::{Number, RBracket, RParen, SingleQuotedString, Word};
    matches!(token, Word(_) | Number(..) | RBracket | RParen | SingleQuotedString(_))
}

/// `start`: the byte of the whole text at which the statement begins.
fn pieces(statement: &str, start: usize, parameters: &[Found]) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(2 * parameters.len() + 1);
    let mut done = 0;
    for found in parameters {
        let at = found.at - start;
        if at > done {
            pieces.push(Piece::Sql(statement[done..at].to_owned()));
        }
        pieces.push(Piece::Parameter(found.parameter.clone(), at));
        done = found.end - start;
    }
    if done < statement.len() {
        pieces.push(Piece::Sql(statement[done..].to_owned()));
    }
    pieces
}

#[cfg(test)]
mod tests;
