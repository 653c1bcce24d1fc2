//! The outcomes of a check, and their record.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Everything was as expected, and the host is unchanged.
    Pass,
    /// Something was unexpected, the host was changed, or the time ran out.
    Fail,
    /// Not run, because a check that it needs did not pass.
    Blocked,
    /// This kernel or machine lacks something, which the message names.
    Unsupported,
    /// The harness itself failed: the solution was not judged.
    Error,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Pass => "pass",
            Outcome::Fail => "fail",
            Outcome::Blocked => "blocked",
            Outcome::Unsupported => "unsupported",
            Outcome::Error => "error",
        })
    }
}

/// The record of one run of one check.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Number of the step, two digits.
    pub step: String,
    /// Name of the test function.
    pub check: String,
    /// The wrong solution under test; `None` for the program in `bin/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// Expected and found, or what is missing; empty for a pass.
    #[serde(default)]
    pub message: String,
    /// Changes of the host during the check, one per line.
    #[serde(default)]
    pub host: Vec<String>,
    /// Standard error of the programs under test; empty if the check passed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub said: Vec<String>,
    /// Seed of the names and numbers that the check drew.
    #[serde(default)]
    pub seed: u64,
    /// Duration in milliseconds.
    #[serde(default)]
    pub millis: u64,
}

/// A check's verdict that the solution is wrong.
#[derive(Debug)]
pub struct Failed(pub String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

/// A check's verdict that this machine cannot run it.
#[derive(Debug)]
pub struct Unsupported(pub String);

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unsupported {}

impl Record {
    /// The record of a check that has no outcome yet: an error, without a
    /// message.
    pub fn new(step: &str, check: &str, seed: u64) -> Self {
        Record {
            step: step.to_owned(),
            check: check.to_owned(),
            variant: None,
            outcome: Outcome::Error,
            message: String::new(),
            host: Vec::new(),
            said: Vec::new(),
            seed,
            millis: 0,
        }
    }

    /// Whether the check neither passed nor is unsupported.
    pub fn is_open(&self) -> bool {
        !matches!(self.outcome, Outcome::Pass | Outcome::Unsupported)
    }

    /// Sets the outcome by what the check's body returned.
    ///
    /// [`Failed`] anywhere in the chain is a fail, [`Unsupported`] is
    /// unsupported; any other error is the harness's own.
    pub fn judge(&mut self, result: &anyhow::Result<()>) {
        let Err(error) = result else {
            self.outcome = Outcome::Pass;
            return;
        };
        let is = |found: fn(&(dyn std::error::Error + 'static)) -> bool| error.chain().any(found);
        self.outcome = if is(|e| e.is::<Unsupported>()) {
            Outcome::Unsupported
        } else if is(|e| e.is::<Failed>()) {
            Outcome::Fail
        } else {
            Outcome::Error
        };
        self.message = format!("{error:#}");
    }
}
