//! Selects what a change can have affected, and so what is worth running again.
//!
//! | changed | run again |
//! |---|---|
//! | `steps/NN-…` | the checks and transcripts of NN and of all steps above or that need it, the skeleton of NN, the wrong solutions that edit one of the files |
//! | `harness/tests/step_NN…` | the checks, the skeleton and the wrong solutions of NN |
//! | `harness/wrong/NAME.toml`, its record | that wrong solution |
//! | `harness/hostile/…` | the hostile submissions |
//! | `book/src/PAGE.md`, `book/varies/PAGE.toml` | the transcripts of that page |
//! | `*.md` elsewhere, licences | no machine is needed |
//! | anything else | all |

use std::collections::BTreeSet;
use std::path::Path;

use course::exercise::skeleton;
use course::wrong::Wrong;

/// The selection of what to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Everything, because of this file.
    pub all: Option<String>,
    /// Steps whose checks are run.
    pub steps: BTreeSet<String>,
    /// Steps whose skeletons are checked.
    pub skeletons: BTreeSet<String>,
    /// Pages whose transcripts are run.
    pub pages: BTreeSet<String>,
    /// Wrong solutions, by name.
    pub wrong: BTreeSet<String>,
    /// Whether the hostile submissions are graded.
    pub hostile: bool,
    /// Whether the book is built.
    pub book: bool,
}

/// Selects what a change of `files` can have affected. The paths are relative
/// to the top of the repository.
pub fn by(files: &[String], steps: &[String], wrongs: &[Wrong]) -> Touched {
    let mut touched = Touched::default();
    for file in files {
        let edited = wrongs
            .iter()
            .filter(|wrong| wrong.edits.iter().any(|edit| &edit.file == file));
        touched.wrong.extend(edited.map(|wrong| wrong.name.clone()));
        let stem = Path::new(file).file_stem().unwrap_or_default();
        let stem = stem.to_string_lossy().into_owned();
        if let Some(number) = number(file, "steps/") {
            // Includes of the book show the sources; a page of them shows a README.
            touched.book = true;
            if !file.ends_with(".md") {
                // A step that has an isolation of a later one, as 09 of 10.
                let needs = |step: &str| match skeleton::needed_above(step) {
                    Ok(needed) => needed.contains(&number),
                    Err(_) => true,
                };
                let above = steps
                    .iter()
                    .filter(|step| ***step >= *number || needs(step))
                    .cloned();
                touched.steps.extend(above.clone());
                touched.pages.extend(above);
                touched.skeletons.insert(number);
            }
        } else if let Some(number) = number(file, "harness/tests/step_") {
            let of_step = wrongs.iter().filter(|wrong| wrong.step == number);
            touched
                .wrong
                .extend(of_step.map(|wrong| wrong.name.clone()));
            touched.steps.insert(number.clone());
            touched.skeletons.insert(number);
        } else if file.starts_with("harness/wrong/") {
            // A wrong solution that was removed is not run.
            let known = wrongs.iter().any(|wrong| wrong.name == stem);
            touched.wrong.extend(known.then_some(stem));
        } else if file.starts_with("harness/hostile/") {
            touched.hostile = true;
        } else if file.starts_with("book/") {
            touched.book = true;
            let text = file.starts_with("book/src/") && file.ends_with(".md") && stem != "SUMMARY";
            if text || file.starts_with("book/varies/") {
                touched.pages.insert(stem);
            }
        } else if !file.ends_with(".md") && !file.starts_with("LICENSE") {
            touched.all.get_or_insert_with(|| file.clone());
        }
    }
    touched
}

/// `05` of `steps/05-user/src/lib.rs`.
fn number(file: &str, before: &str) -> Option<String> {
    let number = file.strip_prefix(before)?.get(..2)?;
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| number.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use course::wrong;

    fn by_one(file: &str) -> Touched {
        let steps = ["00", "07", "08", "09"].map(str::to_owned);
        by(&[file.to_owned()], &steps, &wrong::all().unwrap())
    }

    fn names(set: &BTreeSet<String>) -> Vec<&str> {
        set.iter().map(String::as_str).collect()
    }

    #[test]
    fn a_step_touches_those_above_and_what_edits_it() {
        let wrongs = wrong::all().unwrap();
        let edited = wrongs.iter().find(|wrong| wrong.step == "08").unwrap();
        let touched = by_one(&edited.edits[0].file);
        assert!(touched.all.is_none());
        assert!(touched.wrong.contains(&edited.name));
        assert!(touched.steps.contains("09") && touched.pages.contains("09"));
        let touched = by_one("steps/08-union/src/lib.rs");
        assert_eq!(names(&touched.steps), ["08", "09"]);
        assert_eq!(names(&touched.skeletons), ["08"]);
    }

    #[test]
    fn checks_touch_their_step() {
        let touched = by_one("harness/tests/step_09/images.rs");
        assert_eq!(names(&touched.steps), ["09"]);
        assert!(!touched.wrong.is_empty());
        assert!(touched.wrong.iter().all(|name| name.starts_with("09")));
    }

    #[test]
    fn pages_and_words_need_little() {
        let touched = by_one("book/src/04-mount.md");
        assert_eq!(names(&touched.pages), ["04-mount"]);
        assert!(touched.steps.is_empty() && touched.book);
        assert_eq!(
            names(&by_one("book/varies/04-mount.toml").pages),
            ["04-mount"]
        );
        assert_eq!(by_one("README.md"), Touched::default());
        assert!(by_one("harness/hostile/x.toml").hostile);
    }

    #[test]
    fn what_is_not_known_touches_everything() {
        for file in [
            "harness/check/src/guard.rs",
            "vm/init",
            "Cargo.lock",
            "harness/tests/layers/mod.rs",
            "tools/test",
        ] {
            assert_eq!(by_one(file).all.as_deref(), Some(file));
        }
    }
}
