//! Known faults that end in a bad verdict, and why they stay so.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::plan::Planned;
use super::verdict::{Judged, Verdict};
use check::workspace;

/// A known fault: one entry of `exceptions.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// Name of the form; `None` for all forms.
    pub form: Option<String>,
    /// Name of the process; `None` for all processes.
    pub process: Option<String>,
    /// Name of the call.
    pub call: String,
    /// A part of the call's object.
    #[serde(default)]
    pub object: String,
    /// What is injected: `ENOSPC`, `killed before`; `None` for every fault.
    pub fault: Option<String>,
    /// The known verdict.
    pub verdict: Verdict,
    /// A part of the verdict's reason.
    #[serde(default)]
    pub says: String,
    /// Why it stays so.
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exceptions {
    #[serde(default)]
    exception: Vec<Exception>,
}

/// The path of `exceptions.toml`.
pub fn file() -> PathBuf {
    workspace::root().join("harness/inject/src/exceptions.toml")
}

/// Reads all exceptions.
///
/// # Errors
/// Names the fault in the file.
pub fn read() -> Result<Vec<Exception>> {
    let file = file();
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let all: Exceptions =
        toml::from_str(&text).with_context(|| format!("parse {}", file.display()))?;
    Ok(all.exception)
}

impl Exception {
    /// Whether the exception explains the verdict on a fault of a form.
    pub fn explains(&self, planned: &Planned, form: &str, judged: &Judged) -> bool {
        let (verdict, reason) = judged;
        self.verdict == *verdict && reason.contains(&self.says) && self.covers(planned, form)
    }

    /// Whether the exception applies to a fault of a form.
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
