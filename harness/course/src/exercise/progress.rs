//! The learner's progress: `work/progress.toml`, a small and readable file.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use check::outcome::{Outcome, Record};
use check::registry::Step;

/// The progress in all steps that were started.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// The steps, by number.
    #[serde(default)]
    pub steps: BTreeMap<String, StepProgress>,
}

/// The progress in one step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StepProgress {
    /// Whether the step builds on the learner's own steps below it.
    pub on_mine: bool,
    /// The points of the last check.
    pub points: u32,
    /// The points that were available on this machine: those of unsupported
    /// checks are omitted.
    pub of: u32,
    /// The number of checks that passed.
    pub passed: usize,
    /// The checks that did not pass, in the step's order.
    pub open: Vec<String>,
    /// The number of hints that were asked for, by check.
    pub hints: BTreeMap<String, u32>,
}

impl StepProgress {
    /// Whether every check has passed.
    pub fn done(&self) -> bool {
        self.of > 0 && self.open.is_empty()
    }

    /// Records the results of the checks of `step`.
    pub fn take(&mut self, step: &Step, records: &[Record]) {
        let with = |wanted: fn(Outcome) -> bool| {
            records.iter().filter(move |record| wanted(record.outcome))
        };
        let points = |record: &Record| step.entry(&record.check).map_or(0, |entry| entry.points);
        self.points = with(|o| o == Outcome::Pass).map(points).sum();
        self.of = with(|o| o != Outcome::Unsupported).map(points).sum();
        self.passed = with(|o| o == Outcome::Pass).count();
        self.open = with(|o| !matches!(o, Outcome::Pass | Outcome::Unsupported))
            .map(|record| record.check.clone())
            .collect();
        // The checks may have run in another order, or at the same time.
        let place = |name: &String| step.checks.iter().position(|check| &check.name == name);
        self.open.sort_by_key(place);
        self.hints.retain(|check, _| self.open.contains(check));
    }
}

impl Progress {
    /// Reads the progress. If there is no file, no step was started.
    pub fn read(file: &Path) -> Result<Self> {
        match fs::read_to_string(file) {
            Ok(text) => toml::from_str(&text).with_context(|| format!("parse {}", file.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Progress::default()),
            Err(error) => Err(error).with_context(|| format!("read {}", file.display())),
        }
    }

    /// Writes the progress, whole or not at all (rename(2)).
    pub fn write(&self, file: &Path) -> Result<()> {
        let text = toml::to_string(self).context("write the progress")?;
        let new = file.with_extension("new");
        fs::write(&new, text).with_context(|| format!("write {}", new.display()))?;
        fs::rename(&new, file).with_context(|| format!("rename {}", new.display()))
    }
}
