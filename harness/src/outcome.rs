//! What can come of a check, and how it is written down.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The five outcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// What was expected was seen, and the host is as it was.
    Pass,
    /// Something else was seen, or the host was changed, or the time ran out.
    Fail,
    /// Not run: a check that it needs did not pass.
    Blocked,
    /// This kernel or machine cannot do it. The message says what is missing.
    Unsupported,
    /// The harness itself failed: nothing is known about the solution.
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

/// One check, run once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Number of the step, two digits.
    pub step: String,
    /// Name of the test function.
    pub check: String,
    /// Which wrong solution was under test; `None` for the one in `bin/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// What came of it.
    pub outcome: Outcome,
    /// What was expected and what was found, or what is missing; empty for a pass.
    #[serde(default)]
    pub message: String,
    /// How the host differs from before the check, a line a difference.
    #[serde(default)]
    pub host: Vec<String>,
    /// What the programs under test have said on standard error, where the check
    /// did not pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub said: Vec<String>,
    /// Seed of the names and numbers that the check drew.
    #[serde(default)]
    pub seed: u64,
    /// How long it took, in milliseconds.
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

/// A check's verdict that this machine cannot show it.
#[derive(Debug)]
pub struct Unsupported(pub String);

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unsupported {}

impl Record {
    /// Whether the solution still lacks something here.
    pub fn is_open(&self) -> bool {
        !matches!(self.outcome, Outcome::Pass | Outcome::Unsupported)
    }

    /// Judges what a check's body returned.
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
