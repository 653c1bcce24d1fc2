//! The plan that the runner carries out: checks against programs.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::build::Tests;
use crate::registry::Step;

/// Checks to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The batches, in order.
    pub batches: Vec<Batch>,
    /// Seed for the names and numbers that the checks draw.
    pub seed: u64,
    /// Whether the programs under test may be hostile: see
    /// [`fence`](crate::fence).
    #[serde(default)]
    pub untrusted: bool,
    /// When a batch ends before its last check.
    #[serde(default)]
    pub until: Until,
}

/// When a batch ends. Its remaining checks are `blocked`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Until {
    /// With its last check.
    #[default]
    End,
    /// With the first check in which the program hangs. A program that hangs
    /// once mostly hangs everywhere, at one time limit each.
    Hang,
    /// With the first check that fails.
    Failure,
}

/// Checks of one step against one program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Batch {
    /// The wrong solution under test; `None` for the program in `bin/`.
    pub variant: Option<String>,
    /// The program under test; `None` for `step-NN` in `bin/`.
    pub program: Option<PathBuf>,
    /// The test program built from `tests/step_NN.rs`.
    pub tests: PathBuf,
    /// The checks to run, with their data.
    pub step: Step,
    /// Seed for this batch, instead of the plan's.
    #[serde(default)]
    pub seed: Option<u64>,
}

impl Batch {
    /// The checks of a step against its program in `bin/`.
    pub fn new(step: Step, tests: &Tests) -> Result<Self> {
        let tests = tests
            .get(&step.step)
            .with_context(|| format!("tests/step_{}.rs was not built", step.step))?
            .clone();
        Ok(Batch {
            variant: None,
            program: None,
            tests,
            step,
            seed: None,
        })
    }
}
