//! Wrong solutions: `harness/wrong/*.toml`, edits of ours that a learner might
//! have written. Each must fail exactly the checks that it names, and what the
//! checks say is recorded.

mod builder;
mod messages;
mod redact;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;

use crate::exercise::region::without_anchors;
use crate::outcome::{Outcome, Record};
use crate::registry::Step;
use crate::vm::CgroupLayout;
use crate::{toml_dir, workspace};

pub use builder::Builder;
pub use messages::{Messages, UPDATE, snapshots};

/// A wrong solution.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wrong {
    /// The file's name without its ending: `04-no-ms-private`.
    #[serde(skip)]
    pub name: String,
    /// What its author believes.
    pub title: String,
    /// Its number among the misconceptions that the book lists, if it is there.
    pub misconception: Option<u32>,
    /// The step whose solution it is.
    pub step: String,
    /// The layout of the cgroup file systems on which it fails, where it fails
    /// on one only; otherwise the caller's choice.
    pub cgroup: Option<CgroupLayout>,
    /// The checks that fail on it, and no others.
    pub fails: BTreeSet<String>,
    /// What the report of one of these checks must say.
    pub says: String,
    /// What is different from our solution.
    #[serde(rename = "edit")]
    pub edits: Vec<Edit>,
    /// What the checks may say in one of several ways, as chance has it.
    #[serde(rename = "varies", default)]
    pub variations: Vec<Variation>,
}

/// A part of a message that is not the same in each run, and why.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variation {
    /// A regular expression that holds all the ways, as `a|b`.
    pub pattern: String,
    /// What is recorded in its place.
    pub shown: String,
    /// On what it depends.
    pub because: String,
}

/// A text of ours in the place of which the wrong solution has another one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// Path from the top of the repository.
    pub file: String,
    /// What we wrote: occurs exactly once in the file.
    pub from: String,
    /// What the learner wrote.
    pub to: String,
}

/// All wrong solutions, in the order of their names.
///
/// # Errors
/// Names the file that cannot be read.
pub fn all() -> Result<Vec<Wrong>> {
    let all = toml_dir::read(&workspace::root().join("harness/wrong"))?;
    let named = |(name, wrong)| Wrong { name, ..wrong };
    Ok(all.into_iter().map(named).collect())
}

impl Wrong {
    /// The files that it changes, with their text.
    ///
    /// # Errors
    /// Where the text to be replaced does not occur exactly once: our solution
    /// has moved on, and the wrong one with it must.
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

    /// Whether the checks found it out: `Ok`, or in words what they did
    /// instead.
    ///
    /// # Errors
    /// A check that fails or does not fail against the list, or a report that
    /// does not name what is wrong.
    pub fn judge(&self, step: &Step, records: &[Record]) -> std::result::Result<(), String> {
        let with = |outcome| -> BTreeSet<String> {
            records
                .iter()
                .filter(|r| r.outcome == outcome)
                .map(|r| r.check.clone())
                .collect()
        };
        let (failed, unsupported) = (with(Outcome::Fail), with(Outcome::Unsupported));
        // A check that cannot run on this kernel cannot find anything out.
        let due: BTreeSet<String> = self.fails.difference(&unsupported).cloned().collect();
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

    /// Whether the report of a failed check names the misconception.
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
