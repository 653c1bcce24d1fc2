//! Mutants: our steps, each changed at one place by chance. Those that no check
//! notices show what the checks do not look at. Unlike a wrong solution, a
//! mutant has no belief behind it.

mod find;
mod results;

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::exercise::skeleton;
use check::draws::Draws;
use check::outcome::{Outcome, Record};
use check::workspace;

pub use results::{Results, Totals};

/// A change of one place of our sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutant {
    /// The step whose checks must notice it.
    pub step: String,
    /// The path from the top of the repository.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// That line without the blanks around it: it names the place when others
    /// have been added above.
    pub source: String,
    /// The change in words: `== → !=`.
    pub change: String,
    at: Range<usize>,
    to: String,
}

/// Why a mutant is no fault: it does the same as our source.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Equivalent {
    /// The path from the top of the repository.
    pub file: String,
    /// The line, without the blanks around it.
    pub source: String,
    /// The change in words; all changes of the line if there is none.
    pub change: Option<String>,
    /// The reason.
    pub because: String,
}

/// `harness/mutants.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    #[serde(default)]
    equivalent: Vec<Equivalent>,
}

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The first check that failed.
    Noticed(String),
    /// The check in which the program hung, which is noticed as well.
    TimedOut(String),
    /// Every check passed.
    Survived,
    /// It does not compile, and counts for nothing.
    Uncompilable,
}

/// The mutants that do the same as our source, from `harness/mutants.toml`.
pub fn equivalents() -> Result<Vec<Equivalent>> {
    let file = workspace::root().join("harness/mutants.toml");
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let known: Known =
        toml::from_str(&text).with_context(|| format!("parse {}", file.display()))?;
    Ok(known.equivalent)
}

impl Equivalent {
    /// Whether it is about this mutant.
    pub fn fits(&self, mutant: &Mutant) -> bool {
        self.file == mutant.file
            && self.source == mutant.source
            && self.change.as_ref().is_none_or(|c| *c == mutant.change)
    }
}

/// All mutants of these steps, in the order of their places.
pub fn all(steps: &[String]) -> Result<Vec<Mutant>> {
    let mut mutants = Vec::new();
    for (step, dir) in skeleton::steps()? {
        if !steps.contains(&step) {
            continue;
        }
        for file in skeleton::sources(&dir)? {
            let path = dir.join(&file);
            let text =
                fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            let below = path.strip_prefix(workspace::root()).unwrap_or(&path);
            mutants.extend(of(&step, below, &text)?);
        }
    }
    Ok(mutants)
}

fn of(step: &str, file: &Path, text: &str) -> Result<Vec<Mutant>> {
    let changes = find::changes(text).with_context(|| file.display().to_string())?;
    let lines: Vec<&str> = text.lines().collect();
    let mutant = |change: find::Change| Mutant {
        step: step.to_owned(),
        file: file.to_string_lossy().into_owned(),
        line: change.line,
        source: lines
            .get(change.line - 1)
            .map_or("", |line| line.trim())
            .to_owned(),
        change: change.words,
        at: change.at,
        to: change.to,
    };
    Ok(changes.into_iter().map(mutant).collect())
}

/// Draws `count` mutants, or all if there are fewer, and returns them in the
/// order of their places. The same seed draws the same ones.
pub fn choose(mut mutants: Vec<Mutant>, seed: u64, count: usize) -> Vec<Mutant> {
    let mut draws = Draws::new(seed);
    let count = count.min(mutants.len());
    for place in 0..count {
        let rest = (mutants.len() - place) as u64;
        mutants.swap(place, place + draws.number(rest) as usize);
    }
    mutants.truncate(count);
    mutants.sort_by(|a, b| (&a.step, &a.file, a.at.start).cmp(&(&b.step, &b.file, b.at.start)));
    mutants
}

impl Mutant {
    /// The new text of its file.
    ///
    /// # Errors
    /// If the file is no longer the one in which the mutant was found.
    pub fn text(&self) -> Result<String> {
        let path = workspace::root().join(&self.file);
        let mut text =
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let there = text.lines().nth(self.line - 1).map(str::trim);
        if there != Some(&self.source) || text.get(self.at.clone()).is_none() {
            bail!("{} has changed since", self.file);
        }
        text.replace_range(self.at.clone(), &self.to);
        Ok(text)
    }

    /// Its place: `steps/05-user/src/map.rs:12`.
    pub fn place(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }
}

impl Verdict {
    /// What the records of a batch say that ended with the first failure. An
    /// error of the harness counts as a failure: the program has caused it.
    pub fn of(records: &[Record], hang: u64) -> Self {
        let failed = records
            .iter()
            .find(|record| matches!(record.outcome, Outcome::Fail | Outcome::Error));
        match failed {
            None => Verdict::Survived,
            Some(record) if record.millis >= hang => Verdict::TimedOut(record.check.clone()),
            Some(record) => Verdict::Noticed(record.check.clone()),
        }
    }
}

/// The number of mutants that each check noticed first.
pub fn by_check<'a>(verdicts: impl Iterator<Item = &'a Verdict>) -> BTreeMap<&'a str, usize> {
    let mut checks = BTreeMap::new();
    for verdict in verdicts {
        if let Verdict::Noticed(check) | Verdict::TimedOut(check) = verdict {
            *checks.entry(check.as_str()).or_default() += 1;
        }
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Vec<Mutant> {
        let source = "fn f() {\n    g(1);\n    g(2);\n    g(3);\n    g(4);\n}\n";
        of("05", Path::new("steps/05-user/src/x.rs"), source).unwrap()
    }

    #[test]
    fn a_seed_draws_the_same_mutants_in_the_order_of_their_places() {
        let chosen = choose(some(), 7, 4);
        assert_eq!(chosen, choose(some(), 7, 4));
        assert_eq!(chosen.len(), 4);
        assert!(chosen.is_sorted_by_key(|mutant| mutant.at.start));
        let others = (0..20).map(|seed| choose(some(), seed, 4));
        assert!(others.into_iter().any(|other| other != chosen));
    }

    #[test]
    fn each_is_drawn_once_and_no_more_than_there_are() {
        let chosen = choose(some(), 3, 1000);
        assert_eq!(chosen, some());
    }

    #[test]
    fn an_equivalent_one_is_known_by_its_line() {
        let equivalent = Equivalent {
            file: "steps/05-user/src/x.rs".to_owned(),
            source: "g(2);".to_owned(),
            change: Some("2 → 3".to_owned()),
            because: String::new(),
        };
        let fitting: Vec<Mutant> = some().into_iter().filter(|m| equivalent.fits(m)).collect();
        assert_eq!(fitting.len(), 1);
        assert_eq!(fitting[0].place(), "steps/05-user/src/x.rs:3");
    }

    #[test]
    fn the_first_failure_is_the_verdict() {
        let record = |check, outcome, millis| Record {
            outcome,
            millis,
            ..Record::new("05", check, 1)
        };
        let passed = record("a", Outcome::Pass, 5);
        let failed = record("b", Outcome::Fail, 5);
        let blocked = record("c", Outcome::Blocked, 0);
        let verdict = |records: &[&Record]| {
            let records: Vec<Record> = records.iter().copied().cloned().collect();
            Verdict::of(&records, 1000)
        };
        assert_eq!(verdict(&[&passed]), Verdict::Survived);
        let noticed = Verdict::Noticed("b".to_owned());
        assert_eq!(verdict(&[&passed, &failed, &blocked]), noticed);
        let hung = record("b", Outcome::Fail, 1000);
        assert_eq!(verdict(&[&hung]), Verdict::TimedOut("b".to_owned()));
    }
}
