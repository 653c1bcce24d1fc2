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
    /// The most points that a check of this step has had.
    pub best: u32,
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

    /// Records the results of the checks of `step`, and returns what has
    /// changed since the last time; `None` the first time.
    pub fn take(&mut self, step: &Step, records: &[Record]) -> Option<Change> {
        let before = (self.of > 0).then(|| self.open.clone());
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
        self.best = self.best.max(self.points);
        let before = before?;
        let without = |these: &[String], those: &[String]| {
            let missing = these.iter().filter(|check| !those.contains(check));
            missing.cloned().collect()
        };
        Some(Change {
            mended: without(&before, &self.open),
            broken: without(&self.open, &before),
        })
    }
}

/// What has changed between two runs of a step's checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The checks that are no longer open.
    pub mended: Vec<String>,
    /// The checks that passed before and are open now.
    pub broken: Vec<String>,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn records(outcomes: [Outcome; 2]) -> Vec<Record> {
        let record = |(check, outcome)| Record {
            outcome,
            ..Record::new("05", check, 1)
        };
        ["a", "b"].into_iter().zip(outcomes).map(record).collect()
    }

    #[test]
    fn the_best_stays_and_a_second_run_says_what_changed() {
        let check = |name| {
            format!("[[check]]\nname = '{name}'\ntitle = 't'\npoints = 50\nwhy = 'w'\nhint = 'h'\n")
        };
        let checks = ["a", "b"].map(check).concat();
        let step: Step = toml::from_str(&format!("step = '05'\ntitle = 't'\n{checks}")).unwrap();
        let mut progress = StepProgress::default();
        let first = progress.take(&step, &records([Outcome::Pass, Outcome::Pass]));
        assert_eq!(first, None);
        let second = progress.take(&step, &records([Outcome::Fail, Outcome::Pass]));
        let (mended, broken) = (Vec::new(), vec!["a".to_owned()]);
        assert_eq!(second, Some(Change { mended, broken }));
        assert_eq!((progress.points, progress.best), (50, 100));
        let third = progress.take(&step, &records([Outcome::Pass, Outcome::Fail]));
        let (mended, broken) = (vec!["a".to_owned()], vec!["b".to_owned()]);
        assert_eq!(third, Some(Change { mended, broken }));
    }
}
