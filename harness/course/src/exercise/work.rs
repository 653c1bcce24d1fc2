//! The learner's directory: `work/`, or in a handout `steps/`.
//!
//! ```text
//! work/Cargo.toml      a workspace of the current step and those below it
//! work/05-user/        the learner's own
//! work/.ours/04-mount  a link to ours, for steps that are not the learner's
//! work/progress.toml   the learner's progress
//! work/tour.toml       what the learner has seen of the tour
//! ```
//!
//! A step's manifest is the same here as in `steps/`. Which crate `mount` is,
//! ours or the learner's, stands in the manifest of the workspace, which is
//! rewritten whenever another step becomes the current one. So cargo and
//! rust-analyzer see one unfinished crate at a time.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use toml::{Table, Value};

use super::progress::Progress;
use super::skeleton::{self, Solutions, read, write};
use check::{build, workspace};

/// The lints that an unfinished crate violates everywhere. They are allowed
/// there.
pub const UNFINISHED: [&str; 6] = [
    "unused_imports",
    "unused_variables",
    "unused_mut",
    "unused_assignments",
    "dead_code",
    "unreachable_code",
];

/// The environment variable that names another directory than `work/`.
pub const WORK: &str = "DRYDOCK_WORK";

/// The learner's directory.
#[derive(Clone, Debug)]
pub struct Work {
    dir: PathBuf,
    /// Whether the learner's crates are those in `steps/`: in a handout.
    in_steps: bool,
}

impl Work {
    /// `$DRYDOCK_WORK`, or else `work/` at the top of the repository. It need
    /// not exist. In a handout `work/` has the progress only.
    pub fn here() -> Self {
        match std::env::var_os(WORK) {
            Some(dir) => Work::at(Path::new(&dir)),
            None => Work {
                dir: workspace::root().join("work"),
                in_steps: workspace::is_handed_out(),
            },
        }
    }

    /// The learner's directory at `dir`.
    pub fn at(dir: &Path) -> Self {
        Work {
            dir: dir.to_owned(),
            in_steps: false,
        }
    }

    /// The directory of the learner's crate of step `number`. It need not
    /// exist.
    pub fn step(&self, number: &str) -> Result<PathBuf> {
        let ours = skeleton::step_dir(number)?;
        Ok(match self.in_steps {
            true => ours,
            false => self.dir.join(ours.file_name().unwrap_or_default()),
        })
    }

    /// The directory of the learner's crate of step `number`.
    ///
    /// # Errors
    /// Says how to start the step, if it was not started.
    pub fn started(&self, number: &str) -> Result<PathBuf> {
        let dir = self.step(number)?;
        if self.in_steps {
            // Fails for a step that was handed out solved.
            skeleton::exercises(number)?;
        }
        if dir.join("src").is_dir() {
            return Ok(dir);
        }
        bail!(
            "{} is not there: ./just start {number}",
            dir.strip_prefix(workspace::root())
                .unwrap_or(&dir)
                .display()
        )
    }

    /// Writes the skeleton of step `number` and returns its directory. In a
    /// handout it is there already.
    ///
    /// # Errors
    /// If the learner has started the step already: their files are never
    /// overwritten.
    pub fn start(&self, number: &str) -> Result<PathBuf> {
        let dir = self.step(number)?;
        if self.in_steps {
            return self.started(number);
        }
        if dir.exists() {
            bail!(
                "{} is there already: go on with it, or move it away to begin anew",
                dir.display()
            );
        }
        skeleton::copy(number, &dir, Solutions::CutOut)?;
        Ok(dir)
    }

    /// Makes step `number` the current one. The workspace then has this step
    /// and those that it needs: ours, or with `on_mine` the learner's where they
    /// are started.
    pub fn lay_out(&self, number: &str, on_mine: bool) -> Result<()> {
        if self.in_steps {
            return Ok(());
        }
        let mut places = Vec::new();
        let needed = skeleton::needed_above(number)?;
        let is_there = |step: &str| step <= number || needed.contains(step);
        for (below, ours) in skeleton::steps()? {
            if !is_there(&below) {
                continue;
            }
            let name = ours.file_name().unwrap_or_default().to_owned();
            let own = self.dir.join(&name);
            let mine = below == number || (on_mine && own.join("src").is_dir());
            let place = match mine {
                true => PathBuf::from(&name),
                false => {
                    let place = Path::new(".ours").join(&name);
                    link(&ours, &self.dir.join(&place))?;
                    place
                }
            };
            places.push((name.to_string_lossy().into_owned(), place));
        }
        let root = workspace::root();
        for shared in skeleton::shared()? {
            // A crate inside a later step is not needed.
            let step = shared.iter().next().unwrap_or_default();
            let of = step.to_str().and_then(|step| step.split_once('-'));
            if of.is_some_and(|(of, _)| !is_there(of)) {
                continue;
            }
            link(
                &root.join("steps").join(step),
                &self.dir.join(".ours").join(step),
            )?;
            let place = Path::new(".ours").join(&shared);
            places.push((shared.to_string_lossy().into_owned(), place));
        }
        let manifest = manifest(&read(&root.join("Cargo.toml"))?, &places)?;
        write(&self.dir.join("Cargo.toml"), &manifest)?;
        // The same versions of all dependencies as ours.
        write(
            &self.dir.join("Cargo.lock"),
            &read(&root.join("Cargo.lock"))?,
        )
    }

    /// Builds the learner's program of step `number` and returns its path. The
    /// messages of rustc are on standard error.
    pub fn build(&self, number: &str) -> Result<PathBuf> {
        let name = workspace::program(number);
        let target = target();
        let target = target.to_string_lossy();
        // The program of one step, with the features that all steps enable, so
        // that what the steps share is built once.
        let mut args = vec!["build", "--profile", "wrong", "--workspace"];
        args.extend(["--bin", &name, "--target-dir", &target]);
        let workspace = match self.in_steps {
            true => workspace::root(),
            false => self.dir.clone(),
        };
        let built = build::cargo(&workspace, &args)
            .with_context(|| format!("{} does not compile", self.step_name(number)))?;
        built
            .into_iter()
            .next_back()
            .with_context(|| format!("cargo built no {name}"))
    }

    fn step_name(&self, number: &str) -> String {
        let dir = self.step(number).unwrap_or_else(|_| self.dir.clone());
        let root = workspace::root();
        dir.strip_prefix(&root)
            .unwrap_or(&dir)
            .display()
            .to_string()
    }

    /// Where the tour remembers what the learner has seen.
    pub fn tour(&self) -> PathBuf {
        self.dir.join("tour.toml")
    }

    /// Reads the progress.
    pub fn progress(&self) -> Result<Progress> {
        Progress::read(&self.dir.join("progress.toml"))
    }

    /// Writes the progress.
    pub fn note(&self, progress: &Progress) -> Result<()> {
        fs::create_dir_all(&self.dir).with_context(|| format!("mkdir {}", self.dir.display()))?;
        progress.write(&self.dir.join("progress.toml"))
    }
}

/// cargo's target directory for learners' crates, skeletons and wrong
/// solutions. They have the same dependencies, which are built once.
pub fn target() -> PathBuf {
    workspace::root().join("target/work")
}

/// Makes `at` a symbolic link to `to`.
fn link(to: &Path, at: &Path) -> Result<()> {
    if let Some(dir) = at.parent() {
        fs::create_dir_all(dir).with_context(|| format!("mkdir {}", dir.display()))?;
    }
    match symlink(to, at) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            if fs::read_link(at).is_ok_and(|there| there == to) {
                return Ok(());
            }
            fs::remove_file(at).with_context(|| format!("unlink {}", at.display()))?;
            symlink(to, at).with_context(|| format!("symlink {}", at.display()))
        }
        other => other.with_context(|| format!("symlink {}", at.display())),
    }
}

/// The manifest of the workspace: ours, with the crates at their places in
/// `work/`, and with the lints of an unfinished crate.
fn manifest(ours: &str, places: &[(String, PathBuf)]) -> Result<String> {
    let mut manifest: Table = ours.parse().context("parse Cargo.toml")?;
    let text = |path: &Path| Value::String(path.to_string_lossy().into_owned());
    let workspace = manifest
        .get_mut("workspace")
        .and_then(Value::as_table_mut)
        .context("Cargo.toml has no [workspace]")?;
    let own = places
        .iter()
        .filter(|(_, place)| !place.starts_with(".ours"))
        .map(|(_, place)| text(place))
        .collect();
    workspace.insert("members".to_owned(), Value::Array(own));
    workspace.remove("exclude");
    let dependencies = workspace
        .get_mut("dependencies")
        .and_then(Value::as_table_mut)
        .context("Cargo.toml has no [workspace.dependencies]")?;
    dependencies.retain(|_, dependency| {
        let Some(path) = dependency.get("path").and_then(Value::as_str) else {
            return true;
        };
        let name = path.trim_start_matches("steps/").to_owned();
        let place = places.iter().find(|(known, _)| *known == name);
        if let (Some((_, place)), Some(dependency)) = (place, dependency.as_table_mut()) {
            dependency.insert("path".to_owned(), text(place));
        }
        place.is_some()
    });
    let mut lints: Table = "[rust]\nunsafe_code = 'deny'\nunsafe_op_in_unsafe_fn = 'deny'\n\
                            unused_must_use = 'deny'\n"
        .parse()
        .context("parse the lints")?;
    if let Some(rust) = lints.get_mut("rust").and_then(Value::as_table_mut) {
        rust.extend(UNFINISHED.map(|lint| (lint.to_owned(), Value::String("allow".to_owned()))));
    }
    workspace.insert("lints".to_owned(), Value::Table(lints));
    toml::to_string(&manifest).context("write the manifest")
}
