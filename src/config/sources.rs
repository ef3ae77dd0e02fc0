//! The raw material of a configuration, gathered once, so that loading is a function of values.

use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;

use super::error::Error;

/// The file that is read when none is named; it may be missing.
pub const DEFAULT_FILE: &str = "config/solewriter.toml";

/// Names the file, as `--config` does; the flag wins.
const FILE_VARIABLE: &str = "SOLEWRITER_CONFIG";

/// What a configuration is made of.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file that the user named: it has to exist.
    pub(super) named_file: Option<PathBuf>,
    /// Variables that may concern solewriter, by name.
    pub(super) environment: BTreeMap<String, String>,
    /// Values that win over everything.
    pub(super) explicit: Vec<Explicit>,
}

/// A value that was asked for by name, stronger than any file or variable.
#[derive(Clone, Debug)]
pub(super) struct Explicit {
    pub(super) key: String,
    pub(super) value: toml::Value,
    pub(super) asked_by: String,
}

impl Sources {
    /// No environment; `named_file`, or the default file if it exists.
    #[must_use]
    pub fn of_file(named_file: Option<PathBuf>) -> Self {
        Self { named_file, ..Self::default() }
    }

    /// This process's environment and `named_file`, `SOLEWRITER_CONFIG` or the default file.
    ///
    /// # Errors
    ///
    /// [`Error::NotUnicode`] for a variable that concerns solewriter and is not UTF-8.
    pub fn of_process(named_file: Option<PathBuf>) -> Result<Self, Error> {
        let mut sources = Self::of_file(named_file);
        for (name, value) in env::vars_os() {
            let Some(name) = name.to_str().filter(|name| concerns_solewriter(name)) else {
                continue;
            };
            let value = value.into_string().map_err(|_| Error::NotUnicode { variable: name.to_owned() })?;
            sources.environment.insert(name.to_owned(), value);
        }
        Ok(sources)
    }

    /// Adds one environment variable.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Sets `key` (with its section, e.g. `kafka.group_id`) above every other source; `asked_by` is
    /// what messages name, e.g. `--listen`.
    #[must_use]
    pub fn set(mut self, key: impl Into<String>, value: impl Into<toml::Value>, asked_by: impl Into<String>) -> Self {
        self.explicit.push(Explicit { key: key.into(), value: value.into(), asked_by: asked_by.into() });
        self
    }

    /// The file to read, and whether it has to exist.
    pub(super) fn file(&self) -> (PathBuf, bool) {
        let variable = || self.environment.get(FILE_VARIABLE).filter(|v| !v.is_empty());
        match self.named_file.clone().or_else(|| variable().map(PathBuf::from)) {
            Some(named) => (named, true),
            None => (PathBuf::from(DEFAULT_FILE), false),
        }
    }
}

fn concerns_solewriter(name: &str) -> bool {
    name.starts_with("SOLEWRITER__") || [FILE_VARIABLE, "DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS"].contains(&name)
}
