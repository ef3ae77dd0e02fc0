//! Placeholder: the builder and `run` come with the core.

/// A worker and its handlers.
#[derive(Debug, Default)]
pub struct Worker;

impl Worker {
    /// A worker without handlers.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}
