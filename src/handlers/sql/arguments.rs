//! Placeholder until the branch with the fields is merged.

/// Fields.
#[derive(Clone, Debug, Default)]
pub struct Fields;

impl Fields {
    /// New.
    pub fn new<'a>(_: impl Iterator<Item = (&'a str, &'a str)>, _: &[String], _: Option<&serde_json::Value>) -> Self {
        Self
    }
    /// Name.
    pub fn name(&self, _n: usize) -> Option<&str> {
        None
    }
    /// Arguments.
    pub fn arguments(&self, _data: &[u8]) -> Result<String, String> {
        Ok("[]".into())
    }
}
