//! The directory in which the groups of containers are made, one in each
//! hierarchy: `drydock`, or what `--cgroup-parent` names.
//!
//! It is made by the first container and removed by the last. Both happen
//! under flock(2) on the directory itself, so that no container makes its group
//! in a directory that another one is about to remove. What the first had to
//! switch on above it is remembered in an extended attribute of the directory,
//! and the last switches it off.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result};
use kit::lock::{self, Turn};
use kit::say;
use nix::errno::Errno;
use rustix::fs::{XattrFlags, getxattr, setxattr};

use crate::group::file;
use crate::host::hierarchy::Version;

/// Its name, where none is asked for.
pub(crate) const NAME: &str = "drydock";

/// What the names of all groups of containers begin with.
pub(crate) const PREFIX: &str = "drydock-";

/// The extended attribute of a directory that we made: the controllers that
/// were switched on for it in the group above.
const MARK: &str = "user.drydock";

/// A parent that exists, and is ours alone as long as this lives.
pub(crate) struct Parent {
    pub(crate) dir: PathBuf,
    lock: File,
}

impl Parent {
    /// Makes the directory if it is missing, and those above it, and locks it.
    ///
    /// # Errors
    /// Those of mkdir(2): `EACCES` and `EROFS` where groups cannot be made.
    pub(crate) fn enter(dir: &Path) -> Result<Self> {
        loop {
            make(dir)?;
            if let Some(parent) = Self::existing(dir)? {
                return Ok(parent);
            }
        }
    }

    /// Locks the directory; `None` if there is none.
    ///
    /// # Errors
    /// Those of open(2) and flock(2).
    pub(crate) fn existing(dir: &Path) -> Result<Option<Self>> {
        let lock = lock::directory(dir, Turn::Judging)?;
        Ok(lock.map(|lock| Parent {
            dir: dir.to_owned(),
            lock,
        }))
    }

    /// The groups of containers in it, whether they live or not.
    ///
    /// # Errors
    /// Those of reading a directory.
    pub(crate) fn groups(&self) -> Result<Vec<PathBuf>> {
        Ok(directories(&self.dir)?
            .into_iter()
            .filter(|dir| named(dir, PREFIX))
            .collect())
    }

    /// Removes it if we made it and no group is left in it, and those above it
    /// likewise. Returns the first that stays because there are groups in it.
    ///
    /// # Errors
    /// Those of rmdir(2), except that it is in use.
    pub(crate) fn leave(self, version: Version) -> Result<Option<Self>> {
        let Some(controllers) = mark(&self.dir) else {
            return Ok(None);
        };
        if version == Version::V2 && !directories(&self.dir)?.is_empty() {
            return Ok(Some(self));
        }
        let Parent { dir, lock, .. } = self;
        let above = dir.parent().map(Path::to_owned);
        if let (Version::V2, Some(above)) = (version, &above) {
            switch_off(&dir, &controllers, above)?;
        }
        match fs::remove_dir(&dir) {
            Ok(()) => {}
            // It holds a group, or somebody else's process.
            Err(e) if e.raw_os_error() == Some(Errno::EBUSY as i32) => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("rmdir {}", dir.display())),
        }
        drop(lock);
        match above {
            Some(above) if mark(&above).is_some() => match Self::existing(&above)? {
                Some(above) => above.leave(version),
                None => Ok(None),
            },
            _ => Ok(None),
        }
    }
}

/// Whether we made the group, so that its files are ours to write.
pub(crate) fn ours(dir: &Path) -> bool {
    mark(dir).is_some()
}

/// Notes in a parent that a controller was switched on above it.
///
/// # Errors
/// Those of setxattr(2).
pub(crate) fn remember(dir: &Path, controller: &str) -> Result<()> {
    let mut all = mark(dir).unwrap_or_default();
    all.push(controller.to_owned());
    set_mark(dir, &all)
}

/// Switches `controllers` off in the group above, where they were switched on
/// for `dir`: first in `dir`, because a controller stays on as long as a group
/// below has it on. Groups of other people in the group above may have come to
/// rely on them; then they stay.
fn switch_off(dir: &Path, controllers: &[String], above: &Path) -> Result<()> {
    let others = directories(above)?
        .iter()
        .any(|other| other != dir && !named(other, NAME));
    if controllers.is_empty() || others {
        return Ok(());
    }
    let on = file::read(&dir.join("cgroup.subtree_control"))?;
    for controller in on.split_whitespace() {
        file::write(
            &dir.join("cgroup.subtree_control"),
            &format!("-{controller}"),
        )?;
    }
    for controller in controllers {
        let off = file::write(
            &above.join("cgroup.subtree_control"),
            &format!("-{controller}"),
        );
        if let Err(error) = off {
            say!("the {controller} controller stays on: {error:#}");
        }
    }
    Ok(())
}

/// mkdir(2), for it and for what is missing above it. Others may pass through
/// the directory, as a container's mount of its own group does, but not open
/// it, so that nobody else can hold our lock.
fn make(dir: &Path) -> Result<()> {
    match fs::DirBuilder::new().mode(0o711).create(dir) {
        // Our name is mark enough.
        Ok(()) if dir.ends_with(NAME) => Ok(()),
        Ok(()) => set_mark(dir, &[]),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => match dir.parent() {
            Some(above) => make(above).and_then(|_| make(dir)),
            None => Err(e).with_context(|| format!("mkdir {}", dir.display())),
        },
        Err(e) => Err(e).with_context(|| format!("mkdir {}", dir.display())),
    }
}

/// The directories in a directory: the groups in a group.
///
/// # Errors
/// Those of reading a directory. What is gone holds none.
pub(crate) fn directories(dir: &Path) -> Result<Vec<PathBuf>> {
    let list = || -> std::io::Result<Vec<PathBuf>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                all.push(entry.path());
            }
        }
        Ok(all)
    };
    match list() {
        Err(e) if gone(&e) => Ok(Vec::new()),
        other => other.with_context(|| format!("list {}", dir.display())),
    }
}

/// Whether a file is gone, also one that was just open (`ENODEV`).
pub(crate) fn gone(e: &std::io::Error) -> bool {
    e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(Errno::ENODEV as i32)
}

fn named(dir: &Path, prefix: &str) -> bool {
    dir.file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
}

/// What is noted in a directory that we made. One that has our name is ours,
/// also with nothing noted.
fn mark(dir: &Path) -> Option<Vec<String>> {
    let mut buffer = [0; 256];
    let Ok(length) = getxattr(dir, MARK, &mut buffer) else {
        return dir
            .file_name()
            .filter(|name| *name == NAME)
            .map(|_| Vec::new());
    };
    let text = str::from_utf8(&buffer[..length]).ok()?;
    Some(text.split_whitespace().map(String::from).collect())
}

fn set_mark(dir: &Path, controllers: &[String]) -> Result<()> {
    let text = controllers.join(" ");
    setxattr(dir, MARK, text.as_bytes(), XattrFlags::empty())
        .map_err(Error::from)
        .with_context(|| format!("setxattr({}, {MARK})", dir.display()))
}
