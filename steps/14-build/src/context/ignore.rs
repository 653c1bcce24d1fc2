//! Stand-in.
use anyhow::Result;
use std::path::Path;
/// Stand-in.
#[derive(Debug)]
pub struct Ignore(Vec<String>);
impl Ignore {
    /// Stand-in.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(Ignore(text.lines().map(str::to_owned).collect()))
    }
    /// Stand-in.
    pub fn leaves_out(&self, path: &Path, _is_directory: bool) -> bool {
        self.0.iter().any(|one| path.starts_with(one))
    }
    /// Stand-in.
    pub fn has_exceptions(&self) -> bool {
        self.0.iter().any(|one| one.starts_with('!'))
    }
}
