//! Faults that are known not to end as they should, and why that stays so.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::plan::Planned;
use super::verdict::Verdict;
use crate::workspace;

/// A known fault: one entry of `exceptions.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// In this form only, if it is one.
    pub form: Option<String>,
    /// Of this process only, if it is one.
    pub process: Option<String>,
    /// The call.
    pub call: String,
    /// A part of what it is about.
    #[serde(default)]
    pub object: String,
    /// What is done there: `ENOSPC`, `killed before`.
    pub fault: Option<String>,
    /// How it ends.
    pub verdict: Verdict,
    /// Why that stays so.
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exceptions {
    #[serde(default)]
    exception: Vec<Exception>,
}

/// The file.
pub fn file() -> PathBuf {
    workspace::root().join("harness/src/inject/exceptions.toml")
}

/// All of them.
///
/// # Errors
/// Names what is wrong in the file.
pub fn read() -> Result<Vec<Exception>> {
    let file = file();
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let all: Exceptions =
        toml::from_str(&text).with_context(|| format!("parse {}", file.display()))?;
    Ok(all.exception)
}

impl Exception {
    /// Whether a fault is meant.
    pub fn covers(&self, planned: &Planned, form: &str) -> bool {
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_ref().is_none_or(|wanted| wanted == found)
        };
        is(&self.form, form)
            && is(&self.process, &planned.at.process)
            && self.call == planned.at.call
            && planned.at.object.contains(&self.object)
            && is(&self.fault, &planned.fault.to_string())
    }
}
