//! Values, and what each type makes of them: reckoned from the document's table, with the database
//! as the judge of a type's own syntax.

use sqlx::AssertSqlSafe;

use crate::support::postgres::Database;

/// JSON as it stands in the payload.
pub const VALUES: [&str; 102] = [
    // of another kind
    "true",
    "false",
    "{}",
    "[]",
    "{\"a\":[1,{\"b\":null}]}",
    "{ \"a\" : 1.50 , \"a\" : 2 }",
    "[true]",
    "[\"1\"]",
    "[{}]",
    "[[1]]",
    // whole numbers and their edges
    "0",
    "-0",
    "1",
    "-1",
    "7",
    "42",
    "32767",
    "32768",
    "-32768",
    "-32769",
    "2147483647",
    "2147483648",
    "-2147483648",
    "-2147483649",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551616",
    "340282366920938463463374607431768211456",
    // others
    "0.0",
    "-0.0",
    "1.0",
    "1.5",
    "-1.5",
    "0.1",
    "70.00",
    "999.99",
    "999.994",
    "999.995",
    "-999.995",
    "1000",
    "1e2",
    "1E+2",
    "1.5e-3",
    "0e9",
    "3.4e38",
    "3.5e38",
    "1e-40",
    "1e-46",
    "1.7e308",
    "1.8e308",
    "5e-324",
    "1e-325",
    "1e400000",
    "1e-20000",
    "0.30000000000000004",
    "16777217",
    "9007199254740993",
    // lists
    "[1]",
    "[1,2,-3]",
    "[1, null ,3]",
    "[9223372036854775807]",
    "[9223372036854775808]",
    "[1.5]",
    // text that means something to somebody
    "\"\"",
    "\" \"",
    "\"1\"",
    "\"true\"",
    "\"null\"",
    "\"NULL\"",
    "\"{1,2}\"",
    "\"happy\"",
    "\"so so\"",
    "\"Happy\"",
    "\"'\"",
    "\"it's\"",
    "\"'; drop table put_text; --\"",
    "\"$1\"",
    "\":amount\"",
    "\":v\"",
    "\"{v}\"",
    "\"%s %L %I\"",
    "\"\\\"\"",
    "\"\\\\\"",
    "\"\\\\'\"",
    "\"\\\\x41\"",
    "\"E'\\\\n' || chr(65) /* -- */\"",
    "\"$$ $solewriter$\"",
    "\"\\u0000\"",
    "\"a\\u0000b\"",
    "\"\\\\u0000\"",
    "\"\\ud800\"",
    "\"\\ud83e\\udd80\"",
    "\"Zürich 東京 🦀 e\\u0301\"",
    "\"\\n\\t\\r\\u0001\\u007f\"",
    "\"\\u202e\\ufeff\"",
    // ids
    "\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\"",
    "\"{A0EEBC999C0B4EF8BB6D6BB9BD380A11}\"",
    "\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1\"",
    "\"urn:uuid:a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\"",
    // days and times: below
    "\"2026-12-01\"",
];

const TIMES: [&str; 30] = [
    "2026-12-01T09:00:00Z",
    "2026-12-01T09:00:00.123456+05:30",
    "2026-12-01 09:00",
    "2026-12-01 09:00 Europe/Berlin",
    "20261201T090000Z",
    "2026-02-28",
    "2024-02-29",
    "2026-02-29",
    "2026-13-45",
    "2026-00-10",
    "2026-12-01T25:00:00Z",
    "2026-12-01T09:00:00+99",
    "2026-12-01 09:00 Nowhere/Land",
    "294276-12-31T23:59:59Z",
    "294277-01-01T00:00:00Z",
    "5874897-12-31",
    "4714-11-24 BC",
    "99999999-01-01",
    "infinity",
    "-infinity",
    "epoch",
    "allballs",
    "J2461376",
    "now",
    "NOW",
    "today",
    "Tomorrow 12:00",
    "yesterday",
    " now ",
    "12:00",
];

/// The words that mean another time tomorrow.
const CLOCK: [&str; 4] = ["now", "today", "tomorrow", "yesterday"];

/// Nested deeper than the document allows.
const NESTED_MAX: usize = 128;

/// Values that are made, not written: times, long ones and deep ones.
pub fn long() -> impl Iterator<Item = String> {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let long = [
        format!("\"{}\"", "x".repeat(200_000)),
        format!("\"{}\"", "'\\\\\\\"é".repeat(10_000)),
        "9".repeat(1_000),
        format!("0.{}", "1".repeat(1_000)),
        format!("[{}1]", "1,".repeat(10_000)),
        nested(100),
        nested(200),
        nested(10_000),
    ];
    TIMES.iter().map(|time| format!("\"{time}\"")).chain(long)
}

/// What must become of a record with that value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// Its row holds what this text means to the type.
    Stored(String),
    /// The type does not take it.
    Malformed,
    /// The type takes it, the column does not.
    DataError,
}

/// By the document's table: of which JSON the type takes the text, and which text.
fn text(data_type: &str, json: &str) -> Option<String> {
    let written = || Some(json.to_owned());
    let number = || json.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    let zero = || number() && !json.split(['e', 'E']).next().unwrap_or_default().contains(|c| ('1'..='9').contains(&c));
    let string = || serde_json::from_str::<String>(json).ok().filter(|text| !text.contains('\0'));
    match data_type {
        "smallint" => serde_json::from_str::<i16>(json).ok().map(|n| n.to_string()),
        "integer" => serde_json::from_str::<i32>(json).ok().map(|n| n.to_string()),
        "bigint" => serde_json::from_str::<i64>(json).ok().map(|n| n.to_string()),
        "bigint[]" => {
            let numbers = serde_json::from_str::<Vec<Option<i64>>>(json).ok().filter(|_| json != "null")?;
            let text = |n: Option<i64>| n.map_or("NULL".to_owned(), |n| n.to_string());
            Some(format!("{{{}}}", numbers.into_iter().map(text).collect::<Vec<_>>().join(",")))
        }
        "numeric" | "numeric(5,2)" if number() => written(),
        "real" if zero() => written(),
        "real" if number() => json.parse().ok().filter(|n: &f32| n.is_finite() && *n != 0.0).and(written()),
        "double precision" if zero() => written(),
        "double precision" if number() => json.parse().ok().filter(|n: &f64| n.is_finite() && *n != 0.0).and(written()),
        "boolean" if matches!(json, "true" | "false") => written(),
        "jsonb" if json != "null" && json.chars().take_while(|c| *c == '[').count() <= NESTED_MAX => written(),
        "timestamptz" | "date" => string().filter(|text| !CLOCK.iter().any(|word| text.to_lowercase().contains(word))),
        "text" | "uuid" | "mood" => string(),
        _ => None,
    }
}

/// Whether the database casts the text to the type.
async fn casts(database: &Database, text: &str, data_type: &str) -> bool {
    let cast = format!("select {}::{data_type}", literal(text));
    sqlx::raw_sql(AssertSqlSafe(cast)).execute(&database.pool).await.is_ok()
}

fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

pub async fn judge(database: &Database, data_type: &str, json: &str) -> Judgement {
    let Some(text) = text(data_type, json) else { return Judgement::Malformed };
    // a parameter has no length: that is the column's
    let of_parameter = data_type.split('(').next().unwrap_or(data_type);
    if !casts(database, &text, of_parameter).await {
        return Judgement::Malformed;
    }
    // a literal's cast rounds as an assignment does
    if casts(database, &text, data_type).await { Judgement::Stored(text) } else { Judgement::DataError }
}
