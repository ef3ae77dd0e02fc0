//! A command as one line of JSON: `{"key": …, "type": …, "data": {…}}` and, to repeat an earlier one,
//! `"id"`.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::Command;
use super::command::kind;
use crate::config::nearest;
use crate::steps::receive::parse_id;

const MEMBERS: [&str; 4] = ["key", "type", "data", "id"];
const FORM: &str = r#"{"key":"…","type":"…","data":{…}}"#;

/// What a line says.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) command: Command,
    /// It has an id of its own; else one was made for it.
    pub(crate) names_id: bool,
}

/// The command, or what is wrong with the line.
pub(crate) fn parse(line: &[u8]) -> Result<Given, String> {
    read(line).map_err(|why| format!("no command: {why}"))
}

fn read(line: &[u8]) -> Result<Given, String> {
    let mut members: Members = serde_json::from_slice(line).map_err(|error| no_object(&error))?;
    members.check_names()?;
    let (key, command_type) = (members.text("key")?, members.text("type")?);
    let command =
        Command::from_json(command_type, key, members.required("data")?).map_err(|error| error.to_string())?;
    match members.take("id").filter(|id| id.get() != "null") {
        None => Ok(Given { command, names_id: false }),
        Some(id) => {
            let command = command.with_id(parse_id(&text("id", &id)?)?).map_err(|error| error.to_string())?;
            Ok(Given { command, names_id: true })
        }
    }
}

/// The members of the line's object, in their order.
struct Members(Vec<(String, Box<RawValue>)>);

impl Members {
    /// A member that is misspelt must not be taken for one that is missing: a lost id would make
    /// another command.
    fn check_names(&self) -> Result<(), String> {
        for (nth, (name, _)) in self.0.iter().enumerate() {
            if !MEMBERS.contains(&name.as_str()) {
                return Err(match nearest(&name.to_lowercase(), &MEMBERS) {
                    Some(meant) => format!("it has {name:?}: did you mean {meant:?}?"),
                    None => {
                        format!("it has {name:?}, but a command has key, type and data, and an id if it repeats one")
                    }
                });
            }
            if self.0[..nth].iter().any(|(other, _)| other == name) {
                return Err(format!("it has {name:?} twice"));
            }
        }
        Ok(())
    }

    fn take(&mut self, name: &str) -> Option<Box<RawValue>> {
        let at = self.0.iter().position(|(member, _)| member == name)?;
        Some(self.0.swap_remove(at).1)
    }

    fn required(&mut self, name: &str) -> Result<Box<RawValue>, String> {
        self.take(name).ok_or_else(|| format!("it has no {name:?}: write {FORM}"))
    }

    fn text(&mut self, name: &str) -> Result<String, String> {
        text(name, &self.required(name)?)
    }
}

fn text(name: &str, value: &RawValue) -> Result<String, String> {
    serde_json::from_str(value.get()).map_err(|_| format!("its {name:?} is {}: write a text in quotes", kind(value)))
}

/// In words for who writes the line, not for who knows the parser; which counts lines, too, and for
/// it there is only one.
fn no_object(error: &serde_json::Error) -> String {
    let at = error.column();
    match error.classify() {
        Category::Data => format!("the line is JSON, but no object: write {FORM}"),
        Category::Eof => format!("the line ends too early: a brace or a quote is missing; write {FORM}"),
        Category::Syntax | Category::Io => format!("the line is no JSON at column {at}: write {FORM}"),
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        from.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(line: &str) -> String {
        let refusal = parse(line.as_bytes()).expect_err("no command");
        refusal.strip_prefix("no command: ").unwrap_or_else(|| panic!("{refusal}")).to_owned()
    }

    #[test]
    fn a_line_is_a_command_with_its_bytes_and_its_id() {
        let id = "01990000-0000-7000-8000-00000000000A";
        let line = format!(r#"{{"key":"a","type":"t","data":{{ "n": 1.0 }},"id":"{id}"}}"#);
        let Given { command, names_id } = parse(line.as_bytes()).expect("a command");
        assert_eq!((command.id().to_string(), names_id), (id.to_lowercase(), true));
        assert_eq!((command.key(), command.command_type(), command.data().get()), ("a", "t", r#"{ "n": 1.0 }"#));
        for line in [r#"{"key":"a","type":"t","data":{}}"#, r#"{"data":{},"id":null,"type":"t","key":"a"}"#] {
            let fresh = parse(line.as_bytes()).expect("a command");
            assert_eq!((fresh.command.id().get_version_num(), fresh.names_id), (7, false));
        }
    }

    #[test]
    fn a_line_is_refused_in_words_for_who_has_written_it() {
        assert!(refusal("{").starts_with("the line ends too early: "));
        assert!(refusal("nonsense").starts_with("the line is no JSON at column 2: write {"));
        assert!(refusal(r#"["a"]"#).starts_with("the line is JSON, but no object: "));
        assert!(refusal(r#"{"type":"t","data":{}}"#).starts_with(r#"it has no "key": write {"#));
        assert!(refusal(r#"{"key":7,"type":"t","data":{}}"#).starts_with(r#"its "key" is a number: "#));
        assert!(refusal(r#"{"key":"","type":"t","data":{}}"#).contains("entity id"));
        let array = refusal(r#"{"key":"a","type":"t","data":[1]}"#);
        assert!(array.contains("object") && array.contains("an array") && !array.contains("struct"), "{array}");
        assert!(refusal(r#"{"key":"a","type":"t","data":{},"id":"x"}"#).contains("command id"));
    }

    #[test]
    fn a_member_that_is_misspelt_or_given_twice_is_named() {
        assert_eq!(refusal(r#"{"key":"a","typ":"t","data":{}}"#), r#"it has "typ": did you mean "type"?"#);
        assert_eq!(refusal(r#"{"key":"a","type":"t","data":{},"ID":"x"}"#), r#"it has "ID": did you mean "id"?"#);
        assert!(refusal(r#"{"key":"a","type":"t","data":{},"colour":"x"}"#).starts_with(r#"it has "colour", but "#));
        assert_eq!(refusal(r#"{"key":"a","key":"b","type":"t","data":{}}"#), r#"it has "key" twice"#);
    }
}
