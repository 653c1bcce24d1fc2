//! A folder of submissions, and a directory of results that is right at every
//! moment: a run that ends early leaves what it has, and the next goes on.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::marks::{Format, Marks, replace, tame};
use super::submission::Submission;
use crate::outcome::Outcome;
use crate::registry::Step;

/// What one student has handed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The student: the directory's name, or the archive's without `.zip`.
    pub name: String,
    /// The directory or archive.
    pub path: PathBuf,
}

/// A folder of submissions.
#[derive(Debug, Default)]
pub struct Folder {
    /// One a student, by name.
    pub entries: Vec<Entry>,
    /// The names of files that are no submissions.
    pub others: Vec<String>,
}

impl Folder {
    /// Reads the folder. Hidden files are nobody's submission.
    ///
    /// # Errors
    /// If a student is there twice, as a directory and as an archive, or a name
    /// is no text, or there is no submission at all.
    pub fn read(dir: &Path) -> Result<Folder> {
        let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
        let mut others = Vec::new();
        for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
            let path = entry
                .with_context(|| format!("list {}", dir.display()))?
                .path();
            let file = path.file_name().unwrap_or_default();
            let Some(file) = file.to_str() else {
                bail!("{file:?} is no name in UTF-8: rename it");
            };
            if file.starts_with('.') {
                continue;
            }
            let Some(name) = student(&path, file) else {
                others.push(tame(file));
                continue;
            };
            if let Some(there) = found.insert(name.to_owned(), path.clone()) {
                bail!(
                    "{} is there twice: {} and {file}; keep the one that counts",
                    tame(name),
                    there.file_name().unwrap_or_default().display(),
                );
            }
        }
        if found.is_empty() {
            bail!(
                "{}: no submission, neither a directory nor a zip",
                dir.display()
            );
        }
        others.sort();
        let entries = found.into_iter();
        Ok(Folder {
            entries: entries.map(|(name, path)| Entry { name, path }).collect(),
            others,
        })
    }
}

/// Whose submission a file is, by its name: nobody's, if it is neither a
/// directory nor a zip.
pub fn student<'a>(path: &Path, file: &'a str) -> Option<&'a str> {
    if path.is_dir() {
        return Some(file);
    }
    let (name, ending) = file.rsplit_once('.')?;
    (ending.eq_ignore_ascii_case("zip") && !name.is_empty()).then_some(name)
}

/// The marks of one student, as they are kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// The student.
    pub name: String,
    /// What was marked: see [`fingerprint`].
    pub fingerprint: String,
    /// Whether it was marked to its end.
    pub finished: bool,
    /// The marks.
    #[serde(flatten)]
    pub marks: Marks,
}

/// Changes with the sources of a submission, with the points, and when `tests`,
/// the program with the checks, is built anew.
///
/// # Errors
/// If there is no such program.
pub fn fingerprint(step: &Step, tests: &Path, submission: &Submission) -> Result<String> {
    let about = fs::metadata(tests).with_context(|| format!("stat {}", tests.display()))?;
    let mut hasher = DefaultHasher::new();
    submission.files.hash(&mut hasher);
    format!("{step:?}").hash(&mut hasher);
    (about.len(), about.mtime(), about.mtime_nsec()).hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

/// A directory of results: `NAME.json` and `NAME.txt` for each student.
pub struct Results {
    dir: PathBuf,
}

impl Results {
    /// The one in `dir`, which is made.
    ///
    /// # Errors
    /// Those of making it.
    pub fn at(dir: &Path) -> Result<Results> {
        fs::create_dir_all(dir).with_context(|| format!("mkdir {}", dir.display()))?;
        Ok(Results {
            dir: dir.to_owned(),
        })
    }

    /// What is kept of a student, if it was marked to its end and what was
    /// marked is what is there now.
    pub fn kept(&self, name: &str, fingerprint: &str) -> Option<Kept> {
        let text = fs::read(self.file(name, "json")).ok()?;
        let kept: Kept = serde_json::from_slice(&text).ok()?;
        (kept.finished && kept.fingerprint == fingerprint).then_some(kept)
    }

    /// Keeps it: as JSON, and when it is finished as a text for the student.
    ///
    /// # Errors
    /// Those of writing.
    pub fn keep(&self, kept: &Kept) -> Result<()> {
        let json = serde_json::to_string_pretty(kept).context("write the marks as JSON")?;
        replace(&self.file(&kept.name, "json"), &(json + "\n"))?;
        match kept.finished {
            true => kept
                .marks
                .write(Format::Text, &kept.name, &self.file(&kept.name, "txt")),
            false => Ok(()),
        }
    }

    fn file(&self, name: &str, ending: &str) -> PathBuf {
        self.dir.join(format!("{name}.{ending}"))
    }
}

/// What a table says of a student.
pub struct Row<'a> {
    /// The student.
    pub name: &'a str,
    /// The marks, or why there are none.
    pub marks: Result<&'a Marks, &'a str>,
}

/// The table as a spreadsheet reads it: name, score, what could be had, what
/// went wrong, and a column a check with its points, empty where there are none
/// to be had.
///
/// # Errors
/// Those of writing to memory.
pub fn csv(step: &Step, rows: &[Row<'_>]) -> Result<String> {
    let mut csv = csv::Writer::from_writer(Vec::new());
    let head = ["name", "score", "of", "note"].into_iter();
    let checks = step.checks.iter().map(|check| check.name.as_str());
    csv.write_record(head.chain(checks))
        .context("write the head of the table")?;
    for row in rows {
        let mut fields = vec![literal(row.name)];
        match row.marks {
            Ok(marks) => {
                fields.push(marks.points().to_string());
                fields.push(marks.of_all().to_string());
                fields.push(literal(&marks.summary()));
                fields.extend(marks.marks.iter().map(|mark| match mark.outcome {
                    Outcome::Unsupported => String::new(),
                    _ => mark.points.to_string(),
                }));
            }
            Err(why) => {
                fields.extend([String::new(), String::new(), literal(why)]);
                fields.resize(4 + step.checks.len(), String::new());
            }
        }
        csv.write_record(fields)
            .with_context(|| format!("write the row of {}", row.name))?;
    }
    let bytes = csv.into_inner().context("write the table")?;
    String::from_utf8(bytes).context("the table is no text")
}

/// A text that no spreadsheet takes for a formula: students choose the names of
/// their files.
fn literal(text: &str) -> String {
    let text = tame(text);
    match text.starts_with(['=', '+', '-', '@']) {
        true => format!("'{text}"),
        false => text,
    }
}
