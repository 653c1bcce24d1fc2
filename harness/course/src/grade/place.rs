//! Directories in which submissions are compiled: one submission at a time in
//! each, and nothing left of the one before.
//!
//! ```text
//! target/grade/base      what cargo compiles, all but submissions: see `kit`
//! target/grade/1/build/  01-uts/src   the submission
//!                        out          the results
//!                        root         empty, for a root of the jail
//! ```

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::jail::{Jail, View};
use super::kit::Kit;
use super::limited::{self, Ended};
use super::reads;
use super::submission::Submission;
use check::{build, workspace};

/// A directory that is locked by flock(2) until this value is dropped.
#[derive(Debug)]
pub struct Place {
    dir: PathBuf,
    lock: File,
}

impl Place {
    /// Locks the place `dir`, which is created if necessary.
    ///
    /// # Errors
    /// If another run has locked it.
    pub fn at(dir: &Path) -> Result<Place> {
        match Place::try_at(dir)? {
            Some(place) => Ok(place),
            None => bail!(
                "{} is in use by another run: wait for it, or name another directory",
                dir.display()
            ),
        }
    }

    /// Locks the first free place below `target/grade`.
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
        let file = dir.join(".lock");
        let lock = File::create(&file).with_context(|| format!("create {}", file.display()))?;
        build::give_to_owner(&file)?;
        Ok((dir, lock))
    }

    /// Compiles everything that step `number` needs besides the submission.
    /// Missing crates are fetched.
    pub fn prepare(number: &str) -> Result<Kit> {
        let (dir, lock) = Place::open(&Place::all().join("base"))?;
        lock.lock()
            .with_context(|| format!("flock {}/.lock", dir.display()))?;
        let base = Place { dir, lock };
        Kit::make(number, &base.dir)
    }

    /// Compiles a submission, and returns how the compiler ended.
    ///
    /// # Errors
    /// [`TooLong`](limited::TooLong) if the compiler took longer than `limit`.
    /// Others are not the submission's fault.
    pub fn build(
        &self,
        kit: &Kit,
        jail: Jail,
        submission: &Submission,
        limit: Duration,
    ) -> Result<Ended> {
        let begun = Instant::now();
        let dir = self.build_dir();
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", dir.display()));
            }
            _ => {}
        }
        let own = dir.join(&kit.name);
        submission.write(&own)?;
        let mut read = vec![own, kit.libraries.clone()];
        read.extend(kit.toolchain.iter().cloned());
        let view = View {
            read,
            write: self.out(),
            root: dir.join("root"),
        };
        for dir in [&view.write, &view.root] {
            fs::create_dir_all(dir).with_context(|| format!("mkdir {}", dir.display()))?;
        }
        let [library, program] = kit.commands(&view.write);
        let run = |mut command: Command| {
            jail.confine(&mut command, &view, &dir)?;
            limited::run(&mut command, limit.saturating_sub(begun.elapsed()))
        };
        let mut ended = run(library)?;
        if ended.status.success() {
            ended = run(program)?;
        }
        build::give_to_owner(&dir)?;
        Ok(ended)
    }

    /// Makes sure that the last [`build`](Self::build) has read nothing but the
    /// submission, the kit and the system's libraries.
    ///
    /// # Errors
    /// Names the file that was read instead.
    pub fn read_own_only(&self, kit: &Kit, submission: &Submission) -> Result<()> {
        reads::check(kit, &self.build_dir(), &self.out(), submission)
    }

    /// Renames the program of the last [`build`](Self::build) to its name in
    /// `bin/`, and returns its path.
    pub fn program(&self, kit: &Kit, number: &str) -> Result<PathBuf> {
        let program = self.out().join(workspace::program(number));
        fs::rename(kit.program(&self.out()), &program)
            .with_context(|| format!("rename to {}", program.display()))?;
        Ok(program)
    }

    /// The directory of a submission: its sources, and what is made of them.
    pub fn build_dir(&self) -> PathBuf {
        self.dir.join("build")
    }

    fn out(&self) -> PathBuf {
        self.build_dir().join("out")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Closing the file unlocks it only when no child has it open any more.
        if let Err(error) = self.lock.unlock() {
            eprintln!("flock {}/.lock: {error}", self.dir.display());
        }
    }
}
