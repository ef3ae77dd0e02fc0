//! The sample commands of a project with commands in SQL: `dev.jsonl`, a command per line, as
//! `publish` reads it. Its lines are sent in order, and when all are sent, again under other keys, so
//! that what opens or creates something goes on being applied. In strings `{round}` is the number of
//! the pass; a key that has it is not changed otherwise.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

use super::{Error, Sample};
use crate::client::line::parse;
use crate::config::{Config, nearest};
use crate::worker::Worker;

/// Beside the configuration file, or in the directory above.
const FILE: &str = "dev.jsonl";

/// In strings: the number of the pass.
const ROUND: &str = "{round}";

/// The lines, and which is next.
#[derive(Debug)]
pub(super) struct Script {
    /// At least one.
    lines: Vec<Line>,
    next: usize,
    /// From 1.
    pass: u64,
    /// The length of the longest key that is a number.
    digits_max: usize,
}

#[derive(Debug)]
struct Line {
    entity_type: Arc<str>,
    sample: Sample,
}

impl Script {
    /// Reads the file of the project that this configuration describes. `types` are the command
    /// types that there are, each with its entity type.
    pub(super) fn of_project(config: &Config, types: &[(Arc<str>, Arc<str>)]) -> Result<Self, Error> {
        let places = places(&config.directory);
        for place in &places {
            match fs::read_to_string(place) {
                Ok(text) => {
                    return Self::parse(&place.display().to_string(), &text, types).map_err(Error::NothingToRun);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io(format!("read {}", place.display()))(error)),
            }
        }
        Err(Error::NothingToRun(missing(&places, types)))
    }

    fn parse(file: &str, text: &str, types: &[(Arc<str>, Arc<str>)]) -> Result<Self, String> {
        let mut lines = Vec::new();
        let mut mistakes = Vec::new();
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
            match read(line, types) {
                Ok(line) => lines.push(line),
                Err(mistake) => mistakes.push(format!("{file}:{number}: {mistake}")),
            }
        }
        if lines.is_empty() && mistakes.is_empty() {
            mistakes.push(format!("{file} is empty: write a command per line, such as\n{}", example(types)));
        }
        if !mistakes.is_empty() {
            return Err(mistakes.join("\n"));
        }
        let numbers = lines.iter().map(|line| &line.sample.entity_id).filter(|key| is_number(key));
        let digits_max = numbers.map(String::len).max().unwrap_or(0);
        Ok(Self { lines, next: 0, pass: 1, digits_max })
    }

    /// The next command, and for whom it is.
    pub(super) fn next(&mut self) -> (Arc<str>, Sample) {
        let Line { entity_type, sample } = &self.lines[self.next];
        let key = &sample.entity_id;
        let entity_id = match self.pass {
            pass if key.contains(ROUND) => in_round(key, pass),
            1 => key.clone(),
            pass => self.key_like(key, pass),
        };
        let command =
            (entity_type.clone(), Sample { entity_id, data: data_in_round(sample, self.pass), ..sample.clone() });
        self.next += 1;
        if self.next == self.lines.len() {
            (self.next, self.pass) = (0, self.pass + 1);
        }
        command
    }

    /// The first command, to an entity of its own: `key`, if the keys of the file are words.
    pub(super) fn to_try(&self, key: &str) -> (Arc<str>, Sample) {
        let Line { entity_type, sample } = &self.lines[0];
        let like = &sample.entity_id;
        let is_word = !is_number(like) && Uuid::try_parse(like).is_err();
        // no pass has these numbers
        let entity_id = match is_word {
            true if like.contains(ROUND) => in_round(like, 0),
            true => key.to_owned(),
            false => self.key_like(like, 1),
        };
        (entity_type.clone(), Sample { entity_id, data: data_in_round(sample, 0), ..sample.clone() })
    }

    /// Another key of the same kind: a statement may take it for a uuid or for a number.
    fn key_like(&self, key: &str, pass: u64) -> String {
        if let Ok(id) = Uuid::try_parse(key) {
            return Uuid::new_v5(&id, &pass.to_be_bytes()).to_string();
        }
        if is_number(key) {
            let width = self.digits_max;
            return format!("{pass}{key:0>width$}");
        }
        format!("{key}-{pass}")
    }
}

fn in_round(text: &str, pass: u64) -> String {
    text.replace(ROUND, &pass.to_string())
}

/// In JSON these characters stand nowhere but in a string.
fn data_in_round(sample: &Sample, pass: u64) -> Vec<u8> {
    match std::str::from_utf8(&sample.data) {
        Ok(data) if data.contains(ROUND) => in_round(data, pass).into_bytes(),
        _ => sample.data.clone(),
    }
}

fn is_number(key: &str) -> bool {
    key.bytes().all(|byte| byte.is_ascii_digit())
}

fn read(line: &str, types: &[(Arc<str>, Arc<str>)]) -> Result<Line, String> {
    let command = parse(line.as_bytes())?.command;
    let Some((_, entity_type)) = types.iter().find(|(known, _)| **known == *command.command_type()) else {
        let known: Vec<&str> = types.iter().map(|(known, _)| &**known).collect();
        let cure = match nearest(command.command_type(), &known) {
            Some(nearest) => format!("did you mean {nearest}?"),
            None => format!("there are {}", known.join(", ")),
        };
        return Err(format!("no command of type {} is declared; {cure}", command.command_type()));
    };
    let sample = Sample {
        entity_id: command.key().to_owned(),
        command_type: command.command_type().to_owned(),
        data: command.data().get().as_bytes().to_vec(),
        adds: 0,
    };
    Ok(Line { entity_type: entity_type.clone(), sample })
}

/// Where the file may be.
fn places(directory: &Path) -> [PathBuf; 2] {
    let above = match (directory.file_name(), directory.parent()) {
        (Some(_), Some(parent)) => parent.to_owned(),
        // the working directory, or one that is named by dots
        _ => directory.join(".."),
    };
    [directory.join(FILE), above.join(FILE)]
}

fn missing([beside, above]: &[PathBuf; 2], types: &[(Arc<str>, Arc<str>)]) -> String {
    format!(
        "dev sends sample commands, and there are none: write some to {} or {}, one per line, such as\n{}",
        beside.display(),
        above.display(),
        example(types)
    )
}

fn example(types: &[(Arc<str>, Arc<str>)]) -> String {
    let (command_type, entity_type) =
        types.first().map_or(("account.open", "account"), |(command_type, entity)| (&**command_type, &**entity));
    format!(r#"{{"key":"{entity_type}-1","type":"{command_type}","data":{{…}}}}"#)
}

/// The command types of a worker and of what it has read, each with its entity type.
pub(super) fn types(worker: &Worker) -> Vec<(Arc<str>, Arc<str>)> {
    let declared = worker.declared.iter().flat_map(|declared| &declared.declarations().commands);
    let mut types: Vec<_> = declared.map(|command| (command.command_type.clone(), command.entity.clone())).collect();
    for entity in worker.entity_types() {
        let names = worker.handlers(entity).map(|handlers| handlers.command_names()).unwrap_or_default();
        types.extend(names.into_iter().map(|name| (name, entity.into())));
    }
    types
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<(Arc<str>, Arc<str>)> {
        vec![("card.issue".into(), "card".into()), ("card.redeem".into(), "card".into())]
    }

    fn keys(of: &[&str], count: usize) -> Vec<String> {
        let line = |key: &&str| format!(r#"{{"key":"{key}","type":"card.issue","data":{{}}}}"#);
        let text = of.iter().map(line).collect::<Vec<_>>().join("\n");
        let mut script = Script::parse("dev.jsonl", &text, &known()).expect("a script");
        (0..count).map(|_| script.next().1.entity_id).collect()
    }

    #[test]
    fn each_pass_has_keys_of_its_own_of_the_same_kind() {
        assert_eq!(keys(&["a", "b"], 5), ["a", "b", "a-2", "b-2", "a-3"]);
        assert_eq!(keys(&["7", "42"], 4), ["7", "42", "207", "242"]);
        let uuid = "01990000-0000-7000-8000-00000000000a";
        let keys = keys(&[uuid], 3);
        assert_eq!(keys[0], uuid);
        assert!(Uuid::try_parse(&keys[1]).is_ok() && keys[1] != keys[2] && keys[1] != uuid, "{keys:?}");
    }

    #[test]
    fn a_string_may_name_the_round() {
        let line = r#"{"key":"KEY","type":"card.issue","data":{"no":"2026-{round}-1","n":{"round":1}}}"#;
        let text = ["a", "b-{round}"].map(|key| line.replace("KEY", key)).join("\n");
        let mut script = Script::parse("dev.jsonl", &text, &known()).expect("a script");
        let mut sent = || {
            let Sample { entity_id, data, .. } = script.next().1;
            format!("{entity_id} {}", String::from_utf8(data).expect("text"))
        };
        let expected = |key: &str, round: u32| format!(r#"{key} {{"no":"2026-{round}-1","n":{{"round":1}}}}"#);
        assert_eq!([sent(), sent()], [expected("a", 1), expected("b-1", 1)]);
        assert_eq!([sent(), sent()], [expected("a-2", 2), expected("b-2", 2)]);
        let tried = script.to_try("mine").1;
        assert_eq!((tried.entity_id.as_str(), tried.data), ("mine", br#"{"no":"2026-0-1","n":{"round":1}}"#.to_vec()));
    }

    #[test]
    fn every_mistake_is_named_with_its_line() {
        let text = "{\"key\":\"a\",\"type\":\"card.isue\",\"data\":{}}\n\nnonsense\n";
        let said = Script::parse("dev.jsonl", text, &known()).expect_err("mistakes");
        assert!(said.starts_with("dev.jsonl:1: no command of type card.isue is declared; did you mean card.issue?\n"));
        assert!(said.contains("\ndev.jsonl:3: no command: "), "{said}");
        assert!(Script::parse("dev.jsonl", "\n", &known()).expect_err("empty").contains("card.issue"));
    }

    #[test]
    fn the_file_is_beside_the_configuration_or_above() {
        let found = |directory: &str| places(Path::new(directory)).map(|place| place.display().to_string());
        assert_eq!(found("config"), ["config/dev.jsonl", "dev.jsonl"]);
        assert_eq!(found("/a/b"), ["/a/b/dev.jsonl", "/a/dev.jsonl"]);
        assert_eq!(found(""), ["dev.jsonl", "../dev.jsonl"]);
        assert_eq!(found(".."), ["../dev.jsonl", "../../dev.jsonl"]);
    }

    #[test]
    fn what_to_write_where_is_said() {
        let config = Config { directory: "/nowhere/config".into(), ..Config::default() };
        let said = Script::of_project(&config, &known()).expect_err("no file").to_string();
        assert!(said.contains("/nowhere/config/dev.jsonl or /nowhere/dev.jsonl"), "{said}");
        assert!(said.contains(r#"{"key":"card-1","type":"card.issue","data":{…}}"#), "{said}");
    }
}
