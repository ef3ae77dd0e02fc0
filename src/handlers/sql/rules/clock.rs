//! What asks the clock without naming a function for it: `'today'::date`, and `age(x)`, which counts
//! from today. A cached plan would keep the first answer for as long as the session lives.

use sqlparser::tokenizer::Token;

use super::super::diagnostic::Diagnostic;
use super::super::field::is_clock_word;
use super::super::statement::Statement;
use super::super::tokens::{Located, tokens};

/// The types whose literals Postgres may read from its own clock.
const TYPES: [&str; 5] = ["date", "time", "timetz", "timestamp", "timestamptz"];

/// What of the statement asks the clock so.
pub(super) fn check(statement: &Statement) -> Vec<Diagnostic> {
    // a statement that was parsed has tokens
    let Ok(tokens) = tokens(&statement.text) else { return Vec::new() };
    let solid: Vec<&Located> = tokens.iter().filter(|token| !token.is_blank()).collect();
    let differs = |nth: usize, what: &str, cure: &str| Diagnostic {
        place: statement.place_of(solid[nth].at),
        problem: format!("{what} answers differently when the command is run again"),
        cure: format!("{cure}, or say nondeterministic = true"),
    };
    let found = |nth: usize| {
        if is_clock_literal(&solid[nth].token) && is_time(&solid, nth) {
            let literal = &statement.text[solid[nth].at..solid[nth].end];
            return Some(differs(nth, &format!("{literal}, read as a time,"), "write :command_time"));
        }
        if ages(&solid, nth) {
            return Some(differs(nth, "age() of one time, which counts from today,", "write age(:command_time, …)"));
        }
        None
    };
    (0..solid.len()).filter_map(found).collect()
}

/// Whether a statement calls [`age`](ages) so: its plan shows what that function asks.
pub(super) fn has_age(statement: &Statement) -> bool {
    let Ok(tokens) = tokens(&statement.text) else { return false };
    let solid: Vec<&Located> = tokens.iter().filter(|token| !token.is_blank()).collect();
    (0..solid.len()).any(|nth| ages(&solid, nth))
}

fn is_clock_literal(token: &Token) -> bool {
    use Token::{DollarQuotedString, EscapedStringLiteral, SingleQuotedString};
    let text = match token {
        SingleQuotedString(text) | EscapedStringLiteral(text) => text,
        DollarQuotedString(quoted) => &quoted.value,
        _ => return false,
    };
    is_clock_word(text.trim())
}

/// `timestamptz 'now'`, `timestamp (3) with time zone 'now'`, `date('now')`, `'now'::date`,
/// `cast('now' as date)`.
fn is_time(solid: &[&Located], nth: usize) -> bool {
    let (before, behind) = (&solid[..nth], &solid[nth + 1..]);
    let typed = match before {
        [.., open, last] if last.token == Token::LParen => names_time(open),
        [.., with, time, zone] if is_word(zone, "zone") && is_word(time, "time") => {
            is_word(with, "with") || is_word(with, "without")
        }
        [.., open, precision, close]
            if close.token == Token::RParen && matches!(precision.token, Token::Number(..)) =>
        {
            open.token == Token::LParen && before.iter().rev().nth(3).is_some_and(|name| names_time(name))
        }
        [.., last] => names_time(last),
        [] => false,
    };
    let cast = match behind {
        [colons, name, ..] if colons.token == Token::DoubleColon => names_time(name),
        [word, name, ..] if is_word(word, "as") => {
            names_time(name)
                && matches!(before, [.., cast, open] if is_word(cast, "cast") && open.token == Token::LParen)
        }
        _ => false,
    };
    typed || cast
}

/// `age(…)` with one argument.
fn ages(solid: &[&Located], nth: usize) -> bool {
    let called = solid.get(nth + 1).is_some_and(|next| next.token == Token::LParen);
    // `insert into age (…)`, `with age (…) as`, `x.age` are no calls
    let is_name = nth
        .checked_sub(1)
        .is_some_and(|before| ["into", "with", "recursive"].iter().any(|word| is_word(solid[before], word)));
    called && !is_name && is_word(solid[nth], "age") && has_one_argument(&solid[nth + 2..])
}

/// Up to the parenthesis that closes it.
fn has_one_argument(arguments: &[&Located]) -> bool {
    let mut depth = 0_u32;
    for (nth, argument) in arguments.iter().enumerate() {
        match argument.token {
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen if depth == 0 => return nth > 0,
            Token::RParen | Token::RBracket => depth = depth.saturating_sub(1),
            Token::Comma if depth == 0 => return false,
            _ => {}
        }
    }
    false
}

fn names_time(token: &Located) -> bool {
    TYPES.iter().any(|name| is_word(token, name))
}

fn is_word(token: &Located, text: &str) -> bool {
    matches!(&token.token, Token::Word(word) if word.value.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use super::super::support::statement;
    use super::*;

    fn found(sql: &str) -> Vec<String> {
        let statement = statement(sql);
        check(&statement).into_iter().map(|found| statement.text[found.place.at..].chars().take(5).collect()).collect()
    }

    #[test]
    fn a_literal_that_is_read_from_the_clock_is_found_where_it_stands() {
        for sql in [
            "select 'now'::timestamptz",
            "select ' NOW '::timestamp with time zone",
            "select timestamp 'today'",
            "select timestamp with time zone 'tomorrow'",
            "select timestamp(3) 'now'",
            "select cast('yesterday' as date)",
            "select date('today')",
            "select E'now' :: time",
            "select $$now$$::date",
        ] {
            assert_eq!(found(sql).len(), 1, "{sql}");
        }
        assert_eq!(found("select 'é', 'now'::date"), ["'now'"]);
    }

    #[test]
    fn the_same_word_as_a_text_is_none() {
        for sql in [
            "insert into note values ('now', 'today')",
            "select 'now'::text, 'now' as date, 'tomorrow is'::text",
            "select f('now'), date 'epoch', date '2026-12-01', date_part('now', x)",
            "select cast('now' as text)",
        ] {
            assert_eq!(found(sql), Vec::<String>::new(), "{sql}");
        }
    }

    #[test]
    fn an_age_of_one_time_counts_from_today() {
        assert_eq!(found("select age(born) from person"), ["age(b"]);
        assert_eq!(found("select age(least(a, b)) from person").len(), 1);
        assert_eq!(found("select age(:command_time, born), p.age from person p where age > 1"), Vec::<String>::new());
        assert_eq!(found("insert into age (years) values (1)"), Vec::<String>::new());
    }
}
