//! A container's group: one directory in each hierarchy that takes part.
//!
//! | module | what |
//! |---|---|
//! | this file, [`parent`] | the directories: creation, search for abandoned ones, removal |
//! | [`v1`], [`v2`], [`leaf`] | what each version requires before a process can enter |
//! | [`find`] | search by name and by process |
//! | [`processes`], [`mod@end`] | the processes of a group; the end of all of them |
//! | [`kill_legacy`] | the same in v1, and before Linux 5.14 |
//! | [`file`](mod@file) | the files of a group |

pub(crate) mod end;
pub(crate) mod file;
pub(crate) mod find;
pub(crate) mod kill_legacy;
pub(crate) mod leaf;
pub(crate) mod parent;
pub(crate) mod processes;
pub(crate) mod v1;
pub(crate) mod v2;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use kit::lock;
use kit::process_identity::{ALL_ASKED, is_taken, looks_for_the_dead};
use kit::say;

use crate::group::end::end;
use crate::group::parent::{PREFIX, Parent};
use crate::host::hierarchy::Version;

/// The group of a container.
#[derive(Default)]
pub(crate) struct Group {
    /// The name, the same in all hierarchies.
    pub name: String,
    /// Its directory in each hierarchy.
    pub members: Vec<Member>,
}

/// A group's directory in one hierarchy.
pub(crate) struct Member {
    /// The version of the hierarchy.
    pub version: Version,
    /// The controllers that act on the group in this hierarchy.
    pub controllers: Vec<String>,
    /// The group's directory.
    pub dir: PathBuf,
    /// The lock on the directory. The kernel releases it when the launcher ends
    /// in any way, so an unlocked group is one without a launcher, whatever the
    /// PID namespace.
    pub(crate) lock: Option<File>,
}

impl Group {
    /// The member on which a controller acts.
    pub(crate) fn controller(&self, name: &str) -> Option<&Member> {
        self.members
            .iter()
            .find(|member| member.controllers.iter().any(|c| c == name))
    }

    /// The member on v2.
    pub(crate) fn v2(&self) -> Option<&Member> {
        self.members
            .iter()
            .find(|member| member.version == Version::V2)
    }
}

/// A unique name: the launcher's PID and its start time, in clock ticks since
/// boot (proc_pid_stat(5)).
pub(crate) fn new_name() -> Result<String> {
    let stat = fs::read_to_string("/proc/self/stat").context("read /proc/self/stat")?;
    // The program's name, in parentheses, may contain any character.
    let start = stat
        .rsplit_once(')')
        .and_then(|(_, fields)| fields.split_whitespace().nth(19))
        .context("/proc/self/stat has no start time")?;
    Ok(format!("{PREFIX}{}-{start}", std::process::id()))
}

/// Makes the directory of a group and locks it. Leaves nothing behind on an
/// error.
pub(crate) fn make(parent: &Parent, name: &str) -> Result<(PathBuf, File)> {
    let dir = parent.dir.join(name);
    fs::create_dir(&dir).with_context(|| format!("mkdir {}", dir.display()))?;
    // Nobody else can hold it: a sweep requires the parent's lock.
    let lock = || {
        let file = File::open(&dir).with_context(|| format!("open {}", dir.display()))?;
        ensure!(
            lock::try_alone(&file, &dir)?,
            "flock({dir:?}): somebody holds it"
        );
        Ok(file)
    };
    match lock() {
        Ok(lock) => Ok((dir, lock)),
        Err(error) => {
            fs::remove_dir(&dir).with_context(|| format!("rmdir {}", dir.display()))?;
            Err(error)
        }
    }
}

/// Removes the groups in `parent` whose launchers are dead, with the processes
/// in them, and returns them.
///
/// # Errors
/// The first group that could not be removed; the others are tried all the
/// same.
pub(crate) fn sweep(parent: &Parent, version: Version) -> Result<Vec<PathBuf>> {
    let mut swept = Vec::new();
    let mut failed = Ok(());
    for dir in dead(parent)? {
        say!("remove {}: its launcher is gone", dir.display());
        let thawed = dir.file_name().map_or(Ok(()), find::thaw);
        match thawed.and_then(|()| end(&dir, version)) {
            Ok(()) => swept.push(dir),
            Err(error) => failed = failed.and(Err(error)),
        }
    }
    failed.map(|()| swept)
}

/// The groups in `parent` whose launchers are dead. Among many, a group is
/// asked only if no process has its launcher's PID: so a dead one is overlooked
/// as long as its PID is another process's.
pub(crate) fn dead(parent: &Parent) -> Result<Vec<PathBuf>> {
    let groups = parent.groups()?;
    let many = groups.len() > ALL_ASKED;
    let mut dead = Vec::new();
    for dir in groups {
        let lives = (many && has_process(&dir)) || launcher_lives(&dir)?;
        if !lives {
            dead.push(dir);
        }
    }
    Ok(dead)
}

/// The groups in `parent` whose launchers are dead, as a start asks for them:
/// among many only now and then ([`looks_for_the_dead`]).
pub(crate) fn dead_at_a_start(parent: &Parent) -> Result<Vec<PathBuf>> {
    match looks_for_the_dead(parent.directories()?)? {
        true => dead(parent),
        false => Ok(Vec::new()),
    }
}

/// Whether a process has the PID in the name of a group, [`new_name`].
fn has_process(dir: &Path) -> bool {
    parent::launcher(dir).is_some_and(is_taken)
}

fn launcher_lives(dir: &Path) -> Result<bool> {
    match lock::open_directory(dir)? {
        Some(group) => Ok(!lock::try_alone(&group, dir)?),
        // Removed meanwhile.
        None => Ok(false),
    }
}
