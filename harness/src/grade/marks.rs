//! Marks: what the checks give, for people and for the services that teachers
//! use.

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
}

impl Marks {
    /// The marks that these records give. What was not run gives nothing, and
    /// its message is the trouble.
    pub fn of(step: &Step, records: &[Record], trouble: Option<String>) -> Self {
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
                    None => trouble.clone().unwrap_or_else(|| "was not run".to_owned()),
                    Some(record) => words(record, &entry.hint),
                },
            }
        });
        Marks {
            step: step.step.clone(),
            marks: marks.collect(),
            trouble,
        }
    }

    /// The points given.
    pub fn points(&self) -> u32 {
        self.marks.iter().map(|mark| mark.points).sum()
    }

    /// The points that could be had on this machine.
    pub fn of_all(&self) -> u32 {
        self.marks.iter().map(|mark| mark.of).sum()
    }

    /// All of it in a format.
    ///
    /// # Errors
    /// Those of writing JSON.
    pub fn format(&self, format: Format) -> Result<String> {
        let value = match format {
            Format::Text => return Ok(self.text()),
            Format::Json => serde_json::to_value(self).context("write the marks as JSON")?,
            Format::Gradescope => self.gradescope(),
            Format::Classroom => self.classroom(),
        };
        serde_json::to_string_pretty(&value).context("write the marks as JSON")
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for mark in &self.marks {
            text.push_str(&format!(
                "{:>3}/{:<3} {}\n",
                mark.points, mark.of, mark.title
            ));
            if !mark.message.is_empty() && mark.outcome != Outcome::Pass {
                text.push_str(&format!("        {}\n", mark.message));
            }
        }
        if let Some(trouble) = &self.trouble {
            text.push_str(&format!("{trouble}\n"));
        }
        text.push_str(&format!("Score: {}/{}\n", self.points(), self.of_all()));
        text
    }

    /// Gradescope, "Autograder Specifications": results.json.
    fn gradescope(&self) -> Value {
        let tests: Vec<Value> = self
            .marks
            .iter()
            .map(|mark| {
                json!({
                    "name": mark.title,
                    "score": mark.points,
                    "max_score": mark.of,
                    "status": if passed(mark) { "passed" } else { "failed" },
                    "output": mark.message,
                    "visibility": "visible",
                })
            })
            .collect();
        json!({
            "score": self.points(),
            "output": self.trouble.clone().unwrap_or_default(),
            "stdout_visibility": "hidden",
            "tests": tests,
        })
    }

    /// What GitHub Classroom's autograding reporter reads, version 1.
    fn classroom(&self) -> Value {
        let tests: Vec<Value> = self
            .marks
            .iter()
            .map(|mark| {
                json!({
                    "name": mark.title,
                    "status": if passed(mark) { "pass" } else { "fail" },
                    "score": mark.points,
                    "max_score": mark.of,
                    "message": mark.message,
                    "test_code": format!("just check {}", self.step),
                    "line_no": 0,
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
