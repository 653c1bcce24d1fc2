//! Marks: what the checks give, for people and for the services that teachers
//! use.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::outcome::{Outcome, Record};
use crate::registry::Step;

/// How marks are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A line a check, for people
    #[default]
    Text,
    /// All that is known
    Json,
    /// results.json of Gradescope's autograder
    Gradescope,
    /// The result of GitHub Classroom's autograding
    Classroom,
}

/// One check's mark.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mark {
    /// The check's name.
    pub check: String,
    /// Its title.
    pub title: String,
    /// What came of it.
    pub outcome: Outcome,
    /// What it gives.
    pub points: u32,
    /// What it could have given; 0 where the machine cannot show it.
    pub of: u32,
    /// What was seen instead, and what to look at.
    pub message: String,
    /// How long it took, in milliseconds.
    #[serde(default)]
    pub millis: u64,
}

/// The marks of one submission.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Marks {
    /// The step's number.
    pub step: String,
    /// A mark a check.
    pub marks: Vec<Mark>,
    /// What went wrong with the submission as a whole: it does not compile, or
    /// the machine did not come to its end.
    pub trouble: Option<String>,
    /// How long building and checking took, in seconds.
    #[serde(default)]
    pub seconds: u64,
}

/// The message of a check of which nothing is known; the trouble says why.
const NOT_RUN: &str = "was not run";

/// Most characters of a message. What a program printed may be in it.
const MESSAGE: usize = 8000;

impl Marks {
    /// The marks that these records give. What was not run gives nothing; the
    /// trouble says why.
    pub fn of(step: &Step, records: &[Record], trouble: Option<String>) -> Self {
        let trouble = trouble.map(|trouble| tame(&trouble));
        let marks = step.checks.iter().map(|entry| {
            let record = records.iter().find(|record| record.check == entry.name);
            let outcome = record.map_or(Outcome::Fail, |record| record.outcome);
            let of = match outcome {
                Outcome::Unsupported => 0,
                _ => entry.points,
            };
            Mark {
                check: entry.name.clone(),
                title: entry.title.clone(),
                outcome,
                points: if outcome == Outcome::Pass { of } else { 0 },
                of,
                message: match record {
                    None => NOT_RUN.to_owned(),
                    Some(record) => tame(&words(record, &entry.hint)),
                },
                millis: record.map_or(0, |record| record.millis),
            }
        });
        Marks {
            step: step.step.clone(),
            marks: marks.collect(),
            trouble,
            seconds: 0,
        }
    }

    /// The marks as far as they are known, should nothing more come.
    pub fn so_far(step: &Step, records: &[Record]) -> Self {
        let unfinished = "the checks were broken off here".to_owned();
        Marks::of(step, records, Some(unfinished))
    }

    /// The points given.
    pub fn points(&self) -> u32 {
        self.marks.iter().map(|mark| mark.points).sum()
    }

    /// The points that could be had on this machine.
    pub fn of_all(&self) -> u32 {
        self.marks.iter().map(|mark| mark.of).sum()
    }

    /// All of it in a format. The text begins with the name: whose marks these
    /// are.
    ///
    /// # Errors
    /// Those of writing JSON.
    pub fn format(&self, format: Format, name: &str) -> Result<String> {
        let value = match format {
            Format::Text => return Ok(self.text(name)),
            Format::Json => serde_json::to_value(self).context("write the marks as JSON")?,
            Format::Gradescope => self.gradescope(),
            Format::Classroom => self.classroom(),
        };
        serde_json::to_string_pretty(&value).context("write the marks as JSON")
    }

    /// Writes all of it to `file`, in one step: whoever reads it at any time
    /// finds it whole.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write(&self, format: Format, name: &str, file: &Path) -> Result<()> {
        let text = self.format(format, name)?;
        replace(file, &(text.trim_end().to_owned() + "\n"))
    }

    /// What went wrong, in one line; empty if nothing did.
    pub fn summary(&self) -> String {
        if let Some(trouble) = &self.trouble {
            // The compiler's first error tells more than that there is one.
            let mut lines = trouble.lines().filter(|line| !line.trim().is_empty());
            let first = lines.next().unwrap_or_default().trim();
            let error = lines.find(|line| line.contains("error"));
            return match error {
                Some(error) => format!("{first} {}", error.trim()),
                None => first.to_owned(),
            };
        }
        let count = |outcome| self.marks.iter().filter(|m| m.outcome == outcome).count();
        let (failed, blocked) = (count(Outcome::Fail), count(Outcome::Blocked));
        let first = self.marks.iter().find(|m| m.outcome == Outcome::Fail);
        let mut words = Vec::new();
        if let Some(first) = first {
            words.push(format!(
                "{} of {} checks failed, first “{}”",
                failed + blocked,
                self.marks.len(),
                first.title
            ));
        }
        match count(Outcome::Error) {
            0 => {}
            1 => words.push("one could not be judged".to_owned()),
            errors => words.push(format!("{errors} could not be judged")),
        }
        words.join("; ")
    }

    fn text(&self, name: &str) -> String {
        let (points, of) = (self.points(), self.of_all());
        let mut text = format!("Step {} · {} · {points}/{of}", self.step, tame(name));
        match self.summary().as_str() {
            "" => text.push('\n'),
            why => text.push_str(&format!(" · {why}\n")),
        }
        for mark in &self.marks {
            text.push_str(&format!(
                "{:>3}/{:<3} {}\n",
                mark.points, mark.of, mark.title
            ));
            if mark.outcome == Outcome::Pass {
                continue;
            }
            for line in mark.message.lines() {
                text.push_str(&format!("        {line}\n"));
            }
        }
        if let Some(trouble) = &self.trouble {
            text.push_str(&format!("{trouble}\n"));
        }
        text
    }

    /// Gradescope, "Autograder Specifications": results.json.
    fn gradescope(&self) -> Value {
        let tests: Vec<Value> = self
            .marks
            .iter()
            .enumerate()
            .map(|(place, mark)| {
                let mut test = json!({
                    "name": mark.title,
                    "number": format!("{}.{}", self.step, place + 1),
                    "output": mark.message,
                    "tags": [mark.check, mark.outcome.to_string()],
                    "visibility": "visible",
                });
                // A check that cannot be shown is no test passed with 0 of 0
                // points: without a score and a status it only informs.
                if mark.outcome == Outcome::Unsupported {
                    test["output"] = format!("not counted: {}", mark.message).into();
                } else {
                    test["score"] = mark.points.into();
                    test["max_score"] = mark.of.into();
                    test["status"] = match mark.outcome {
                        Outcome::Pass => "passed",
                        _ => "failed",
                    }
                    .into();
                }
                test
            })
            .collect();
        let mut output = format!("{} of {} points", self.points(), self.of_all());
        if let Some(trouble) = &self.trouble {
            output.push_str(&format!("\n\n{trouble}"));
        }
        json!({
            "score": self.points(),
            "execution_time": self.seconds,
            "output": output,
            // By default it would be HTML, which rustc does not write.
            "output_format": "text",
            "visibility": "visible",
            "stdout_visibility": "hidden",
            "tests": tests,
        })
    }

    /// What GitHub Classroom's autograding reporter reads, version 1. It has no
    /// place for what is wrong with all of it, so the tests have it.
    fn classroom(&self) -> Value {
        let message = |mark: &Mark| match &self.trouble {
            Some(trouble) if mark.message == NOT_RUN => trouble.clone(),
            _ => mark.message.clone(),
        };
        let tests: Vec<Value> = self
            .marks
            .iter()
            .map(|mark| {
                json!({
                    "name": mark.title,
                    "status": if passed(mark) { "pass" } else { "fail" },
                    "score": mark.points,
                    "max_score": mark.of,
                    "message": message(mark),
                    "test_code": format!("just check {}", self.step),
                    "line_no": 0,
                    "execution_time": format!("{}ms", mark.millis),
                })
            })
            .collect();
        let status = match (&self.trouble, self.marks.iter().all(passed)) {
            (Some(_), _) => "error",
            (None, true) => "pass",
            (None, false) => "fail",
        };
        json!({
            "version": 1,
            "status": status,
            "max_score": self.of_all(),
            "tests": tests,
        })
    }
}

/// Puts `text` in the place of `file`, in one step.
///
/// # Errors
/// Those of writing and renaming.
pub fn replace(file: &Path, text: &str) -> Result<()> {
    let mut new = file.as_os_str().to_owned();
    new.push(".new");
    fs::write(&new, text).with_context(|| format!("write {}", new.display()))?;
    fs::rename(&new, file).with_context(|| format!("rename to {}", file.display()))
}

/// A text in which a student's program may have had its say, as it can be
/// shown: no character that a terminal obeys, and not without end.
pub fn tame(text: &str) -> String {
    let mut tame: String = text
        .chars()
        .map(|c| match c {
            '\n' => c,
            '\t' => ' ',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .take(MESSAGE)
        .collect();
    if text.chars().nth(MESSAGE).is_some() {
        tame.push_str(" …");
    }
    tame
}

fn passed(mark: &Mark) -> bool {
    matches!(mark.outcome, Outcome::Pass | Outcome::Unsupported)
}

fn words(record: &Record, hint: &str) -> String {
    let mut words = record.message.clone();
    for line in &record.host {
        words.push_str(&format!("\nhost changed: {line}"));
    }
    if record.outcome == Outcome::Fail {
        words.push_str(&format!("\nhint: {hint}"));
    }
    words.trim().to_owned()
}
