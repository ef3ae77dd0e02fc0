//! What can be wrong with a configuration. None of it heals by itself: the process ends with code 2.

use std::io;
use std::path::PathBuf;

use super::origin::{Origin, Origins};

/// Why a configuration was refused. No message contains the value of a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file was named, so running on the defaults instead would be a guess.
    #[error("configuration file {} does not exist", path.display())]
    FileMissing {
        /// The file, as it was named.
        path: PathBuf,
    },
    /// The file is there and cannot be read: permissions, a directory, not UTF-8.
    #[error("configuration file {} cannot be read", path.display())]
    FileUnreadable {
        /// The file, as it was named.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is not TOML. The offending line is not quoted: it may hold a password.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Syntax {
        /// The file, as it was named.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What the parser expected.
        message: String,
    },
    /// A key that solewriter does not have; silence would hide a typo.
    #[error("unknown key {key} in {origin}{hint}")]
    UnknownKey {
        /// The key with its section.
        key: String,
        /// Where it was written.
        origin: Origin,
        /// `: did you mean …?`, or nothing.
        hint: String,
    },
    /// A value of the wrong type, out of range, or one that contradicts another.
    #[error("{key} in {origin}: {problem}")]
    Invalid {
        /// The key with its section.
        key: String,
        /// Where the value was written.
        origin: Origin,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A value that this verb needs and that has no default.
    #[error("{key} is not set: {cure}")]
    Missing {
        /// The key with its section.
        key: &'static str,
        /// The ways to set it.
        cure: &'static str,
    },
    /// Two variables claim one key, and neither is the obvious winner.
    #[error("{variable} and {variable}_FILE are both set: unset one of them")]
    SetTwice {
        /// The variable without `_FILE`.
        variable: String,
    },
    /// A `…_FILE` variable names a file that cannot be read.
    #[error("{variable} names {}, which cannot be read", path.display())]
    ValueFile {
        /// The variable with `_FILE`.
        variable: String,
        /// The file that it names.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// An environment variable that concerns solewriter is not UTF-8.
    #[error("environment variable {variable} is not UTF-8")]
    NotUnicode {
        /// Its name, made readable.
        variable: String,
    },
}

impl Error {
    /// A value that did not fit its type, found while deserializing.
    pub(super) fn malformed(error: &serde_path_to_error::Error<toml::de::Error>, origins: &Origins) -> Self {
        // The inner error's `Display` would add a location in a text that does not exist.
        let problem = error.inner().message().to_owned();
        Invalid::new(error.path().to_string(), problem).found_in(origins)
    }
}

/// A problem with a key, before it is known where the key was written.
#[derive(Debug)]
pub(super) struct Invalid {
    pub(super) key: String,
    pub(super) problem: String,
}

impl Invalid {
    pub(super) fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), problem: problem.into() }
    }

    pub(super) fn found_in(self, origins: &Origins) -> Error {
        Error::Invalid { origin: origins.of(&self.key), key: self.key, problem: self.problem }
    }
}
