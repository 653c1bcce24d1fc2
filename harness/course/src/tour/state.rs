//! Where a reader is in the tour.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Experiment;

/// What a reader has seen: `work/tour.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The experiments that were seen, by name, each with whether the guess was
    /// right: a guess that was not made is not right.
    #[serde(default)]
    pub seen: BTreeMap<String, bool>,
}

impl State {
    /// Reads the state. Without a file nothing was seen.
    pub fn read(file: &Path) -> Result<Self> {
        match fs::read_to_string(file) {
            Ok(text) => toml::from_str(&text).with_context(|| format!("parse {}", file.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(State::default()),
            Err(error) => Err(error).with_context(|| format!("read {}", file.display())),
        }
    }

    /// Writes the state, whole or not at all (rename(2)).
    pub fn write(&self, file: &Path) -> Result<()> {
        if let Some(dir) = file.parent() {
            fs::create_dir_all(dir).with_context(|| format!("mkdir {}", dir.display()))?;
        }
        let text = toml::to_string(self).context("write the state")?;
        let new = file.with_extension("new");
        fs::write(&new, text).with_context(|| format!("write {}", new.display()))?;
        fs::rename(&new, file).with_context(|| format!("rename {}", new.display()))
    }

    /// The place of the first experiment that was not seen, from 0; `None` if
    /// all were.
    pub fn next(&self, experiments: &[Experiment]) -> Option<usize> {
        let unseen = |experiment: &Experiment| !self.seen.contains_key(&experiment.name);
        experiments.iter().position(unseen)
    }

    /// The number of these experiments that were seen, and of right guesses.
    pub fn score(&self, experiments: &[Experiment]) -> (usize, usize) {
        let seen = experiments.iter().filter_map(|e| self.seen.get(&e.name));
        let (right, wrong): (Vec<bool>, Vec<bool>) = seen.partition(|right| **right);
        (right.len() + wrong.len(), right.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tour::experiments;

    #[test]
    fn a_reader_goes_on_where_they_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("work/tour.toml");
        let all = experiments().unwrap();
        let mut state = State::read(&file).unwrap();
        assert_eq!(state.next(&all), Some(0));
        state.seen.insert(all[0].name.clone(), true);
        state.seen.insert(all[2].name.clone(), false);
        state.write(&file).unwrap();
        let state = State::read(&file).unwrap();
        assert_eq!(state.next(&all), Some(1), "the second was jumped over");
        assert_eq!(state.score(&all), (2, 1));
    }

    #[test]
    fn an_experiment_that_is_gone_counts_for_nothing() {
        let mut state = State::default();
        state.seen.insert("of an older tour".to_owned(), true);
        let all = experiments().unwrap();
        assert_eq!(state.next(&all), Some(0));
        assert_eq!(state.score(&all), (0, 0));
        for experiment in &all {
            state.seen.insert(experiment.name.clone(), false);
        }
        assert_eq!(state.next(&all), None);
    }
}
