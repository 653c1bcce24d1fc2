//! A step's crate with the exercises in the place of the solutions.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::region::{cut, is_open, regions, solved};
use super::{Exercise, Exercises};
use check::workspace;

/// The treatment of solutions in a copy of a crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Solutions {
    /// Exercises replace the solutions.
    CutOut,
    /// Exercises replace the solutions of all but the first so many.
    First(usize),
    /// The solutions stay.
    Stay,
}

/// The numbers of the steps and the paths of their directories, in order.
pub fn steps() -> Result<Vec<(String, PathBuf)>> {
    let dir = workspace::root().join("steps");
    let mut steps = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry
            .with_context(|| format!("list {}", dir.display()))?
            .path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if let Some((number, _)) = name.split_once('-') {
            steps.push((number.to_owned(), path.clone()));
        }
    }
    steps.sort();
    Ok(steps)
}

/// The steps above `last` without which the steps up to `last` do not compile:
/// step 09 is built of all others, and its list has isolations of step 10.
pub fn needed_above(last: &str) -> Result<BTreeSet<String>> {
    let manifest = |path: PathBuf| -> Result<toml::Table> {
        let text = read(&path)?;
        text.parse()
            .with_context(|| format!("parse {}", path.display()))
    };
    let root = manifest(workspace::root().join("Cargo.toml"))?;
    let known = root["workspace"]["dependencies"].clone();
    // The number of the step that a dependency is: `steps/10-harden`.
    let number = |name: &str| -> Option<String> {
        let path = known.get(name)?.get("path")?.as_str()?;
        let (number, _) = path.strip_prefix("steps/")?.split_once('-')?;
        (number.len() == 2 && !path["steps/".len()..].contains('/')).then(|| number.to_owned())
    };
    let mut needed = BTreeSet::new();
    let steps = steps()?;
    // Those that are found may need others.
    loop {
        let before = needed.len();
        for (step, dir) in &steps {
            if step.as_str() > last && !needed.contains(step) {
                continue;
            }
            let manifest = manifest(dir.join("Cargo.toml"))?;
            let dependencies = manifest
                .get("dependencies")
                .and_then(|list| list.as_table());
            let numbers = dependencies.into_iter().flat_map(|list| list.keys());
            needed.extend(
                numbers
                    .filter_map(|name| number(name))
                    .filter(|number| number.as_str() > last),
            );
        }
        if needed.len() == before {
            return Ok(needed);
        }
    }
}

/// The crates in `steps/` that are not steps, as paths from there: `kit`, which
/// all steps share, and parts of a step that are no exercise, such as
/// `08-union/aufs-server`.
pub fn shared() -> Result<Vec<PathBuf>> {
    let top = workspace::root().join("steps");
    let mut shared = Vec::new();
    for name in directories(&top)? {
        let crates: Vec<PathBuf> = match name.to_string_lossy().contains('-') {
            // A step: what lies in it.
            true => directories(&top.join(&name))?
                .iter()
                .map(|inner| name.join(inner))
                .collect(),
            false => vec![name],
        };
        let is_crate = |path: &PathBuf| top.join(path).join("Cargo.toml").is_file();
        shared.extend(crates.into_iter().filter(is_crate));
    }
    shared.sort();
    Ok(shared)
}

fn directories(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let entry = entry.with_context(|| format!("list {}", dir.display()))?;
        if entry.path().is_dir() {
            names.push(entry.file_name().into());
        }
    }
    Ok(names)
}

/// The directory of step `number`.
///
/// # Errors
/// Lists the steps that exist.
pub fn step_dir(number: &str) -> Result<PathBuf> {
    let steps = steps()?;
    let Some((_, dir)) = steps.iter().find(|(known, _)| known == number) else {
        let known: Vec<&str> = steps.iter().map(|(number, _)| number.as_str()).collect();
        bail!("there is no step {number}: there are {}", known.join(", "));
    };
    Ok(dir.clone())
}

/// The exercises of step `number`.
///
/// # Errors
/// In a handout, if the step was handed out solved.
pub fn exercises(number: &str) -> Result<Exercises> {
    if workspace::is_handed_out() && !has_exercises(number) {
        bail!("step {number} was handed out solved: it has no exercises");
    }
    Exercises::read(&exercises_dir(), number)
}

/// Whether step `number` has exercises here: in a handout, those to be solved.
pub fn has_exercises(number: &str) -> bool {
    exercises_dir().join(format!("{number}.toml")).is_file()
}

fn exercises_dir() -> PathBuf {
    workspace::root().join("harness/exercises")
}

/// The exercises that are not begun in the crate in `dir`, in our order: each
/// with the file in which its gap is.
pub fn open(dir: &Path, number: &str) -> Result<Vec<(Exercise, PathBuf)>> {
    let mut texts = Vec::new();
    for file in sources(dir)? {
        let path = dir.join(&file);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        texts.push((file, text));
    }
    let mut open = Vec::new();
    for exercise in exercises(number)?.all {
        for (file, text) in &texts {
            if is_open(text, &exercise) {
                open.push((exercise.clone(), file.clone()));
            }
        }
    }
    Ok(open)
}

/// The place of an exercise in a step's crate.
#[derive(Clone, Debug)]
pub struct Place {
    /// The exercise's name.
    pub exercise: String,
    /// The file, relative to the crate's directory.
    pub file: PathBuf,
    /// Our solution.
    pub solution: String,
}

/// Finds all regions of the crate in `dir`.
pub fn places(dir: &Path) -> Result<Vec<Place>> {
    let mut places = Vec::new();
    for file in sources(dir)? {
        let text = read(&dir.join(&file))?;
        let found = regions(&text).with_context(|| dir.join(&file).display().to_string())?;
        places.extend(found.into_iter().map(|region| Place {
            exercise: region.name,
            file: file.clone(),
            solution: region.solution,
        }));
    }
    Ok(places)
}

/// Copies the manifest and the sources of step `number` to the directory `to`,
/// which is created. The tests beside `src/` are not copied.
pub fn copy(number: &str, to: &Path, solutions: Solutions) -> Result<()> {
    let from = step_dir(number)?;
    let (exercises, done) = match solutions {
        Solutions::CutOut => (exercises(number)?, 0),
        Solutions::First(done) => (exercises(number)?, done),
        Solutions::Stay => (Exercises::default(), 0),
    };
    for file in sources(&from)? {
        let text = read(&from.join(&file))?;
        let text = match solutions {
            Solutions::CutOut | Solutions::First(_) => cut(&text, &exercises, done)
                .with_context(|| from.join(&file).display().to_string())?,
            Solutions::Stay => solved(&text),
        };
        write(&to.join(&file), &text)?;
    }
    copy_manifest(number, to)
}

/// Writes the manifest of step `number` to the directory `to`.
pub fn copy_manifest(number: &str, to: &Path) -> Result<()> {
    let from = step_dir(number)?.join("Cargo.toml");
    write(&to.join("Cargo.toml"), &manifest(&read(&from)?)?)
}

/// A crate's manifest without the tests beside `src/`, which are not copied.
fn manifest(text: &str) -> Result<String> {
    let mut manifest: toml::Table = text.parse().context("parse the crate's manifest")?;
    manifest.remove("test");
    toml::to_string(&manifest).context("write the crate's manifest")
}

/// The Rust files below `src/` of the crate in `dir`, as paths from `dir`,
/// sorted.
pub fn sources(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut dirs = vec![PathBuf::from("src")];
    while let Some(within) = dirs.pop() {
        let list = dir.join(&within);
        for entry in fs::read_dir(&list).with_context(|| format!("list {}", list.display()))? {
            let entry = entry.with_context(|| format!("list {}", list.display()))?;
            let path = within.join(entry.file_name());
            let kind = entry
                .file_type()
                .with_context(|| format!("stat {}", path.display()))?;
            if kind.is_dir() {
                dirs.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

pub(crate) fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("read {}", file.display()))
}

pub(crate) fn write(file: &Path, text: &str) -> Result<()> {
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir).with_context(|| format!("mkdir {}", dir.display()))?;
    }
    fs::write(file, text).with_context(|| format!("write {}", file.display()))
}
