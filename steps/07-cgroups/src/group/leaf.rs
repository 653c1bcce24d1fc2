//! The launcher's own leaf. In a group that was delegated to it, the launcher
//! is in the way, because controllers can only be switched on in a group
//! without processes. It moves into a group below, and back at the end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kit::lock::{self, Turn};
use kit::say;

use crate::group::file;
use crate::group::parent::{directories, gone};

/// The prefix of the names of all leaves.
const PREFIX: &str = "drydock.launcher-";

/// A group that holds only the launcher.
pub(crate) struct Leaf {
    base: PathBuf,
    dir: PathBuf,
}

impl Leaf {
    /// Moves the launcher from `base` into a new leaf below.
    ///
    /// # Errors
    /// Lists the other processes that `base` holds, which are not ours to move.
    pub(crate) fn enter(base: &Path) -> Result<Self> {
        // Until it holds the launcher, an empty leaf counts as that of a dead
        // one.
        let _held = hold(base)?;
        sweep(base)?;
        let own = std::process::id().to_string();
        let procs = file::read(&base.join("cgroup.procs"))?;
        let others: Vec<&str> = procs.lines().filter(|pid| *pid != own).collect();
        if !others.is_empty() {
            bail!(
                "{} holds other processes ({}), so no controller can be enabled there: move them \
                 into a group below it, or start the launcher in a group of its own (with \
                 systemd: systemd-run --user --scope -p Delegate=yes)",
                base.display(),
                others.join(" ")
            );
        }
        let dir = base.join(format!("{PREFIX}{own}"));
        say!("move the launcher into {}", dir.display());
        fs::create_dir(&dir).with_context(|| format!("mkdir {}", dir.display()))?;
        let leaf = Leaf {
            base: base.to_owned(),
            dir,
        };
        match file::write(&leaf.dir.join("cgroup.procs"), "0") {
            Ok(()) => Ok(leaf),
            Err(error) => {
                fs::remove_dir(&leaf.dir)
                    .with_context(|| format!("rmdir {}", leaf.dir.display()))?;
                Err(error)
            }
        }
    }

    /// Moves the launcher back and removes the leaf. If controllers are still
    /// on in the group above, for the containers of other launchers, the leaf
    /// stays, and the next launcher removes it.
    pub(crate) fn leave(self) -> Result<()> {
        if let Err(error) = file::write(&self.base.join("cgroup.procs"), "0") {
            say!("{} stays: {error:#}", self.dir.display());
            return Ok(());
        }
        match fs::remove_dir(&self.dir) {
            // Another launcher's sweep may have removed it first.
            Err(e) if !gone(&e) => Err(e).with_context(|| format!("rmdir {}", self.dir.display())),
            _ => Ok(()),
        }
    }
}

/// Locks `base` against others who make or remove leaves in it.
pub(crate) fn hold(base: &Path) -> Result<File> {
    let held = lock::directory(base, Turn::Judging)?;
    held.with_context(|| format!("open {}: it is gone", base.display()))
}

/// Removes the leaves of dead launchers. The others hold a process, and
/// rmdir(2) refuses. The caller has locked the group.
fn sweep(base: &Path) -> Result<()> {
    for dir in directories(base)? {
        if is_leaf(&dir) && fs::remove_dir(&dir).is_ok() {
            say!("removed {}: its launcher is gone", dir.display());
        }
    }
    Ok(())
}

/// Whether the group's name is that of a launcher's leaf.
pub(crate) fn is_leaf(dir: &Path) -> bool {
    dir.file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with(PREFIX))
}
