use super::*;

fn fields(fields: &[(&str, &str)]) -> Fields {
    with_schema(fields, None)
}

/// A name that ends with `?` is optional.
fn with_schema(fields: &[(&str, &str)], schema: Option<serde_json::Value>) -> Fields {
    let field = |(name, type_name): &(&str, &str)| Field {
        name: name.trim_end_matches('?').to_owned(),
        field_type: FieldType::of_postgres(type_name),
        optional: name.ends_with('?'),
    };
    Fields::new(fields.iter().map(field).collect(), schema.as_ref()).unwrap()
}

fn arguments(payload: &str) -> Result<String, String> {
    fields(&[("note?", "text"), ("amount", "numeric"), ("tags?", "text[]"), ("any?", "json")])
        .arguments(payload.as_bytes())
}

#[test]
fn arguments_are_texts_in_the_order_of_the_fields() {
    let payload =
        r#" { "any" : {"a":[1e400000]}, "x": null, "tags":["a","b\""], "amount": 70.00, "note": "é\n\u00e9" } "#;
    assert_eq!(arguments(payload).as_deref(), Ok(r#"["é\né","70.00","{\"a\",\"b\\\"\"}","{\"a\":[1e400000]}"]"#));
    assert_eq!(fields(&[]).arguments(b"{\"a\":1}").as_deref(), Ok("[]"));
}

#[test]
fn arguments_are_json_whatever_the_payload() {
    let types =
        ["smallint", "bigint", "numeric", "real", "boolean", "json", "jsonb", "uuid", "text", "text[]", "jsonb[]"];
    let characters = ["a", "\\\\", "\\\"", "\\n", "é", "\\u0001", "\\u2028", "\u{7f}", "{", ",", "\\ud83e\\udd80"];
    for nth in 0..1000 {
        let text: String = (0..nth % 7).map(|at| characters[(nth * 7 + at * 3) % characters.len()]).collect();
        let values =
            [format!("\"{text}\""), format!("[\"{text}\",null]"), format!("{{\"{text}\":[{nth}]}}"), nth.to_string()];
        for value in &values {
            for type_name in types {
                let Ok(arguments) = fields(&[("a", type_name)]).arguments(format!("{{\"a\":{value}}}").as_bytes())
                else {
                    continue;
                };
                let read: Vec<String> = serde_json::from_str(&arguments).unwrap();
                assert_eq!(read, [FieldType::of_postgres(type_name).text(value).unwrap()], "{type_name} {value}");
            }
        }
    }
}

#[test]
fn what_is_missing_or_null_is_null_only_if_it_is_optional() {
    assert_eq!(arguments(r#"{"amount":1}"#).as_deref(), Ok(r#"[null,"1",null,null]"#));
    assert_eq!(arguments(r#"{"amount":1,"note":null,"any":null}"#).as_deref(), Ok(r#"[null,"1",null,null]"#));
    assert_eq!(arguments("{}"), Err("field amount: missing".into()));
    assert_eq!(arguments(r#"{"amount":null}"#), Err("field amount: expected a number, found null".into()));
    assert_eq!(
        fields(&[("any", "json")]).arguments(b"{\"any\":null}"),
        Err("field any: expected a value, found null".into())
    );
}

#[test]
fn the_reason_names_the_field() {
    assert_eq!(arguments(r#"{"amount":"x"}"#), Err("field amount: expected a number, found \"x\"".into()));
    assert_eq!(
        arguments(r#"{"amount":1,"note":"\u0000"}"#),
        Err("field note: found U+0000, which Postgres cannot store".into())
    );
    assert_eq!(arguments(r#"{"amount":1,"amount":1}"#), Err("field amount: given twice".into()));
    assert_eq!(arguments(r#"{"amount":1,"am\u006funt":1}"#), Err("field amount: given twice".into()));
    assert_eq!(arguments(r#"{"amount":1,"x":1,"x":1}"#).as_deref(), Ok(r#"[null,"1",null,null]"#));
}

#[test]
fn what_is_no_object_has_no_arguments() {
    for payload in [
        "",
        "[1]",
        "null",
        "{",
        r#"{"amount":1} x"#,
        r#"{"amount":1,}"#,
        r#"{"amount":01}"#,
        r#"{amount:1}"#,
        "{\"x\":\"\u{1}\"}",
    ] {
        let why = arguments(payload).expect_err(payload);
        assert!(why.starts_with("the payload is no JSON object: "), "{payload}: {why}");
    }
    assert!(arguments(r#"{"amount":NaN}"#).is_err());
}

#[test]
fn values_that_nobody_uses_may_be_as_deep_and_large_as_they_like() {
    let deep = format!("{}1{}", "[".repeat(200_000), "]".repeat(200_000));
    let payload = format!(r#"{{"x":{deep},"y":1e400000,"z":"\ud800","amount":1}}"#);
    assert_eq!(arguments(&payload).as_deref(), Ok(r#"[null,"1",null,null]"#));
    let why = arguments(&format!(r#"{{"amount":1,"any":{deep}}}"#)).unwrap_err();
    assert_eq!(why, "field any: found JSON nested more than 128 levels deep");
    assert!(arguments(&format!(r#"{{"amount":{deep}}}"#)).is_err());
    assert!(arguments(&format!(r#"{{"amount":1,"tags":{deep}}}"#)).is_err());
}

#[test]
fn every_field_of_many_is_found_by_its_name() {
    let names: Vec<String> = (0..100).map(|nth| format!("f{}", (nth * 37) % 100)).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "text")).collect();
    let entries: Vec<String> = names.iter().rev().map(|name| format!("\"{name}\":\"{name}\"")).collect();
    let payload = format!("{{{}}}", entries.join(","));
    let read: Vec<String> = serde_json::from_str(&fields(&many).arguments(payload.as_bytes()).unwrap()).unwrap();
    assert_eq!(read, names);
}

#[test]
fn a_schema_judges_the_whole_payload() {
    let schema = serde_json::json!({
        "properties": { "amount": { "exclusiveMinimum": 0 }, "inner": { "properties": { "list": { "items": { "type": "string" } } } } },
        "additionalProperties": false,
    });
    let fields = with_schema(&[("amount", "bigint"), ("inner?", "jsonb")], Some(schema));
    let judged = |payload: &str| fields.arguments(payload.as_bytes());
    assert_eq!(judged(r#"{"amount":1}"#).as_deref(), Ok(r#"["1",null]"#));
    let why = judged(r#"{"amount":0}"#).unwrap_err();
    assert!(why.starts_with("the payload does not fit its schema at /amount: 0 "), "{why}");
    let why = judged(r#"{"amount":1,"inner":{"list":["a",1]}}"#).unwrap_err();
    assert!(why.contains("at /inner/list/1: "), "{why}");
    let why = judged(r#"{"amount":1,"more":1}"#).unwrap_err();
    assert!(why.starts_with("the payload does not fit its schema: ") && why.contains("more"), "{why}");
    assert!(judged(&format!(r#"{{"amount":1,"more":"{}"}}"#, "x".repeat(9999))).unwrap_err().len() < 500);
    let deep = format!(r#"{{"amount":1,"more":{}1{}}}"#, "[".repeat(200_000), "]".repeat(200_000));
    assert!(judged(&deep).unwrap_err().contains("recursion limit"));
    assert!(Fields::new(Vec::new(), Some(&serde_json::json!({ "type": 1 }))).is_err());
}
