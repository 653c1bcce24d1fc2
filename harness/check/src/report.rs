//! Prints the results of checks, for people.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use crate::outcome::{Outcome, Record};
use crate::registry::Step;
use crate::wrap::wrap;

/// Width of the report in columns.
const WIDTH: usize = 80;

/// Prints the records of one step as they arrive.
pub struct Report<'a, W: Write> {
    out: W,
    colour: bool,
    step: &'a Step,
    score: u32,
    total: u32,
    /// Whether a failure was explained: those after it may follow from it.
    explained: bool,
    records: Vec<Record>,
}

/// Why a check fails that finds the host changed, whatever else it checks.
const HOST_WHY: &str = "what a run makes or changes on the host is gone when the run has ended. \
    It stays if it is made before the namespace that would hide it, or if nothing cleans up.";

/// Whether to colour standard output: on a terminal, without `NO_COLOR`.
pub fn colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

impl<'a, W: Write> Report<'a, W> {
    /// Prints the head: the step and the machine.
    pub fn begin(mut out: W, colour: bool, step: &'a Step, machine: &str) -> std::io::Result<Self> {
        let title = format!("step {} · {}", step.step, step.title);
        let space = WIDTH
            .saturating_sub(title.chars().count() + machine.chars().count())
            .max(2);
        writeln!(out, "{title}{:space$}{machine}", "")?;
        Ok(Report {
            out,
            colour,
            step,
            score: 0,
            total: 0,
            explained: false,
            records: Vec::new(),
        })
    }

    /// The number of the step.
    pub fn number(&self) -> &str {
        &self.step.step
    }

    /// Prints one record.
    pub fn record(&mut self, record: Record) -> std::io::Result<()> {
        let (title, points) = self
            .step
            .entry(&record.check)
            .map_or((record.check.as_str(), 0), |entry| {
                (entry.title.as_str(), entry.points)
            });
        let (mark, ansi, got) = match record.outcome {
            Outcome::Pass => ("✓", "32", points),
            Outcome::Fail => ("✗", "31", 0),
            Outcome::Blocked => ("·", "33", 0),
            Outcome::Unsupported => ("–", "33", 0),
            Outcome::Error => ("!", "35", 0),
        };
        // An unsupported check counts neither for the score nor for the total.
        let marks = if record.outcome == Outcome::Unsupported {
            "unsupported".to_owned()
        } else {
            self.score += got;
            self.total += points;
            format!("{got}/{points}")
        };
        let space = WIDTH
            .saturating_sub(4 + title.chars().count() + marks.chars().count())
            .max(1);
        writeln!(
            self.out,
            "  {} {title}{:space$}{marks}",
            paint(self.colour, ansi, mark),
            ""
        )?;
        self.details(&record)?;
        self.out.flush()?;
        self.records.push(record);
        Ok(())
    }

    fn details(&mut self, record: &Record) -> std::io::Result<()> {
        let alike =
            |other: &&Record| record.outcome == Outcome::Fail && other.message == record.message;
        let before = self.records.iter().find(alike);
        match (record.outcome, before) {
            (Outcome::Pass, _) => return Ok(()),
            (Outcome::Error, _) => {
                wrapped(&mut self.out, "error of the harness: ", &record.message)?;
            }
            _ if record.message.is_empty() => {}
            (_, Some(Record { check, .. })) => {
                let title = self.step.entry(check).map_or(check, |entry| &entry.title);
                wrapped(&mut self.out, "", &format!("the same as in “{title}”"))?;
            }
            (_, None) => wrapped(&mut self.out, "", &record.message)?,
        }
        for line in &record.host {
            wrapped(&mut self.out, "host changed: ", line)?;
        }
        if before.is_none() {
            for line in &record.said {
                writeln!(self.out, "      {line}")?;
            }
        }
        if self.explained {
            return Ok(());
        }
        if let (Outcome::Fail, Some(entry)) = (record.outcome, self.step.entry(&record.check)) {
            self.explained = true;
            if record.message.is_empty() {
                return wrapped(&mut self.out, "why:  ", HOST_WHY);
            }
            wrapped(&mut self.out, "why:  ", &entry.why)?;
            let hint = format!(
                "{} · book, chapter {}",
                entry.hint,
                chapter(&self.step.step)
            );
            wrapped(&mut self.out, "hint: ", &hint)?;
        }
        Ok(())
    }

    /// Prints the end: the state of the host and the score. Returns all
    /// records.
    pub fn end(mut self) -> std::io::Result<Vec<Record>> {
        let ran = self
            .records
            .iter()
            .any(|r| matches!(r.outcome, Outcome::Pass | Outcome::Fail));
        let changed = self.records.iter().filter(|r| !r.host.is_empty()).count();
        match (ran, changed) {
            (false, _) => {}
            (true, 0) => writeln!(
                self.out,
                "  host left as it was: mounts, cgroups, links, nft, ipc, processes, files"
            )?,
            (true, n) => writeln!(
                self.out,
                "  {} by {n} check{}",
                paint(self.colour, "31", "host changed"),
                if n == 1 { "" } else { "s" }
            )?,
        }
        writeln!(self.out, "  Score: {}/{}", self.score, self.total)?;
        Ok(self.records)
    }
}

/// Prints the last line, with the counts. Programs read it.
pub fn print_totals(records: &[Record]) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for record in records {
        let class = match record.outcome {
            Outcome::Pass => "passed",
            Outcome::Unsupported => "skipped",
            Outcome::Fail | Outcome::Blocked | Outcome::Error => "failed",
        };
        *counts.entry(class).or_default() += 1;
    }
    let count = |class| counts.get(class).copied().unwrap_or(0);
    println!(
        "{} passed, {} failed, {} skipped",
        count("passed"),
        count("failed"),
        count("skipped")
    );
}

/// Announces, on a terminal, work that takes time.
pub fn progress(what: &str) {
    if stderr().is_terminal() {
        eprintln!("… {what}");
    }
}

/// A duration in seconds with one decimal.
pub fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// The release of the running kernel.
pub fn kernel_release() -> String {
    format!(
        "Linux {}",
        rustix::system::uname().release().to_string_lossy()
    )
}

/// The number of the book's chapter on a step: `3` for `03`.
fn chapter(step: &str) -> &str {
    match step.trim_start_matches('0') {
        "" => "0",
        number => number,
    }
}

fn paint(colour: bool, ansi: &str, text: &str) -> String {
    if colour {
        format!("\x1b[{ansi}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// Prints `text` indented below a check, wrapped at the width of the report and
/// aligned behind `label`.
fn wrapped(out: &mut impl Write, label: &str, text: &str) -> std::io::Result<()> {
    let indent = 6 + label.chars().count();
    let mut label = format!("{:6}{label}", "");
    for line in wrap(text, WIDTH.saturating_sub(indent)) {
        writeln!(out, "{}", format!("{label}{line}").trim_end())?;
        label = " ".repeat(indent);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step() -> Step {
        let check = |name: &str| {
            format!(
                "[[check]]\nname = '{name}'\ntitle = 'title of {name}'\npoints = 1\n\
                 why = 'why {name}'\nhint = 'hint {name}'\n"
            )
        };
        let checks = ["a", "b", "c"].map(check).concat();
        toml::from_str(&format!("step = '05'\ntitle = 't'\n{checks}")).unwrap()
    }

    fn report(records: [Record; 3]) -> String {
        let step = step();
        let mut out = Vec::new();
        let mut report = Report::begin(&mut out, false, &step, "here").unwrap();
        for record in records {
            report.record(record).unwrap();
        }
        report.end().unwrap();
        let text = String::from_utf8(out).unwrap();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn failed(check: &str, message: &str) -> Record {
        Record {
            outcome: Outcome::Fail,
            message: message.to_owned(),
            ..Record::new("05", check, 1)
        }
    }

    #[test]
    fn the_first_failure_is_explained_and_the_others_are_not() {
        let said = report(["a", "b", "c"].map(|check| failed(check, &format!("no {check}"))));
        assert!(said.contains("why a") && said.contains("hint a"), "{said}");
        assert!(said.contains("no b") && !said.contains("why b"), "{said}");
        assert!(!said.contains("hint c"), "{said}");
    }

    #[test]
    fn one_panic_is_shown_once() {
        let said = report(["a", "b", "c"].map(|check| failed(check, "panicked at choice.rs")));
        assert_eq!(said.matches("panicked").count(), 1, "{said}");
        assert_eq!(said.matches("the same as in “title of a”").count(), 2);
    }

    #[test]
    fn the_same_words_hide_no_change_of_the_host() {
        let mut records = ["a", "b", "c"].map(|check| failed(check, "no"));
        records[1].host.push("mounts: left behind: /x".to_owned());
        let said = report(records);
        assert!(
            said.contains("host changed: mounts: left behind: /x"),
            "{said}"
        );
    }

    #[test]
    fn a_changed_host_has_a_reason_of_its_own() {
        let mut changed = failed("a", "");
        changed
            .host
            .push("hostname: gone: hostname host".to_owned());
        let said = report([changed, failed("b", "no b"), failed("c", "no c")]);
        assert!(said.contains("is gone when the run has ended"), "{said}");
        assert!(!said.contains("why a"), "{said}");
    }
}
