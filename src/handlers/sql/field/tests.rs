use super::*;

fn of(name: &str) -> FieldType {
    FieldType::of_postgres(name)
}

/// A hundred values and more: those that every type judges differently, and numbers at the edges
/// of each range.
fn values() -> Vec<String> {
    let mut values: Vec<String> = [
        "null",
        "true",
        "false",
        "0",
        "-0",
        "1",
        "-1",
        "1.0",
        "-1.5",
        "70.00",
        "1e2",
        "1E+2",
        "1e-2",
        "0e9",
        "0.0",
        "1e38",
        "3.5e38",
        "1e-46",
        "1e308",
        "1e309",
        "1e-323",
        "1e-325",
        "1e131071",
        "1e131072",
        "1e400000",
        "1e-16383",
        "1e-16384",
        "\"\"",
        "\"x\"",
        "\"1\"",
        "\"null\"",
        "\"NULL\"",
        "\"true\"",
        "\"a b\"",
        "\"é\"",
        "\"\\u00e9\"",
        "\"\\\\\"",
        "\"\\\"\"",
        "\"\\n\"",
        "\"{1,2}\"",
        "\"\\u0000\"",
        "\"\\\\u0000\"",
        "\"\\ud800\"",
        "\"\\ud83e\\udd80\"",
        "[]",
        "[1]",
        "[1,2]",
        "[null]",
        "[null,null,1]",
        "[1.5]",
        "[\"a\"]",
        "[\"a,b\",\"\\\"\"]",
        "[[1]]",
        "[[]]",
        "[{}]",
        "[true,false]",
        "[\"\\u0000\"]",
        "{}",
        "{\"a\":1}",
        "{\"a\":{\"b\":[1,2,{\"c\":null}]}}",
        "{\"\\u0000\":1}",
        "{\"a\":1e400000}",
        "{ \"a\" : [ ] }",
        "\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\"",
        "\"{a0eebc999c0b4ef8bb6d6bb9bd380a11}\"",
        "\"A0EE-BC99-9C0B-4EF8-BB6D-6BB9-BD38-0A11\"",
        "\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1\"",
        "\"urn:uuid:a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\"",
        "\"2026-01-31T00:00:00Z\"",
    ]
    .map(str::to_owned)
    .to_vec();
    for edge in [i128::from(i16::MAX), i128::from(i32::MAX), i128::from(i64::MAX), i128::from(u64::MAX)] {
        for near in [edge - 1, edge, edge + 1, -edge, -edge - 1, -edge - 2] {
            values.extend([near.to_string(), format!("{near}.0"), format!("[{near}]"), format!("\"{near}\"")]);
        }
    }
    values
}

#[test]
fn whole_numbers_are_what_serde_takes_for_them() {
    for json in values() {
        let judged = |name: &str| of(name).text(&json).is_ok();
        assert_eq!(judged("smallint"), serde_json::from_str::<i16>(&json).is_ok(), "{json}");
        assert_eq!(judged("integer"), serde_json::from_str::<i32>(&json).is_ok(), "{json}");
        assert_eq!(judged("bigint"), serde_json::from_str::<i64>(&json).is_ok(), "{json}");
        assert_eq!(judged("boolean"), serde_json::from_str::<bool>(&json).is_ok(), "{json}");
    }
}

#[test]
fn numbers_and_json_keep_the_text_they_are_written_in() {
    for json in values() {
        for name in [
            "smallint",
            "integer",
            "bigint",
            "numeric",
            "numeric(10,2)",
            "real",
            "double precision",
            "boolean",
            "json",
            "jsonb",
        ] {
            match of(name).text(&json) {
                Ok(text) => assert_eq!(text, json, "{name}"),
                Err(why) => assert!(why.starts_with("expected ") || why.starts_with("found "), "{name}: {why}"),
            }
        }
    }
}

#[test]
fn floating_numbers_are_those_that_become_neither_infinite_nor_zero() {
    for json in values().iter().filter(|json| is_number(json)) {
        let zero = ["0", "-0", "0e9", "0.0"].contains(&json.as_str());
        let double: f64 = json.parse().unwrap();
        let real: f32 = json.parse().unwrap();
        assert_eq!(of("double precision").text(json).is_ok(), zero || (double.is_finite() && double != 0.0), "{json}");
        assert_eq!(of("real").text(json).is_ok(), zero || (real.is_finite() && real != 0.0), "{json}");
    }
    for refused in ["\"1\"", "null", "true", "[1]", "\"NaN\""] {
        assert!(of("real").text(refused).is_err() && of("numeric").text(refused).is_err(), "{refused}");
    }
}

#[test]
fn floating_numbers_have_the_edges_that_postgres_gives_them() {
    let judged = |name: &str, json: &str| of(name).text(json).is_ok();
    for good in ["1.7976931348623158e308", "3e-324", "4.9e-324", "-0", "0e99999999999999999999999"] {
        assert!(judged("double precision", good), "{good}");
    }
    for bad in ["1.7976931348623159e308", "2e-324", "-1e309"] {
        assert!(!judged("double precision", bad), "{bad}");
    }
    for good in ["3.40282356e38", "8e-46", "0e999"] {
        assert!(judged("real", good), "{good}");
    }
    for bad in ["3.40282357e38", "7e-46"] {
        assert!(!judged("real", bad), "{bad}");
    }
}

#[test]
fn a_string_is_given_as_its_content_and_nothing_else_is_a_string() {
    for json in values() {
        let content: Option<String> =
            serde_json::from_str(&json).ok().filter(|content: &String| !content.contains('\0'));
        for name in
            ["text", "character varying(10)", "timestamp with time zone", "date", "bytea", "my_enum", "public.\"Enum\""]
        {
            assert_eq!(of(name).text(&json).ok().as_deref(), content.as_deref(), "{name} {json}");
        }
    }
}

#[test]
fn json_takes_all_but_null_and_jsonb_what_postgres_can_store() {
    for json in values() {
        assert_eq!(of("json").text(&json).is_ok(), json != "null", "{json}");
    }
    for refused in ["null", "\"\\u0000\"", "\"\\ud800\"", "{\"\\u0000\":1}", "{\"a\":1e400000}", "1e131072"] {
        assert!(of("jsonb").text(refused).is_err(), "{refused}");
    }
    for taken in ["1", "\"\\\\u0000\"", "[null]", "{}", "1e131071", "\"x\""] {
        assert!(of("jsonb").text(taken).is_ok(), "{taken}");
    }
}

#[test]
fn a_uuid_is_in_one_of_the_forms_that_postgres_reads() {
    let plain = "a0eebc999c0b4ef8bb6d6bb9bd380a11";
    let text = |uuid: &str| of("uuid").text(&format!("\"{uuid}\"")).is_ok();
    for good in [
        plain,
        &plain.to_uppercase(),
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}",
        "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
    ] {
        assert!(text(good), "{good}");
    }
    for bad in [
        "",
        "x",
        &plain[1..],
        &format!("{plain}0"),
        &format!("-{plain}"),
        &format!("{plain}-"),
        &format!("{{{plain}"),
        &format!("{plain}}}"),
        &format!("urn:uuid:{plain}"),
        "a0eebc99--9c0b4ef8bb6d6bb9bd380a11",
        "a0-eebc999c0b4ef8bb6d6bb9bd380a11",
        "g0eebc999c0b4ef8bb6d6bb9bd380a11",
    ] {
        assert!(!text(bad), "{bad}");
    }
}

#[test]
fn an_array_is_written_so_that_postgres_reads_the_same_elements() {
    for (name, json, expected) in [
        ("bigint[]", "[1, 2 ,null,-3]", r#"{"1","2",NULL,"-3"}"#),
        ("numeric(10,2)[]", "[70.00]", r#"{"70.00"}"#),
        ("boolean[]", "[true,null]", r#"{"true",NULL}"#),
        ("text[]", "[]", "{}"),
        ("text[]", r#"["","NULL","a,b","{}","\"\\","é\n"]"#, "{\"\",\"NULL\",\"a,b\",\"{}\",\"\\\"\\\\\",\"é\n\"}"),
        ("jsonb[]", r#"[{"a":"\""},[1,null]]"#, r#"{"{\"a\":\"\\\"\"}","[1,null]"}"#),
    ] {
        assert_eq!(of(name).text(json).as_deref(), Ok(expected), "{name} {json}");
    }
    for json in values() {
        let numbers: Option<Vec<Option<i64>>> = serde_json::from_str(&json).ok().filter(|_| json != "null");
        assert_eq!(of("bigint[]").text(&json).is_ok(), numbers.is_some(), "{json}");
    }
    assert_eq!(of("bigint[]").text("[1,\"x\"]"), Err("element 2: expected a whole number, found \"x\"".into()));
    assert_eq!(of("bigint[]").text("{}"), Err("expected an array, found {}".into()));
    assert!(of("text[]").text(&format!("[{}1{}]", "[".repeat(100_000), "]".repeat(100_000))).is_err());
}

#[test]
fn a_refusal_says_what_was_expected_and_quotes_what_was_found_in_short() {
    let why = |name: &str, json: &str| of(name).text(json).unwrap_err();
    assert_eq!(why("bigint", "\"x\""), "expected a whole number, found \"x\"");
    assert_eq!(why("bigint", "1.0"), "expected a whole number, found 1.0");
    assert_eq!(why("smallint", "32768"), "expected a whole number from -32768 to 32767, found 32768");
    assert_eq!(why("numeric", "1e400000"), "expected a number that numeric can hold, found 1e400000");
    assert_eq!(why("real", "1e39"), "expected a number in range, found 1e39");
    assert_eq!(why("text", "1"), "expected a string, found 1");
    assert_eq!(why("text", "\"\\u0000\""), "found U+0000, which Postgres cannot store");
    assert_eq!(why("uuid", "\"x\""), "expected a UUID, found \"x\"");
    assert_eq!(why("jsonb", "null"), "expected a value, found null");
    let long = format!("\"{}\"", "é".repeat(1000));
    assert_eq!(why("bigint", &long).chars().count(), "expected a whole number, found ".len() + SHOWN_MAX + 1);
}
