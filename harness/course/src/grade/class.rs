//! A folder of submissions, and a directory of results that is valid at every
//! moment: a run that ends early leaves its results, and the next run
//! continues.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::marks::{Format, Marks, replace, tame};
use super::submission::Submission;
use check::outcome::Outcome;
use check::registry::Step;

/// One student's submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The student: the name of the directory, or of the archive without
    /// `.zip`.
    pub name: String,
    /// The directory or archive.
    pub path: PathBuf,
}

/// A folder of submissions.
#[derive(Debug, Default)]
pub struct Folder {
    /// The submissions, one per student, by name.
    pub entries: Vec<Entry>,
    /// The names of files that are not submissions.
    pub others: Vec<String>,
}

impl Folder {
    /// Reads the folder. Hidden files are skipped.
    ///
    /// # Errors
    /// Names a student with both a directory and an archive, or a name that is
    /// not UTF-8; says that the folder has no submission.
    pub fn read(dir: &Path) -> Result<Folder> {
        let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
        let mut others = Vec::new();
        for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
            let path = entry
                .with_context(|| format!("list {}", dir.display()))?
                .path();
            let file = path.file_name().unwrap_or_default();
            let Some(file) = file.to_str() else {
                bail!("{file:?} is not UTF-8: rename it");
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

/// The student of a file, from its name; `None` if it is neither a directory
/// nor a zip.
pub fn student<'a>(path: &Path, file: &'a str) -> Option<&'a str> {
    if path.is_dir() {
        return Some(file);
    }
    let (name, ending) = file.rsplit_once('.')?;
    (ending.eq_ignore_ascii_case("zip") && !name.is_empty()).then_some(name)
}

/// A student's marks in the directory of results.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// The student.
    pub name: String,
    /// The [`fingerprint`] of the submission that was marked.
    pub fingerprint: String,
    /// Whether grading was completed.
    pub finished: bool,
    /// The marks.
    #[serde(flatten)]
    pub marks: Marks,
}

/// A fingerprint that changes with the sources of a submission, with the step's
/// checks and points, and when `tests`, the program with the checks, is
/// rebuilt.
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
    /// The directory of results `dir`, which is created if necessary.
    pub fn at(dir: &Path) -> Result<Results> {
        fs::create_dir_all(dir).with_context(|| format!("mkdir {}", dir.display()))?;
        Ok(Results {
            dir: dir.to_owned(),
        })
    }

    /// The kept marks of a student, if grading was completed and the
    /// fingerprint is still the same.
    pub fn kept(&self, name: &str, fingerprint: &str) -> Option<Kept> {
        let text = fs::read(self.file(name, "json")).ok()?;
        let kept: Kept = serde_json::from_slice(&text).ok()?;
        (kept.finished && kept.fingerprint == fingerprint).then_some(kept)
    }

    /// Writes the marks as JSON, and once they are finished also as a text for
    /// the student.
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

/// A student's row in the table.
pub struct Row<'a> {
    /// The student.
    pub name: &'a str,
    /// The marks, or the reason why there are none.
    pub marks: Result<&'a Marks, &'a str>,
}

/// The table as CSV: name, score, available points, summary of what went wrong,
/// and a column per check with its points, empty for an unsupported check.
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
    String::from_utf8(bytes).context("the table is not text")
}

/// A text that no spreadsheet takes for a formula. Students choose the names of
/// their files.
fn literal(text: &str) -> String {
    let text = tame(text);
    match text.starts_with(['=', '+', '-', '@']) {
        true => format!("'{text}"),
        false => text,
    }
}
