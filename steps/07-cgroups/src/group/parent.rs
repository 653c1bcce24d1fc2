//! The parent of the containers' groups, one in each hierarchy: `drydock`, or
//! the value of `--cgroup-parent`.
//!
//! The first container makes it and the last removes it. Both hold a flock(2)
//! on the directory itself, so that no container makes its group in a directory
//! that another one is about to remove. The controllers that the first had to
//! switch on above it are recorded in an extended attribute of the directory,
//! and the last switches them off.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result};
use kit::lock::{self, Turn};
use kit::say;
use nix::errno::Errno;
use rustix::fs::{XattrFlags, getxattr, setxattr};

use crate::group::file;
use crate::host::hierarchy::Version;

/// Its default name.
pub(crate) const NAME: &str = "drydock";

/// The prefix of the names of all containers' groups.
pub(crate) const PREFIX: &str = "drydock-";

/// The extended attribute of a directory that we made: the list of the
/// controllers that were switched on for it in the group above.
const MARK: &str = "user.drydock";

/// The bit in the mode of a directory that we made: mkdir(2) sets it, so that a
/// launcher that is killed before it sets [`MARK`] has marked it, too. To a group
/// it means nothing, and nobody else sets it.
const STICKY: u32 = 0o1000;

/// A parent that exists, locked while this lives.
pub(crate) struct Parent {
    pub(crate) dir: PathBuf,
    lock: File,
}

impl Parent {
    /// Makes the directory and those above it if they are missing, and locks
    /// it.
    ///
    /// # Errors
    /// `EACCES` or `EROFS` of mkdir(2) if groups cannot be made.
    pub(crate) fn enter(dir: &Path) -> Result<Self> {
        loop {
            make(dir)?;
            if let Some(parent) = Self::existing(dir)? {
                return Ok(parent);
            }
        }
    }

    /// Locks the directory; `None` if it does not exist.
    pub(crate) fn existing(dir: &Path) -> Result<Option<Self>> {
        let lock = lock::directory(dir, Turn::Judging)?;
        Ok(lock.map(|lock| Parent {
            dir: dir.to_owned(),
            lock,
        }))
    }

    /// The groups of containers in it, with or without a launcher.
    pub(crate) fn groups(&self) -> Result<Vec<PathBuf>> {
        Ok(directories(&self.dir)?
            .into_iter()
            .filter(|dir| launcher(dir).is_some())
            .collect())
    }

    /// How many directories it holds: each has a link to it, `..`.
    pub(crate) fn directories(&self) -> Result<usize> {
        let metadata = fs::metadata(&self.dir);
        let metadata = metadata.with_context(|| format!("stat {}", self.dir.display()))?;
        Ok(metadata.nlink().saturating_sub(2) as usize)
    }

    /// Removes the directory if we made it and it holds no group, and then
    /// those above it likewise. On v2 returns the first one that stays because
    /// it holds groups.
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
            // It holds a group, or another user's process.
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

/// Whether we made the group, and so may write its files.
pub(crate) fn ours(dir: &Path) -> bool {
    mark(dir).is_some()
}

/// Records in a parent that a controller was switched on above it.
pub(crate) fn remember(dir: &Path, controller: &str) -> Result<()> {
    let mut all = mark(dir).unwrap_or_default();
    all.push(controller.to_owned());
    set_mark(dir, &all)
}

/// Switches `controllers` off in the group above, where they were switched on
/// for `dir`. They are first switched off in `dir`, because a controller stays
/// on while a group below has it on. If the group above has groups of others,
/// which may rely on the controllers, they stay on.
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

/// Makes the directory, and the missing ones above it. Others may pass through
/// it, as a container's mount of its own group does, but may not open it, so
/// that nobody else can hold our lock.
fn make(dir: &Path) -> Result<()> {
    match fs::DirBuilder::new().mode(STICKY | 0o711).create(dir) {
        // Our name is a sufficient mark.
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

/// The directories in a directory: the groups in a group. A missing directory
/// has none.
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

/// Whether the error means that a file is gone, including one that was just
/// opened (`ENODEV`).
pub(crate) fn gone(e: &std::io::Error) -> bool {
    e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(Errno::ENODEV as i32)
}

fn named(dir: &Path, prefix: &str) -> bool {
    dir.file_name()
        .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
}

/// The PID of the launcher after which a container's group is named
/// ([`new_name`](crate::group::new_name)); `None` for any other group, whoever
/// it belongs to: `drydock-runtime` is one of step 11, and full of containers.
pub(crate) fn launcher(dir: &Path) -> Option<i32> {
    let name = dir.file_name()?.to_str()?.strip_prefix(PREFIX)?;
    let (pid, start) = name.split_once('-')?;
    start.parse::<u64>().ok()?;
    pid.parse().ok()
}

/// The controllers recorded in a directory that we made. A directory with our
/// name, or our bit in its mode, is ours even without the attribute.
fn mark(dir: &Path) -> Option<Vec<String>> {
    let mut buffer = [0; 256];
    let Ok(length) = getxattr(dir, MARK, &mut buffer) else {
        let has_our_name = dir.file_name().is_some_and(|name| name == NAME);
        let has_our_bit = || fs::metadata(dir).is_ok_and(|found| found.mode() & STICKY != 0);
        return (has_our_name || has_our_bit()).then(Vec::new);
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
