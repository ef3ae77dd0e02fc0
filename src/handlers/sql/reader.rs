//! Reads the values of a TOML file, each with its place, and collects what is wrong with them.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Place, SourceFile};
use super::kind::Kind;
use crate::handlers::rejection::is_kebab_case;

/// A value and the bytes at which it stands.
pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// One file, and the mistakes found in it so far.
pub(super) struct Reader {
    pub(super) file: Arc<SourceFile>,
    pub(super) mistakes: Vec<Diagnostic>,
}

/// A string of the file.
#[derive(Clone)]
pub(super) struct Text {
    pub(super) value: String,
    /// Where its first character stands, behind the quotes; with escapes in it, the quotes.
    pub(super) place: Place,
}

/// A table, its place, and what it is.
#[derive(Clone, Copy)]
pub(super) struct Section<'t, 'i> {
    pub(super) table: &'t DeTable<'i>,
    pub(super) at: usize,
    pub(super) kind: &'static Kind,
}

impl Section<'_, '_> {
    /// The key is there, misspelt or in a table within: that is told, and what comes of it is not.
    pub(super) fn has_slip_of(&self, key: &str) -> bool {
        let misspelt = || self.unknown_keys().any(|unknown| self.kind.meant(unknown) == Some(key));
        !self.table.contains_key(key) && (misspelt() || stands_within(self.table, self.kind, key))
    }

    /// It has a key that nobody has read.
    pub(super) fn has_unknown_key(&self) -> bool {
        self.unknown_keys().next().is_some()
    }

    fn unknown_keys(&self) -> impl Iterator<Item = &str> {
        let keys = self.table.keys().map(|key| key.get_ref().as_ref());
        keys.filter(|key| !self.kind.keys.contains(key))
    }
}

impl Reader {
    pub(super) fn new(file: Arc<SourceFile>) -> Self {
        Self { file, mistakes: Vec::new() }
    }

    pub(super) fn place(&self, at: usize) -> Place {
        Place { file: self.file.clone(), at }
    }

    /// Remembers a mistake.
    pub(super) fn refuse(&mut self, at: usize, problem: impl Into<String>, cure: impl Into<String>) {
        self.refuse_at(self.place(at), problem, cure);
    }

    /// Remembers a mistake.
    pub(super) fn refuse_at(&mut self, place: Place, problem: impl Into<String>, cure: impl Into<String>) {
        self.mistakes.push(Diagnostic { place, problem: problem.into(), cure: cure.into() });
    }

    /// The value as a table that has the keys of its kind only.
    pub(super) fn section<'t, 'i>(&mut self, value: &'t Value<'i>, kind: &'static Kind) -> Option<Section<'t, 'i>> {
        let at = value.span().start;
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_kind(value, kind.name, "a table", &format!("its keys are {}", kind.keys.join(", ")));
            return None;
        };
        let section = Section { table, at, kind };
        self.check_keys(section);
        Some(section)
    }

    /// Refuses keys that do not exist.
    pub(super) fn check_keys(&mut self, section: Section<'_, '_>) {
        let Section { table, kind, .. } = section;
        for key in table.keys().filter(|key| !kind.keys.contains(&key.get_ref().as_ref())) {
            let problem = format!("unknown key {} in {}", key.get_ref(), kind.name);
            self.refuse(key.span().start, problem, kind.cure(key.get_ref()));
        }
    }

    /// The value of a key that has to be there.
    pub(super) fn required<'t, 'i>(
        &mut self,
        section: Section<'t, 'i>,
        key: &str,
        example: &str,
    ) -> Option<&'t Value<'i>> {
        let value = section.table.get(key);
        if value.is_none() && !section.has_slip_of(key) {
            let problem = format!("{} has no {key}", section.kind.name);
            self.refuse(section.at, problem, format!("add, for example, {example}"));
        }
        value
    }

    /// A string that has to be there, and not be empty.
    pub(super) fn required_text(&mut self, section: Section<'_, '_>, key: &str, example: &str) -> Option<Text> {
        let text = self.required(section, key, example).and_then(|value| self.text(value, key))?;
        if text.value.is_empty() {
            self.refuse_at(text.place, format!("{key} is empty"), format!("write, for example, {example}"));
            return None;
        }
        Some(text)
    }

    /// A string that may be there.
    pub(super) fn optional_text(&mut self, section: Section<'_, '_>, key: &str) -> Option<Text> {
        section.table.get(key).and_then(|value| self.text(value, key))
    }

    /// The value as a string.
    pub(super) fn text(&mut self, value: &Value<'_>, key: &str) -> Option<Text> {
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_kind(value, key, "a string", "write it in quotes");
            return None;
        };
        Some(Text { value: text.to_owned(), place: self.place(self.content_at(text, value.span().start)) })
    }

    /// A yes or no; without the key: no.
    pub(super) fn flag(&mut self, section: Section<'_, '_>, key: &str) -> bool {
        let Some(value) = section.table.get(key) else { return false };
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.wrong_kind(value, key, "true or false", &format!("write {key} = true, or leave it out"));
        }
        flag.unwrap_or(false)
    }

    /// The items of a list; none without the key.
    pub(super) fn items<'t, 'i>(&mut self, section: Section<'t, 'i>, key: &str, cure: &str) -> Vec<&'t Value<'i>> {
        let Some(value) = section.table.get(key) else { return Vec::new() };
        match value.get_ref().as_array() {
            Some(items) => items.iter().collect(),
            None => {
                self.wrong_kind(value, key, "a list", cure);
                Vec::new()
            }
        }
    }

    /// A list of distinct strings.
    pub(super) fn names(&mut self, section: Section<'_, '_>, key: &str) -> Vec<Text> {
        let mut names: Vec<Text> = Vec::new();
        for item in self.items(section, key, "write a list of names: [\"note\"]") {
            let Some(name) = self.text(item, key) else { continue };
            if names.iter().any(|known| known.value == name.value) {
                self.refuse_at(name.place, format!("{} is in {key} twice", name.value), "remove one of them");
                continue;
            }
            names.push(name);
        }
        names
    }

    /// A table of rejection codes.
    pub(super) fn codes(&mut self, section: Section<'_, '_>, key: &str) -> BTreeMap<String, String> {
        let Some(value) = section.table.get(key) else { return BTreeMap::new() };
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_kind(value, key, "a table", "write { account_balance_check = \"insufficient-funds\" }");
            return BTreeMap::new();
        };
        let mut codes = BTreeMap::new();
        for (name, value) in by_place(table) {
            if let Some(code) = self.text(value, name).and_then(|code| self.code(code)) {
                codes.insert(name.to_owned(), code);
            }
        }
        codes
    }

    /// The string as a rejection's code.
    pub(super) fn code(&mut self, code: Text) -> Option<String> {
        if is_kebab_case(code.value.as_bytes()) {
            return Some(code.value);
        }
        let problem = format!("{:?} is no rejection code", code.value);
        self.refuse_at(code.place, problem, "write lower-case words joined by hyphens: insufficient-funds");
        None
    }

    pub(super) fn wrong_kind(&mut self, value: &Value<'_>, what: &str, wanted: &str, cure: &str) {
        let found = value.get_ref().type_str();
        let article = if found.starts_with(['a', 'i']) { "an" } else { "a" };
        self.refuse(value.span().start, format!("{what} is {wanted}, not {article} {found}"), cure);
    }

    /// Where the content of the string begins whose quotes begin at `at`.
    fn content_at(&self, content: &str, at: usize) -> usize {
        let rest = &self.file.text[at..];
        let behind = match rest {
            _ if rest.starts_with("\"\"\"\n") || rest.starts_with("'''\n") => 4,
            _ if rest.starts_with("\"\"\"") || rest.starts_with("'''") => 3,
            _ => 1,
        };
        let as_written = rest.get(behind..).is_some_and(|rest| rest.starts_with(content));
        if as_written { at + behind } else { at }
    }
}

/// A table within has the key, and should not.
fn stands_within(table: &DeTable<'_>, kind: &Kind, key: &str) -> bool {
    kind.inner.iter().any(|(name, inner)| {
        let mut tables = table.get(*name).into_iter().flat_map(tables);
        let misplaced = !inner.keys.contains(&key);
        tables.any(|table| (misplaced && table.contains_key(key)) || stands_within(table, inner, key))
    })
}

/// The tables of a list of them, or the one.
fn tables<'t, 'i>(value: &'t Value<'i>) -> impl Iterator<Item = &'t DeTable<'i>> {
    let list = value.get_ref().as_array().into_iter().flat_map(|items| items.iter());
    list.chain(std::iter::once(value)).filter_map(|value| value.get_ref().as_table())
}

/// The entries of a table in the order of the file.
pub(super) fn by_place<'t, 'i>(table: &'t DeTable<'i>) -> Vec<(&'t str, &'t Value<'i>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries.into_iter().map(|(key, value)| (key.get_ref().as_ref(), value)).collect()
}
