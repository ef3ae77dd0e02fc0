//! What is wrong with a declaration, and where: file, line, a caret under the place, the cure.

use std::sync::Arc;

/// A file of `commands`.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Its path, as messages name it.
    pub path: String,
    /// Its text.
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
