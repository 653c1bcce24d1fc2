//! Directories in which submissions are built: one submission at a time in
//! each, so that builds of several do not disturb one another.
//!
//! A place has its own target directory. Crates of others are compiled once, in
//! the place `base`, and copied from there: cargo knows them by their version
//! and not by their path, and takes them as they are if their times are kept. A
//! target directory of all would have a lock, which a source that keeps the
//! compiler busy would hold for as long as it may.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::limited::{self, Ended};
use super::reads;
use super::submission::Submission;
use crate::exercise::skeleton;
use crate::exercise::work::Work;
use crate::{build, workspace};

/// Longest time for the crates of others and our own: on a slow machine with
/// half a processor they take minutes.
const BASE: Duration = Duration::from_secs(60 * 60);

/// A directory that is ours as long as this value lives: flock(2).
#[derive(Debug)]
pub struct Place {
    dir: PathBuf,
    lock: File,
}

impl Place {
    /// The place `dir`, which is made.
    ///
    /// # Errors
    /// If another run has it, and those of making it.
    pub fn at(dir: &Path) -> Result<Place> {
        match Place::try_at(dir)? {
            Some(place) => Ok(place),
            None => bail!(
                "{} is in use by another run: wait for it, or name another directory",
                dir.display()
            ),
        }
    }

    /// The first place below `target/grade` that nobody uses.
    ///
    /// # Errors
    /// Those of making it.
    pub fn free() -> Result<Place> {
        let mut number = 1;
        loop {
            let dir = Place::all().join(number.to_string());
            if let Some(place) = Place::try_at(&dir)? {
                return Ok(place);
            }
            number += 1;
        }
    }

    fn all() -> PathBuf {
        workspace::root().join("target/grade")
    }

    fn try_at(dir: &Path) -> Result<Option<Place>> {
        let (dir, lock) = Place::open(dir)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Place { dir, lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("flock {}/.lock", dir.display()))
            }
        }
    }

    fn open(dir: &Path) -> Result<(PathBuf, File)> {
        fs::create_dir_all(dir).with_context(|| format!("mkdir {}", dir.display()))?;
        let dir = fs::canonicalize(dir).with_context(|| format!("realpath {}", dir.display()))?;
        let lock = File::create(dir.join(".lock"))
            .with_context(|| format!("create {}/.lock", dir.display()))?;
        Ok((dir, lock))
    }

    /// Compiles all that step `number` needs besides the submission.
    ///
    /// # Errors
    /// With the compiler's words: the network may be missing, or our own code
    /// be broken.
    pub fn prepare(number: &str) -> Result<()> {
        let (dir, lock) = Place::open(&Place::all().join("base"))?;
        lock.lock()
            .with_context(|| format!("flock {}/.lock", dir.display()))?;
        let base = Place { dir, lock };
        let mut nothing = Submission::default();
        for (file, text) in [("lib.rs", ""), ("main.rs", "fn main() {}\n")] {
            nothing.files.insert(file.into(), text.to_owned());
        }
        let ended = base.build(number, &nothing, BASE)?;
        if !ended.status.success() {
            bail!("our own crates cannot be built:\n{}", ended.output);
        }
        Ok(())
    }

    /// Builds a submission in a workspace of ours, without the network, and
    /// says how the compiler ended.
    ///
    /// # Errors
    /// Those of writing, and that the compiler took too long.
    pub fn build(&self, number: &str, submission: &Submission, limit: Duration) -> Result<Ended> {
        let work = Work::at(&self.dir);
        let own = work.step(number)?;
        if own.exists() {
            fs::remove_dir_all(&own).with_context(|| format!("remove {}", own.display()))?;
        }
        // The manifest is ours; of the sources nothing is.
        skeleton::copy_manifest(number, &own)?;
        submission.write(&own)?;
        work.lay_out(number, false)?;
        let mut command = build::command(&self.dir);
        command
            .args(["build", "--quiet", "--offline", "--profile", "wrong"])
            .args(["--package", &format!("step-{number}")])
            .args(["--bin", &workspace::program(number)])
            .arg("--target-dir")
            .arg(self.target())
            .args(["--message-format", "short"]);
        limited::run(&mut command, limit)
    }

    /// Makes sure that the last [`build`](Self::build) has read no sources but
    /// the submission's, and ours of the steps below.
    ///
    /// # Errors
    /// Names what it has read instead, and those of reading.
    pub fn read_own_only(&self, number: &str) -> Result<()> {
        reads::check(&self.program(number).with_extension("d"), &self.dir, number)
    }

    /// The program that the last [`build`](Self::build) has left.
    pub fn program(&self, number: &str) -> PathBuf {
        build::host_dir(&self.target())
            .join("wrong")
            .join(workspace::program(number))
    }

    /// Copies what [`prepare`](Self::prepare) has compiled, unless it is here.
    ///
    /// # Errors
    /// Those of listing, and of cp(1).
    pub fn take_over(&self) -> Result<()> {
        let base = Place::all().join("base");
        if compiled(&base)?.is_subset(&compiled(&self.dir)?) {
            return Ok(());
        }
        let target = self.target();
        fs::create_dir_all(&target).with_context(|| format!("mkdir {}", target.display()))?;
        let output = Command::new("cp")
            .args(["--archive", "--reflink=auto"])
            .args([&base.join("target/."), &target])
            .output()
            .context("run cp")?;
        if !output.status.success() {
            bail!("cp: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    fn target(&self) -> PathBuf {
        self.dir.join("target")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Closing the file would do it too, when no child has it any more.
        if let Err(error) = self.lock.unlock() {
            eprintln!("flock {}/.lock: {error}", self.dir.display());
        }
    }
}

/// The names of the compiled crates in a place; they tell the versions, the
/// settings and the compiler.
fn compiled(place: &Path) -> Result<BTreeSet<OsString>> {
    let target = place.join("target");
    let mut names = BTreeSet::new();
    for dir in [target.clone(), build::host_dir(&target)] {
        let dir = dir.join("wrong/deps");
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            entries => entries.with_context(|| format!("list {}", dir.display()))?,
        };
        for entry in entries {
            let name = entry
                .with_context(|| format!("list {}", dir.display()))?
                .file_name();
            let path = Path::new(&name);
            if path
                .extension()
                .is_some_and(|kind| kind == "rlib" || kind == "so")
            {
                names.insert(name);
            }
        }
    }
    Ok(names)
}
