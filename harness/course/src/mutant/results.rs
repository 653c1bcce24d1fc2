//! The results of mutants, in a file that the next run compares with.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{Mutant, Verdict};
use check::workspace;

/// The results of a run, which may come in several parts, and the totals of the
/// run before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Results {
    /// The seed that drew the mutants.
    pub seed: u64,
    /// The number of mutants that were drawn.
    pub count: usize,
    /// What became of each so far.
    pub mutants: Vec<Entry>,
    /// The totals of the last run with another seed or number.
    pub last: Option<Totals>,
}

/// What became of a mutant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The path of the file, from the top of the repository.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// That line, without the blanks around it.
    pub source: String,
    /// The change in words.
    pub change: String,
    /// What became of it.
    pub verdict: Verdict,
}

/// The totals of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Mutants that a check noticed, those that hung included.
    pub noticed: usize,
    /// Of these, those in which the program hung.
    pub timed_out: usize,
    /// Mutants that no check noticed.
    pub survived: usize,
    /// Mutants that do not compile.
    pub uncompilable: usize,
}

impl Totals {
    /// The share that was noticed, in percent, rounded; `None` if there was no
    /// mutant to notice.
    pub fn percent(&self) -> Option<usize> {
        let all = self.noticed + self.survived;
        (all > 0).then(|| (self.noticed * 100 + all / 2) / all)
    }
}

impl Results {
    /// The file of the results for a selection of steps: `target/mutants/`,
    /// `all.json` or `00-05.json`.
    pub fn file(steps: &[String]) -> PathBuf {
        let name = match steps {
            [] => "all".to_owned(),
            steps => steps.join("-"),
        };
        workspace::root().join(format!("target/mutants/{name}.json"))
    }

    /// Reads what was written before, for a run with this seed and number: its
    /// own parts, if it has begun, or the totals of the run before.
    pub fn begin(file: &Path, seed: u64, count: usize) -> Result<Self> {
        Ok(Self::read(file)?.follow(seed, count))
    }

    /// Reads what was written before; without a file, nothing was.
    pub fn read(file: &Path) -> Result<Self> {
        match fs::read_to_string(file) {
            Ok(text) => {
                serde_json::from_str(&text).with_context(|| format!("parse {}", file.display()))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Results::default()),
            Err(error) => Err(error).with_context(|| format!("read {}", file.display())),
        }
    }

    /// Whether no check noticed this mutant.
    pub fn survived(&self, mutant: &Mutant) -> bool {
        let same = |entry: &&Entry| {
            (&entry.file, entry.line, &entry.change) == (&mutant.file, mutant.line, &mutant.change)
        };
        let found = self.mutants.iter().find(same);
        found.is_some_and(|entry| entry.verdict == Verdict::Survived)
    }

    fn follow(self, seed: u64, count: usize) -> Self {
        if (self.seed, self.count) == (seed, count) {
            return self;
        }
        let last = match self.mutants.is_empty() {
            true => self.last,
            false => Some(self.totals()),
        };
        Results {
            seed,
            count,
            mutants: Vec::new(),
            last,
        }
    }

    /// Adds what became of a mutant, instead of what was known before.
    pub fn add(&mut self, mutant: &Mutant, verdict: Verdict) {
        let entry = Entry {
            file: mutant.file.clone(),
            line: mutant.line,
            source: mutant.source.clone(),
            change: mutant.change.clone(),
            verdict,
        };
        let same = |other: &Entry| {
            (&other.file, other.line, &other.change) == (&entry.file, entry.line, &entry.change)
        };
        self.mutants.retain(|other| !same(other));
        self.mutants.push(entry);
    }

    /// Writes the results, whole or not at all (rename(2)).
    pub fn write(&self, file: &Path) -> Result<()> {
        if let Some(dir) = file.parent() {
            fs::create_dir_all(dir).with_context(|| format!("mkdir {}", dir.display()))?;
        }
        let json = serde_json::to_vec_pretty(self).context("write the results as JSON")?;
        let new = file.with_extension("new");
        fs::write(&new, json).with_context(|| format!("write {}", new.display()))?;
        fs::rename(&new, file).with_context(|| format!("rename {}", new.display()))
    }

    /// The totals so far.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for entry in &self.mutants {
            match entry.verdict {
                Verdict::Noticed(_) => totals.noticed += 1,
                Verdict::TimedOut(_) => {
                    totals.noticed += 1;
                    totals.timed_out += 1;
                }
                Verdict::Survived => totals.survived += 1,
                Verdict::Uncompilable => totals.uncompilable += 1,
            }
        }
        totals
    }

    /// The share in words: `noticed 71 % (10 of 14), 68 % at the last run`.
    pub fn share(&self) -> String {
        let totals = self.totals();
        let Some(percent) = totals.percent() else {
            return "no mutant was run".to_owned();
        };
        let all = totals.noticed + totals.survived;
        let last = match self.last.and_then(|last| last.percent()) {
            Some(last) => format!(", {last} % at the last run"),
            None => String::new(),
        };
        format!("noticed {percent} % ({} of {all}){last}", totals.noticed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn mutants() -> Vec<Mutant> {
        let source = "fn f() {\n    g(1);\n    g(2);\n}\n";
        super::super::of("05", Path::new("x.rs"), source).unwrap()
    }

    #[test]
    fn parts_of_a_run_add_up_and_the_next_run_compares() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("below/all.json");
        let mut first = Results::begin(&file, 1, 4).unwrap();
        let verdicts = [
            Verdict::Noticed("a".to_owned()),
            Verdict::TimedOut("b".to_owned()),
            Verdict::Survived,
            Verdict::Uncompilable,
        ];
        for (mutant, verdict) in mutants().iter().zip(verdicts) {
            first.add(mutant, verdict);
            first.write(&file).unwrap();
            first = Results::begin(&file, 1, 4).unwrap();
        }
        assert_eq!(first.share(), "noticed 67 % (2 of 3)");
        assert_eq!(first.totals().timed_out, 1);
        let mut second = Results::begin(&file, 2, 4).unwrap();
        assert_eq!(second.share(), "no mutant was run");
        second.add(&mutants()[0], Verdict::Noticed("a".to_owned()));
        assert_eq!(
            second.share(),
            "noticed 100 % (1 of 1), 67 % at the last run"
        );
    }

    #[test]
    fn a_mutant_that_is_run_again_counts_once() {
        let mut results = Results::default();
        let mutant = &mutants()[0];
        results.add(mutant, Verdict::Survived);
        results.add(mutant, Verdict::Noticed("a".to_owned()));
        assert_eq!(results.totals().percent(), Some(100));
    }

    #[test]
    fn a_file_is_named_after_its_steps() {
        assert!(Results::file(&[]).ends_with("target/mutants/all.json"));
        let steps = ["00", "05"].map(str::to_owned);
        assert!(Results::file(&steps).ends_with("target/mutants/00-05.json"));
    }
}
