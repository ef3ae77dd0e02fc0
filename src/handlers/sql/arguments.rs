//! Placeholder until the branch with the fields is merged.

/// Fields.
#[derive(Clone, Debug, Default)]
pub struct Fields;

impl Fields {
    /// Name.
    pub fn name(&self, _n: usize) -> Option<&str> {
        None
    }
    /// Arguments.
    pub fn arguments(&self, _data: &[u8]) -> Result<String, String> {
        Ok("[]".into())
    }
}
