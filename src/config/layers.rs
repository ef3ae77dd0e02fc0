//! Lays the sources over each other in one table, and remembers who wrote what.

use std::path::{Path, PathBuf};
use std::{fs, io};

use toml::{Table, Value};

use super::environment;
use super::error::{Error, Invalid};
use super::origin::{Origin, Origins};
use super::sources::Sources;

/// What other tools call these two keys: obeyed where nothing of solewriter's own speaks.
const CONVENTIONAL_VARIABLES: [(&str, &str, &str); 2] =
    [("DATABASE_URL", "database", "url"), ("KAFKA_BOOTSTRAP_SERVERS", "kafka", "bootstrap_servers")];

/// All sources as one table, not yet checked.
pub(super) struct Layers {
    pub(super) table: Table,
    pub(super) origins: Origins,
    /// The directory of the file; empty, the working directory, if there is none.
    pub(super) directory: PathBuf,
}

pub(super) fn collect(sources: &Sources) -> Result<Layers, Error> {
    let mut layers = read_file(sources)?;
    for setting in environment::settings(&sources.environment)? {
        layers.set(&setting.path, setting.value, setting.origin)?;
    }
    for explicit in &sources.explicit {
        let path: Vec<String> = explicit.key.split('.').map(str::to_owned).collect();
        let origin = Origin::Explicit(explicit.asked_by.clone());
        layers.set(&path, explicit.value.clone(), origin)?;
    }
    layers.fill_from_conventional_variables(sources)?;
    Ok(layers)
}

fn read_file(sources: &Sources) -> Result<Layers, Error> {
    let (path, has_to_exist) = sources.file();
    let mut directory = path.parent().map(Path::to_owned).unwrap_or_default();
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && has_to_exist => {
            return Err(Error::FileMissing { path });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            directory = PathBuf::new();
            String::new()
        }
        Err(source) => return Err(Error::FileUnreadable { path, source }),
    };
    let table: Table = text.parse().map_err(|error| syntax(&path, &text, &error))?;
    let mut origins = Origins::default();
    record_values(&table, "", &Origin::File(path), &mut origins);
    Ok(Layers { table, origins, directory })
}

/// Rebuilds the location from the span: the parser's own message quotes the line, and the line that
/// is most often malformed is the one with the password.
fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> Error {
    let start = error.span().map_or(0, |span| span.start);
    let before = text.get(..start).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Error::Syntax {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        message: error.message().replace('\n', ", "),
    }
}

/// Records the leaves; a list counts as one value.
fn record_values(table: &Table, prefix: &str, origin: &Origin, origins: &mut Origins) {
    for (key, value) in table {
        let key = format!("{prefix}{key}");
        match value {
            Value::Table(inner) => record_values(inner, &format!("{key}."), origin, origins),
            _ => origins.record(key, origin.clone()),
        }
    }
}

impl Layers {
    fn set(&mut self, path: &[String], value: Value, origin: Origin) -> Result<(), Error> {
        let Some((key, sections)) = path.split_last() else {
            return Ok(());
        };
        let mut table = &mut self.table;
        for (depth, section) in sections.iter().enumerate() {
            let entry = table.entry(section.as_str()).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(inner) = entry else {
                let key = path[..=depth].join(".");
                return Err(not_a_section(&key, path, origin));
            };
            table = inner;
        }
        table.insert(key.clone(), value);
        self.origins.record(path.join("."), origin);
        Ok(())
    }

    fn fill_from_conventional_variables(&mut self, sources: &Sources) -> Result<(), Error> {
        for (variable, section, key) in CONVENTIONAL_VARIABLES {
            let written = self.table.get(section).and_then(|table| table.get(key));
            // Compose files and CI systems pass variables through empty; that says nothing.
            let value = sources.environment.get(variable).filter(|v| !v.is_empty());
            if let (None, Some(value)) = (written, value) {
                let path = [section.to_owned(), key.to_owned()];
                let origin = Origin::Environment(variable.to_owned());
                self.set(&path, Value::String(value.clone()), origin)?;
            }
        }
        Ok(())
    }
}

fn not_a_section(key: &str, path: &[String], origin: Origin) -> Error {
    let full_key = path.join(".");
    let problem = format!("{key} is set as a whole, so a part of it cannot be set");
    let mut origins = Origins::default();
    origins.record(full_key.clone(), origin);
    Invalid::new(full_key, problem).found_in(&origins)
}
