//! The messages of checks about a wrong solution, which its author would read.
//! insta records them in `harness/wrong/snapshots`, one file per solution.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use regex::{NoExpand, Regex};

use super::Wrong;
use super::redact::redacted;
use check::outcome::{Outcome, Record};
use check::workspace;

/// insta's environment variable: with `always` it rewrites its records.
pub const UPDATE: &str = "INSTA_UPDATE";

/// The longest name of a process, in bytes; the kernel cuts off the rest.
const COMM: usize = 15;

/// The words of the host guard for something that did not exist before.
const LEFT: &str = "left behind";

/// The directory of the records.
pub fn snapshots() -> PathBuf {
    workspace::root().join("harness/wrong/snapshots")
}

/// The messages of one wrong solution's failed checks, without the parts that
/// vary from run to run.
pub struct Messages<'a> {
    wrong: &'a Wrong,
    text: String,
}

impl<'a> Messages<'a> {
    /// Composes the messages: the name of each check, then indented its message
    /// and, if there is none, what it left on the host. For a check that was
    /// not run here, the recorded text is used.
    pub fn of(wrong: &'a Wrong, records: &[Record]) -> Result<Self> {
        let mut sections = Vec::new();
        for record in records.iter().filter(|r| wrong.fails.contains(&r.check)) {
            let section = match record.outcome {
                Outcome::Unsupported | Outcome::Blocked => {
                    Self::recorded(wrong)?.and_then(|mut recorded| recorded.remove(&record.check))
                }
                _ => Some(section(wrong, record)?),
            };
            sections.extend(section.map(|text| format!("{}\n{text}", record.check)));
        }
        Ok(Messages {
            wrong,
            text: sections.join("\n"),
        })
    }

    /// The recorded messages of a wrong solution, by check; `None` if there is
    /// no record yet.
    pub fn recorded(wrong: &Wrong) -> Result<Option<BTreeMap<String, String>>> {
        Ok(text(wrong)?.map(|text| by_check(&text)))
    }

    /// Whether the record has exactly these messages.
    pub fn are_recorded(&self) -> Result<bool> {
        Ok(text(self.wrong)?.is_some_and(|text| text.trim() == self.text.trim()))
    }

    /// Has insta compare the messages with the record. If they differ, insta
    /// prints the difference, and writes the new messages beside the record,
    /// for `cargo insta review`, or in its place: see [`UPDATE`]. Returns
    /// whether the record now has these messages.
    pub fn compare(&self) -> bool {
        let mut settings = insta::Settings::new();
        settings.set_snapshot_path(snapshots());
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.set_description(self.wrong.title.clone());
        let name = self.wrong.name.as_str();
        let compare = || settings.bind(|| insta::assert_snapshot!(name, &self.text));
        catch_unwind(AssertUnwindSafe(compare)).is_ok()
    }
}

/// The text of the record; `None` if there is no record.
fn text(wrong: &Wrong) -> Result<Option<String>> {
    let path = snapshots().join(format!("{}.snap", wrong.name));
    match fs::metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.with_context(|| format!("stat {}", path.display()))?,
    };
    let snapshot = insta::Snapshot::from_file(&path)
        .map_err(|error| anyhow!("read {}: {error}", path.display()))?;
    Ok(snapshot.as_text().map(ToString::to_string))
}

fn section(wrong: &Wrong, record: &Record) -> Result<String> {
    let mut lines: Vec<String> = record.message.lines().map(str::to_owned).collect();
    // It is chance what a failed program leaves on the host, and when that
    // disappears. It is recorded only if the check has no message.
    if lines.is_empty() {
        let left = record.host.iter().filter(|line| line.contains(LEFT));
        lines.extend(left.map(|line| format!("host changed: {line}")));
    }
    // A learner's program has the name of the step. The kernel cuts off the
    // name of a process (PR_SET_NAME(2const)).
    let program = workspace::program(&wrong.step);
    let comm = wrong.name.get(..COMM).unwrap_or(&wrong.name);
    let mut variations = Vec::new();
    for variation in &wrong.variations {
        let pattern = Regex::new(&variation.pattern)
            .with_context(|| format!("{}.toml: pattern", wrong.name))?;
        variations.push((pattern, &variation.shown));
    }
    let mut text = String::new();
    for line in lines {
        let line = line.replace(&wrong.name, &program).replace(comm, &program);
        let mut line = redacted(&line, record.seed);
        for (pattern, shown) in &variations {
            line = pattern.replace_all(&line, NoExpand(shown)).into_owned();
        }
        let line = format!("  {}\n", line.trim_end());
        // Several of a kind may be left behind, and their number varies.
        if !text.ends_with(&line) {
            text += &line;
        }
    }
    Ok(text)
}

fn by_check(text: &str) -> BTreeMap<String, String> {
    let mut sections: BTreeMap<String, String> = BTreeMap::new();
    let mut check = "";
    for line in text.lines() {
        if line.is_empty() {
            continue;
        }
        if !line.starts_with(' ') {
            check = line;
        }
        let section = sections.entry(check.to_owned()).or_default();
        if line.starts_with(' ') {
            *section += line;
            section.push('\n');
        }
    }
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_is_written() {
        let text = "one\n  expected a, found b\n  host changed: c\n\ntwo\n  expected d, found e\n";
        let sections = by_check(text);
        assert_eq!(
            sections["one"],
            "  expected a, found b\n  host changed: c\n"
        );
        assert_eq!(sections["two"], "  expected d, found e\n");
    }
}
