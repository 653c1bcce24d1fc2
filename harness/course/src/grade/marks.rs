//! Marks: the points for the checks, for people and for the services that
//! teachers use.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use check::outcome::{Outcome, Record};
use check::registry::Step;

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

/// The mark for one check.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mark {
    /// The check's name.
    pub check: String,
    /// The check's title.
    pub title: String,
    /// The check's outcome.
    pub outcome: Outcome,
    /// The points given.
    pub points: u32,
    /// The points available; 0 if the check is unsupported on this machine.
    pub of: u32,
    /// What the check expected and found, changes on the host, and the hint.
    pub message: String,
    /// The duration of the check, in milliseconds.
    #[serde(default)]
    pub millis: u64,
}

/// The marks of one submission.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Marks {
    /// The step's number.
    pub step: String,
    /// The marks, one per check.
    pub marks: Vec<Mark>,
    /// The fault of the submission as a whole: it does not compile, or the
    /// machine was broken off.
    pub trouble: Option<String>,
    /// The duration of building and checking, in seconds.
    #[serde(default)]
    pub seconds: u64,
}

/// The message of a check without a record; the trouble has the reason.
const NOT_RUN: &str = "was not run";

/// The most characters of a message, which may contain a program's output.
const MESSAGE: usize = 8000;

impl Marks {
    /// The marks for these records. A check without a record gives no points;
    /// `trouble` has the reason.
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

    /// The marks so far, for the case that no more records arrive.
    pub fn so_far(step: &Step, records: &[Record]) -> Self {
        let unfinished = "the checks were broken off here".to_owned();
        Marks::of(step, records, Some(unfinished))
    }

    /// The sum of the points given.
    pub fn points(&self) -> u32 {
        self.marks.iter().map(|mark| mark.points).sum()
    }

    /// The sum of the points that were available on this machine.
    pub fn of_all(&self) -> u32 {
        self.marks.iter().map(|mark| mark.of).sum()
    }

    /// The marks in a format. The text begins with `name`: the student.
    pub fn format(&self, format: Format, name: &str) -> Result<String> {
        let value = match format {
            Format::Text => return Ok(self.text(name)),
            Format::Json => serde_json::to_value(self).context("write the marks as JSON")?,
            Format::Gradescope => self.gradescope(),
            Format::Classroom => self.classroom(),
        };
        serde_json::to_string_pretty(&value).context("write the marks as JSON")
    }

    /// Writes the marks to `file` in one step, so that a reader at any time
    /// finds a whole file.
    pub fn write(&self, format: Format, name: &str, file: &Path) -> Result<()> {
        let text = self.format(format, name)?;
        replace(file, &(text.trim_end().to_owned() + "\n"))
    }

    /// A summary of what went wrong, on one line; empty if nothing did.
    pub fn summary(&self) -> String {
        if let Some(trouble) = &self.trouble {
            // The compiler's first error tells more than the first line.
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

    /// results.json, as in "Autograder Specifications" of Gradescope.
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
                // With 0 of 0 points an unsupported check would be shown as a
                // passed test. Without a score and a status it is only
                // information.
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
            // The default is HTML, which rustc does not write.
            "output_format": "text",
            "visibility": "visible",
            "stdout_visibility": "hidden",
            "tests": tests,
        })
    }

    /// The input of GitHub Classroom's autograding reporter, version 1. It has
    /// no field for the trouble of the whole submission, so the tests have it.
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
                    "test_code": format!("./just check {}", self.step),
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

/// Replaces `file` by one with the content `text`, in one step (rename(2)).
pub fn replace(file: &Path, text: &str) -> Result<()> {
    let mut new = file.as_os_str().to_owned();
    new.push(".new");
    fs::write(&new, text).with_context(|| format!("write {}", new.display()))?;
    fs::rename(&new, file).with_context(|| format!("rename to {}", file.display()))
}

/// Makes a text safe to show that a student's program may have influenced: no
/// control characters that a terminal obeys, and a limited length.
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
