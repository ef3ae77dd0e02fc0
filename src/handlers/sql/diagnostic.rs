//! What is wrong with a declaration, and where: file, line, a caret under the place, the cure.

use std::fmt;
use std::sync::Arc;

/// A file of `commands`.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Its path, as messages name it.
    pub path: String,
    /// Its text; empty if it is not the text that is wrong, but the file.
    pub text: String,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Arc<SourceFile>,
    /// A byte of its text.
    pub at: usize,
}

/// A mistake in a declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub cure: String,
}

/// All mistakes that were found, in order of files and lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// `value`, if nothing is wrong.
    ///
    /// # Errors
    /// These mistakes, if there are any.
    pub fn or<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl Place {
    /// The file as a whole: what is wrong is not in its text.
    #[must_use]
    pub fn of_file(path: impl Into<String>) -> Self {
        Self { file: Arc::new(SourceFile { path: path.into(), text: String::new() }), at: 0 }
    }

    /// Line and column, both from 1; the column counts characters.
    #[must_use]
    pub fn line_column(&self) -> (usize, usize) {
        let before = self.before();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// The line in which the place is.
    #[must_use]
    pub fn line(&self) -> &str {
        let line_start = self.before().rfind('\n').map_or(0, |newline| newline + 1);
        let rest = &self.file.text[line_start..];
        rest.split('\n').next().unwrap_or(rest).trim_end_matches('\r')
    }

    /// The text before the place; a place inside a character is that character's start.
    fn before(&self) -> &str {
        let text = &self.file.text;
        let at = (0..=self.at.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
        &text[..at.unwrap_or(0)]
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.file.text.is_empty() {
            return f.write_str(&self.file.path);
        }
        let (line, column) = self.line_column();
        write!(f, "{}:{line}:{column}", self.file.path)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)?;
        if !self.place.file.text.is_empty() {
            let line = self.place.line();
            let (_, column) = self.place.line_column();
            // a tab stays a tab, so that the caret stands under its place however wide a tab is
            let indent: String = line.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            write!(f, "\n  {line}\n  {indent}^")?;
        }
        write!(f, "\ncure: {}", self.cure)
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, diagnostic) in self.0.iter().enumerate() {
            let gap = if nth == 0 { "" } else { "\n\n" };
            write!(f, "{gap}{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, at: usize) -> Place {
        Place { file: Arc::new(SourceFile { path: "a.toml".into(), text: text.into() }), at }
    }

    #[test]
    fn a_diagnostic_shows_its_line_with_a_caret_under_the_place() {
        let place = place("a = 1\nsql = \"oops\"\nb = 2", 13);
        let diagnostic = Diagnostic { place, problem: "no such word".into(), cure: "say yes".into() };
        let shown = "a.toml:2:8: no such word\n  sql = \"oops\"\n         ^\ncure: say yes";
        assert_eq!(diagnostic.to_string(), shown);
    }

    #[test]
    fn columns_count_characters_and_tabs_stay_tabs() {
        let text = "\té漢x = 1";
        let place = place(text, text.find('x').unwrap());
        assert_eq!(place.line_column(), (1, 4));
        let diagnostic = Diagnostic { place, problem: "p".into(), cure: "c".into() };
        assert!(diagnostic.to_string().contains("\n  \t  ^\n"), "{diagnostic}");
    }

    #[test]
    fn a_place_is_never_outside_the_text_nor_inside_a_character() {
        assert_eq!(place("é", 1).line_column(), (1, 1));
        assert_eq!(place("a\nb", 99).line_column(), (2, 2));
        assert_eq!(place("a\r\nb", 1).line(), "a");
    }

    #[test]
    fn a_file_that_cannot_be_read_has_no_line() {
        let diagnostic = Diagnostic { place: Place::of_file("x.toml"), problem: "gone".into(), cure: "make it".into() };
        assert_eq!(diagnostic.to_string(), "x.toml: gone\ncure: make it");
    }
}
