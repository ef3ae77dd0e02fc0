//! A command as one line of JSON: `{"key": …, "type": …, "data": {…}}` and, to repeat an earlier one,
//! `"id"`.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Command;
use crate::steps::receive::parse_id;

/// A field that is misspelt must not be taken for one that is missing: a lost id would make another
/// command.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    key: String,
    #[serde(rename = "type")]
    command_type: String,
    data: Box<RawValue>,
    id: Option<String>,
}

/// The command, or what is wrong with the line.
pub(crate) fn parse(line: &[u8]) -> Result<Command, String> {
    let given: Given = serde_json::from_slice(line).map_err(|error| no_command(&error))?;
    let command = Command::from_json(given.command_type, given.key, given.data).map_err(|error| error.to_string())?;
    match given.id {
        None => Ok(command),
        Some(id) => command.with_id(parse_id(&id)?).map_err(|error| error.to_string()),
    }
}

/// The parser counts lines, too, and for it there is only one.
fn no_command(error: &serde_json::Error) -> String {
    format!("no command: {}", error.to_string().replace(" at line 1 column ", " at column "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(line: &str) -> String {
        parse(line.as_bytes()).expect_err("no command")
    }

    #[test]
    fn a_line_is_a_command_with_its_bytes_and_its_id() {
        let id = "01990000-0000-7000-8000-00000000000A";
        let line = format!(r#"{{"key":"a","type":"t","data":{{ "n": 1.0 }},"id":"{id}"}}"#);
        let command = parse(line.as_bytes()).expect("a command");
        assert_eq!(command.id().to_string(), id.to_lowercase());
        assert_eq!((command.key(), command.command_type(), command.data().get()), ("a", "t", r#"{ "n": 1.0 }"#));
        let fresh = parse(br#"{"key":"a","type":"t","data":{}}"#).expect("a command");
        assert_eq!(fresh.id().get_version_num(), 7);
    }

    #[test]
    fn a_line_is_refused_with_the_reason() {
        assert!(refusal("{").starts_with("no command: "));
        assert!(refusal(r#"{"type":"t","data":{}}"#).contains("key"));
        assert!(refusal(r#"{"key":"a","type":"t","data":{},"Id":"x"}"#).contains("Id"));
        assert!(refusal(r#"{"key":"","type":"t","data":{}}"#).contains("entity id"));
        assert!(refusal(r#"{"key":"a","type":"t","data":[1]}"#).contains("object"));
        assert!(refusal(r#"{"key":"a","type":"t","data":{},"id":"x"}"#).contains("command id"));
        assert!(!refusal("{").contains("line 1"));
    }
}
