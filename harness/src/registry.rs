//! The data that stands beside the checks: `tests/step_NN.toml`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// The checks of one step.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Two digits.
    pub step: String,
    /// What the step is about: `PID namespace`.
    pub title: String,
    /// Its checks, in the order in which they are run.
    #[serde(rename = "check")]
    pub checks: Vec<Entry>,
}

/// What is known of one check without running it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The test function in `tests/step_NN.rs`.
    pub name: String,
    /// The module of that file which it is in, where it is in one: a file of
    /// its own in `tests/step_NN/`.
    #[serde(default)]
    pub module: Option<String>,
    /// What holds if it passes: "the command is PID 1 inside".
    pub title: String,
    /// What it is worth. The points of a step add up to 100.
    pub points: u32,
    /// Checks of the same step that must pass first.
    #[serde(default)]
    pub needs: Vec<String>,
    /// What the kernel or machine must have, see [`requirement`](crate::requirement).
    #[serde(default)]
    pub requires: Vec<String>,
    /// Programs that it uses if they are installed, and can do without; written
    /// as in `requires`.
    #[serde(default)]
    pub uses: Vec<String>,
    /// About how many seconds it takes in an emulated machine, if they are many. The
    /// first run divides the checks among its machines by this.
    #[serde(default)]
    pub seconds: Option<u64>,
    /// Why it is so: one sentence about the kernel.
    pub why: String,
    /// What to look at next.
    pub hint: String,
}

impl Entry {
    /// The path of the test function in its program, as `--exact` wants it.
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
    /// Names the file, and the line where it is not as it should be: unknown
    /// fields, a `needs` of a check that does not come before.
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

    /// Keeps the checks that are `wanted`, and those that they need.
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

    /// Has a check run first, after those that it needs.
    pub fn first(&mut self, name: &str) {
        let mut with_needs = self.clone();
        with_needs.keep(|check| check.name == name);
        let first = with_needs.checks;
        self.checks
            .retain(|check| first.iter().all(|other| other.name != check.name));
        self.checks.splice(0..0, first);
    }

    /// Keeps the checks whose name or title holds `text`, and those that they
    /// need.
    pub fn matching(&mut self, text: &str) {
        self.keep(|check| check.name.contains(text) || check.title.contains(text));
    }

    /// Keeps the checks that are `wanted` and no others, as if those that they
    /// need had passed.
    pub fn only(&mut self, wanted: impl Fn(&Entry) -> bool) {
        self.checks.retain(wanted);
        for check in &mut self.checks {
            check.needs.clear();
        }
    }

    /// The data of one check.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.checks.iter().find(|check| check.name == name)
    }
}

/// The numbers of all steps that have checks, in order.
///
/// # Errors
/// Those of listing the directory.
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
