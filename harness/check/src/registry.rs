//! The data of the checks: `tests/step_NN.toml`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// The checks of one step.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Number of the step, two digits.
    pub step: String,
    /// Subject of the step: `PID namespace`.
    pub title: String,
    /// Its checks, in the order of running.
    #[serde(rename = "check")]
    pub checks: Vec<Entry>,
}

/// The data of one check.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The test function in `tests/step_NN.rs`.
    pub name: String,
    /// The module that contains the function, if it is in a file of its own in
    /// `tests/step_NN/`.
    #[serde(default)]
    pub module: Option<String>,
    /// What a pass proves: "the command is PID 1 inside".
    pub title: String,
    /// Its points. Those of a step add up to 100.
    pub points: u32,
    /// Checks of the same step that must pass first.
    #[serde(default)]
    pub needs: Vec<String>,
    /// What the kernel or machine must have: see
    /// [`requirement`](crate::requirement).
    #[serde(default)]
    pub requires: Vec<String>,
    /// Programs that it uses if they are installed, written as in `requires`.
    #[serde(default)]
    pub uses: Vec<String>,
    /// Seconds in an emulated machine, roughly, if they are many. The first run
    /// divides the checks among its machines by this.
    #[serde(default)]
    pub seconds: Option<u64>,
    /// The reason: one sentence about the kernel.
    pub why: String,
    /// Where to look next.
    pub hint: String,
}

impl Entry {
    /// The path of the test function for libtest's `--exact`.
    pub fn path(&self) -> String {
        match &self.module {
            Some(module) => format!("{module}::{}", self.name),
            None => self.name.clone(),
        }
    }
}

impl Step {
    /// Reads the data of one step.
    ///
    /// # Errors
    /// Names the file, and the line of the fault: an unknown field, or a
    /// `needs` that names no earlier check.
    pub fn read(dir: &Path, number: &str) -> Result<Self> {
        let file = dir.join(format!("step_{number}.toml"));
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let step: Step =
            toml::from_str(&text).with_context(|| format!("parse {}", file.display()))?;
        for (place, check) in step.checks.iter().enumerate() {
            for need in &check.needs {
                if !step.checks[..place].iter().any(|c| &c.name == need) {
                    bail!(
                        "{}: {} needs {need}, which does not come before it",
                        file.display(),
                        check.name
                    );
                }
            }
        }
        Ok(step)
    }

    /// Keeps the `wanted` checks and those that they need.
    pub fn keep(&mut self, wanted: impl Fn(&Entry) -> bool) {
        let mut kept: Vec<String> = Vec::new();
        for check in self.checks.iter().rev() {
            if wanted(check) || kept.contains(&check.name) {
                kept.push(check.name.clone());
                kept.extend(check.needs.iter().cloned());
            }
        }
        self.checks.retain(|check| kept.contains(&check.name));
    }

    /// Moves a check to the front, behind those that it needs.
    pub fn first(&mut self, name: &str) {
        let mut with_needs = self.clone();
        with_needs.keep(|check| check.name == name);
        let first = with_needs.checks;
        self.checks
            .retain(|check| first.iter().all(|other| other.name != check.name));
        self.checks.splice(0..0, first);
    }

    /// Keeps the checks whose name or title contains `text`, and those that
    /// they need.
    pub fn matching(&mut self, text: &str) {
        self.keep(|check| check.name.contains(text) || check.title.contains(text));
    }

    /// Keeps the `wanted` checks only, and runs them even if those that they
    /// need have not passed.
    pub fn only(&mut self, wanted: impl Fn(&Entry) -> bool) {
        self.checks.retain(wanted);
        for check in &mut self.checks {
            check.needs.clear();
        }
    }

    /// The data of the check `name`.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.checks.iter().find(|check| check.name == name)
    }
}

/// The numbers of all steps that have checks, in order.
pub fn numbers(dir: &Path) -> Result<Vec<String>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let name = entry
            .with_context(|| format!("list {}", dir.display()))?
            .file_name();
        let name = name.to_string_lossy();
        if let Some(number) = name
            .strip_prefix("step_")
            .and_then(|rest| rest.strip_suffix(".toml"))
        {
            numbers.push(number.to_owned());
        }
    }
    numbers.sort();
    Ok(numbers)
}
