//! The configuration in effect, for eyes: secrets hidden, origins named.

use std::fmt::Write as _;

use serde_json::Value as Json;

use super::Config;
use super::origin::Origin;

impl Config {
    /// The configuration in effect as TOML; a comment names the origin of each value that is not a
    /// default. Secrets are hidden.
    #[must_use]
    pub fn show(&self) -> String {
        let mut shown = String::new();
        for line in lines(self) {
            // Writing to a String cannot fail.
            let _ = match (&line.key, self.origin_of(&line)) {
                (Some(_), Some(origin)) => writeln!(shown, "{}  # {origin}", line.text),
                _ => writeln!(shown, "{}", line.text),
            };
        }
        shown
    }

    /// The same as JSON, with the origins by key under `origins`.
    #[must_use]
    pub fn show_json(&self) -> Json {
        let mut shown = serde_json::to_value(self).unwrap_or_default();
        let origins = self.origins.iter();
        shown["origins"] = origins
            .map(|(key, origin)| (key.to_owned(), Json::String(origin.to_string())))
            .collect::<serde_json::Map<_, _>>()
            .into();
        shown
    }

    fn origin_of(&self, line: &Line) -> Option<Origin> {
        let origin = self.origins.of(line.key.as_deref()?);
        (origin != Origin::Default).then_some(origin)
    }
}

/// One line of a configuration that was written as TOML.
pub(super) struct Line {
    /// The line itself.
    pub(super) text: String,
    /// Name of the section that it stands in, or that it opens; empty before the first.
    pub(super) section: String,
    /// The dotted key of a setting; nothing for a section's header or an empty line.
    pub(super) key: Option<String>,
}

/// The configuration as TOML, by line: the serializer writes one setting per line, in the order of
/// the fields.
pub(super) fn lines(config: &Config) -> Vec<Line> {
    // Every type of a configuration has a TOML form, so this does not fail.
    let text = toml::to_string(config).unwrap_or_default();
    let mut section = String::new();
    text.lines()
        .map(|text| {
            if text.starts_with('[') {
                text.trim_matches(['[', ']']).clone_into(&mut section);
            }
            Line {
                key: setting_of(text).map(|name| join(&section, name)),
                text: text.to_owned(),
                section: section.clone(),
            }
        })
        .collect()
}

fn setting_of(line: &str) -> Option<&str> {
    let (name, _) = line.split_once(" = ")?;
    (!line.starts_with('[')).then(|| name.trim_matches('"'))
}

fn join(section: &str, name: &str) -> String {
    if section.is_empty() {
        return name.to_owned();
    }
    format!("{section}.{name}")
}
