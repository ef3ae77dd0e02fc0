//! What Postgres refuses in JSON that is good JSON.

use std::borrow::Cow;

use super::numeric;

/// As deep as a handler in Rust could read it; Postgres's own limit depends on its stack.
const NESTING_MAX: usize = 128;

/// The content of a JSON string.
pub(super) fn content(string: &str) -> Result<Cow<'_, str>, String> {
    let inner = string.get(1..string.len().saturating_sub(1)).unwrap_or_default();
    // without a backslash it is its own content, and U+0000 cannot be in it
    if !inner.contains('\\') {
        return Ok(Cow::Borrowed(inner));
    }
    // half a surrogate pair is the one thing that has not been looked at yet
    let content: String = serde_json::from_str(string).map_err(|_| "a \\u escape that is no character".to_owned())?;
    if content.contains('\0') {
        return Err("U+0000, which Postgres cannot store".to_owned());
    }
    Ok(Cow::Owned(content))
}

/// Checks what `json` takes: any JSON that is not nested too deep.
pub(super) fn check_json(text: &str) -> Result<(), String> {
    check(text, |_| Ok(()), |_| Ok(()))
}

/// Checks what `jsonb` takes: it keeps strings as text and numbers as numeric.
pub(super) fn check_jsonb(text: &str) -> Result<(), String> {
    let number = |number: &str| match numeric::fits(number) {
        true => Ok(()),
        false => Err(format!("{}, which numeric cannot hold", super::field::shown(number))),
    };
    check(text, |string| content(string).map(drop), number)
}

/// Walks along JSON that has been parsed before, without recursion.
fn check(
    text: &str,
    string: impl Fn(&str) -> Result<(), String>,
    number: impl Fn(&str) -> Result<(), String>,
) -> Result<(), String> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while at < bytes.len() {
        let mut end = at + 1;
        match bytes[at] {
            b'"' => {
                end = string_end(bytes, at);
                string(&text[at..end])?;
            }
            b'-' | b'0'..=b'9' => {
                let in_number = |c: &u8| matches!(c, b'+' | b'-' | b'.' | b'0'..=b'9' | b'e' | b'E');
                end = at + bytes[at..].iter().take_while(|c| in_number(c)).count();
                number(&text[at..end])?;
            }
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            _ => {}
        }
        if depth > NESTING_MAX {
            return Err(format!("JSON nested more than {NESTING_MAX} levels deep"));
        }
        at = end;
    }
    Ok(())
}

/// The byte after the string that begins at `at`.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while end < bytes.len() && bytes[end] != b'"' {
        end += if bytes[end] == b'\\' { 2 } else { 1 };
    }
    (end + 1).min(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_of_a_string_is_unescaped_once() {
        for (string, expected) in [
            (r#""""#, ""),
            (r#""é\u00e9\ud83e\udd80""#, "éé🦀"),
            (r#""a\\u0000\"""#, "a\\u0000\""),
            (r#""\/\n""#, "/\n"),
        ] {
            assert_eq!(content(string).as_deref(), Ok(expected), "{string}");
        }
        for bad in [r#""\u0000""#, r#""a\\\u0000""#, r#""\ud800""#, r#""\udc00\ud800""#, r#""\ud800x""#] {
            assert!(content(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn jsonb_takes_less_than_json() {
        for both in ["{}", r#"{"a\"[":["\\u0000",-1.5e3,true,null,"]"]}"#, "0", r#""é""#] {
            assert_eq!((check_json(both), check_jsonb(both)), (Ok(()), Ok(())), "{both}");
        }
        for json_only in [r#"{"\u0000":1}"#, r#"["\ud800"]"#, r#"{"a":[1,1e400000]}"#, "1e-20000"] {
            assert!(check_json(json_only).is_ok() && check_jsonb(json_only).is_err(), "{json_only}");
        }
    }

    #[test]
    fn nesting_has_a_limit_that_text_in_strings_does_not_count_for() {
        let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        assert!(check_json(&nested(NESTING_MAX)).is_ok());
        assert!(check_json(&nested(NESTING_MAX + 1)).is_err());
        assert!(check_jsonb(&nested(1_000_000)).is_err());
        assert!(check_json(&format!("\"{}\"", "[".repeat(1000))).is_ok());
        assert!(check_json(&format!("[{}1]", "[],".repeat(1000))).is_ok());
    }
}
