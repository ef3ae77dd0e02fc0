//! From files to declarations: what a file may have at its top, and what no two files may both have.

use std::fs;
use std::sync::Arc;

use toml::de::DeTable;

use super::declaration::{Declarations, TablesScript};
use super::diagnostic::{Diagnostic, Diagnostics, Place};
use super::files;
use super::files::Found;
use super::kind::FILE;
use super::read_command::read_command;
use super::read_write::read_write;
use super::reader::{Reader, Section};
use crate::config::{Config, nearest};

impl Declarations {
    /// Reads the files of the configuration's `commands`, and checks what needs no database: the
    /// declarations that are in order, and all mistakes of all files. Whoever runs commands refuses
    /// to if there is any; the rest is there so that it can be checked, too.
    #[must_use]
    pub fn load(config: &Config) -> (Self, Diagnostics) {
        declarations(config, files::find(config))
    }
}

/// What is in order of all that the files declare, and every mistake in them.
fn declarations(config: &Config, files: Vec<Result<Found, Diagnostic>>) -> (Declarations, Diagnostics) {
    let mut declarations = Declarations::default();
    let mut mistakes = Vec::new();
    for found in files {
        match found {
            Ok(found) => mistakes.extend(read_file(config, &found, &mut declarations)),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    let commands = declarations.commands.iter();
    let mut again = twice("command type", commands.map(|c| (&c.entity, &c.command_type, &c.place)));
    again.extend(twice("write", declarations.writes.iter().map(|w| (&w.entity, &w.name, &w.place))));
    let is_first = |place: &Place| !again.iter().any(|mistake| mistake.place == *place);
    declarations.commands.retain(|command| is_first(&command.place));
    declarations.writes.retain(|write| is_first(&write.place));
    mistakes.extend(again);
    (declarations, Diagnostics(mistakes))
}

/// Adds what of one file is in order; the mistakes, in order of lines.
fn read_file(config: &Config, found: &Found, declarations: &mut Declarations) -> Vec<Diagnostic> {
    let mut reader = Reader::new(found.file.clone());
    let (document, errors) = DeTable::parse_recoverable(&found.file.text);
    if !errors.is_empty() {
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            reader.refuse(at, error.message().replace('\n', ", "), "correct the TOML here");
        }
        // what is left of the file would only give rise to mistakes that are none
        return reader.mistakes;
    }
    let top = Section { table: document.get_ref(), at: 0, kind: &FILE };
    reader.check_keys(top);
    let entity = read_entity(&mut reader, top, config);
    let entity = entity.unwrap_or_else(|| Arc::from(""));
    for command in reader.items(top, "command", "write [[command]]") {
        let before = reader.mistakes.len();
        let read = read_command(&mut reader, command, &entity, &found.directory);
        declarations.commands.extend(read.filter(|_| reader.mistakes.len() == before));
    }
    for write in reader.items(top, "write", "write [[write]]") {
        let before = reader.mistakes.len();
        let read = read_write(&mut reader, write, &entity);
        declarations.writes.extend(read.filter(|_| reader.mistakes.len() == before));
    }
    declarations.tables.extend(read_tables(&mut reader, top, found));
    let declares = |key: &str| top.table.contains_key(key) || top.has_slip_of(key);
    if !["tables", "command", "write"].into_iter().any(declares) {
        reader.refuse(0, "the file declares nothing", "add a [[command]], or do not name the file in commands");
    }
    reader.mistakes.sort_by_key(|mistake| mistake.place.at);
    reader.mistakes
}

fn read_entity(reader: &mut Reader, top: Section<'_, '_>, config: &Config) -> Option<Arc<str>> {
    let entity = reader.required_text(top, "entity", "entity = \"account\"")?;
    let entities: Vec<&str> = config.topics.iter().map(|topic| topic.entity.as_str()).collect();
    if !entities.contains(&entity.value.as_str()) {
        let cure = match nearest(&entity.value, &entities) {
            Some(nearest) => format!("did you mean {nearest}?"),
            None => format!("add [[topics]] with entity = {:?} to the configuration", entity.value),
        };
        reader.refuse_at(entity.place, format!("no topic carries the entity {}", entity.value), cure);
    }
    Some(entity.value.into())
}

fn read_tables(reader: &mut Reader, top: Section<'_, '_>, found: &Found) -> Option<TablesScript> {
    let tables = reader.optional_text(top, "tables")?;
    let path = found.directory.join(&tables.value);
    match fs::read_to_string(&path) {
        Ok(sql) => Some(TablesScript { place: tables.place, path: path.display().to_string(), sql }),
        Err(error) => {
            let problem = format!("{} cannot be read: {error}", path.display());
            reader.refuse_at(tables.place, problem, "name a script that is there, relative to this file");
            None
        }
    }
}

/// A mistake for each name that its entity has already.
fn twice<'d>(what: &str, declared: impl Iterator<Item = (&'d Arc<str>, &'d Arc<str>, &'d Place)>) -> Vec<Diagnostic> {
    let mut known: Vec<(&str, &str, &Place)> = Vec::new();
    let mut mistakes = Vec::new();
    // a file that names no entity is told so
    for (entity, name, place) in declared.filter(|(entity, ..)| !entity.is_empty()) {
        match known.iter().find(|(known_entity, known, _)| *known_entity == &**entity && *known == &**name) {
            Some((_, _, first)) => mistakes.push(Diagnostic {
                place: place.clone(),
                problem: format!("the {what} {name} is declared twice for {entity}"),
                cure: format!("remove one of them; the other is at {first}"),
            }),
            None => known.push((entity, name, place)),
        }
    }
    mistakes
}

#[cfg(test)]
mod tests;
