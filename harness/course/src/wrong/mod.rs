//! Wrong solutions: `harness/wrong/*.toml`, edits of our solution that a
//! learner might have written. Each must fail exactly the checks that it names,
//! and the messages of these checks are recorded.

mod builder;
mod messages;
mod redact;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;

use crate::exercise::region::without_anchors;
use check::outcome::{Outcome, Record};
use check::registry::Step;
use check::{toml_dir, workspace};
use vm::CgroupLayout;

pub use builder::{Builder, Built};
pub use messages::{Messages, UPDATE, snapshots};

/// A wrong solution.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wrong {
    /// The file's name without its extension: `04-no-ms-private`.
    #[serde(skip)]
    pub name: String,
    /// The author's belief.
    pub title: String,
    /// Its number in the book's list of misconceptions; `None` if it is not
    /// there.
    pub misconception: Option<u32>,
    /// The step that it is a solution of.
    pub step: String,
    /// The layout of cgroups on which it fails, if it fails on one only;
    /// otherwise the caller chooses.
    pub cgroup: Option<CgroupLayout>,
    /// The checks that must fail: these, and no others.
    pub fails: BTreeSet<String>,
    /// Words that the report of one of these checks must contain.
    pub says: String,
    /// The differences to our solution.
    #[serde(rename = "edit")]
    pub edits: Vec<Edit>,
    /// Parts of the messages that vary by chance.
    #[serde(rename = "varies", default)]
    pub variations: Vec<Variation>,
}

/// A part of a message that varies from run to run, and the reason.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variation {
    /// A regular expression that matches all variants, as `a|b`.
    pub pattern: String,
    /// The recorded text in the place of each match.
    pub shown: String,
    /// The reason why it varies.
    pub because: String,
}

/// A text of ours, and the text of the wrong solution in its place.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// The path from the top of the repository.
    pub file: String,
    /// Our text, which occurs exactly once in the file.
    pub from: String,
    /// The learner's text.
    pub to: String,
}

/// All wrong solutions, in the order of their names.
pub fn all() -> Result<Vec<Wrong>> {
    let all = toml_dir::read(&workspace::root().join("harness/wrong"))?;
    let named = |(name, wrong)| Wrong { name, ..wrong };
    Ok(all.into_iter().map(named).collect())
}

impl Wrong {
    /// The files that it changes, with their new text.
    ///
    /// # Errors
    /// If our text does not occur exactly once: our solution has changed, and
    /// the wrong one must follow.
    pub fn files(&self) -> Result<Vec<(String, String)>> {
        let mut files: Vec<(String, String)> = Vec::new();
        for edit in &self.edits {
            let place = match files.iter().position(|(file, _)| file == &edit.file) {
                Some(place) => place,
                None => {
                    let path = workspace::root().join(&edit.file);
                    let text = fs::read_to_string(&path)
                        .with_context(|| format!("read {}", path.display()))?;
                    files.push((edit.file.clone(), without_anchors(&text)));
                    files.len() - 1
                }
            };
            let text = &mut files[place].1;
            let times = text.matches(&without_anchors(&edit.from)).count();
            if times != 1 {
                bail!(
                    "harness/wrong/{}.toml: the text to replace occurs {times} times in {}, not once: {:?}",
                    self.name,
                    edit.file,
                    edit.from
                );
            }
            *text = text.replacen(&without_anchors(&edit.from), &edit.to, 1);
        }
        Ok(files)
    }

    /// Compares the outcomes with the list: `Err` describes a check that should
    /// have failed or passed, an error of the harness, or reports that lack the
    /// words of `says`.
    pub fn judge(&self, step: &Step, records: &[Record]) -> std::result::Result<(), String> {
        let with = |outcome| -> BTreeSet<String> {
            records
                .iter()
                .filter(|r| r.outcome == outcome)
                .map(|r| r.check.clone())
                .collect()
        };
        let failed = with(Outcome::Fail);
        // A check that this kernel does not support cannot fail, and one that needs
        // another which fails is not run.
        let mut due = self.fails.clone();
        for outcome in [Outcome::Unsupported, Outcome::Blocked] {
            due.retain(|name| !with(outcome).contains(name));
        }
        let mut complaints = Vec::new();
        for record in records.iter().filter(|r| r.outcome == Outcome::Error) {
            complaints.push(format!(
                "{}: error of the harness: {}",
                record.check, record.message
            ));
        }
        complaints.extend(
            due.difference(&failed)
                .map(|name| format!("{name} did not fail")),
        );
        for name in failed.difference(&self.fails) {
            let message = records
                .iter()
                .find(|r| &r.check == name)
                .map_or("", |r| r.message.as_str());
            complaints.push(format!("{name} failed as well: {message}"));
        }
        if self.fails.is_empty() {
            complaints.push("it names no check that fails".to_owned());
        }
        if !due.is_empty() && !self.named(step, records) {
            complaints.push(format!("no report says {:?}", self.says));
        }
        if complaints.is_empty() {
            Ok(())
        } else {
            Err(complaints.join("; "))
        }
    }

    /// Whether the report of a failed check contains the words of `says`.
    pub fn named(&self, step: &Step, records: &[Record]) -> bool {
        records
            .iter()
            .filter(|r| r.outcome == Outcome::Fail)
            .any(|record| {
                let entry = step.entry(&record.check);
                let told = [
                    record.message.clone(),
                    record.host.join("\n"),
                    entry.map_or_else(String::new, |e| e.why.clone()),
                ];
                told.iter().any(|text| text.contains(&self.says))
            })
    }
}
