//! Where a value came from, so that a message can send the reader to the right place.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// The place in which a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// Nowhere: solewriter's own default, or a configuration that was built in code.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A file that a `…_FILE` variable names.
    EnvironmentFile {
        /// The variable.
        variable: String,
        /// The file.
        path: PathBuf,
    },
    /// A flag of the command line, or a verb that insists on a value.
    Explicit(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the defaults"),
            Self::File(path) => path.display().fmt(f),
            Self::Environment(variable) => write!(f, "environment variable {variable}"),
            Self::EnvironmentFile { variable, path } => {
                write!(f, "{} (named by {variable})", path.display())
            }
            Self::Explicit(flag) => f.write_str(flag),
        }
    }
}

/// Origin of each value that is not a default, by dotted key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(BTreeMap<String, Origin>);

impl Origins {
    /// Where `key` was written: itself, or the nearest list or section that holds it.
    #[must_use]
    pub fn of(&self, key: &str) -> Origin {
        let mut key = key;
        loop {
            if let Some(origin) = self.0.get(key) {
                return origin.clone();
            }
            match key.rfind(['.', '[']) {
                Some(end) => key = &key[..end],
                None => return Origin::Default,
            }
        }
    }

    /// Every value that is not a default, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Origin)> {
        self.0.iter().map(|(key, origin)| (key.as_str(), origin))
    }

    pub(super) fn record(&mut self, key: String, origin: Origin) {
        self.0.insert(key, origin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_inside_a_list_has_the_origin_of_the_list() {
        let mut origins = Origins::default();
        origins.record("topics".into(), Origin::Environment("T".into()));
        assert_eq!(origins.of("topics[2].name"), Origin::Environment("T".into()));
    }

    #[test]
    fn a_key_that_nobody_wrote_is_a_default() {
        assert_eq!(Origins::default().of("worker.drain_timeout"), Origin::Default);
    }
}
