//! copy_up: before the first change, the whole file is copied to a writable
//! branch above. The copy is made under a temporary name and shown when it is
//! complete, so that nobody ever sees half a copy. The original is only read.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fuser::FileType;
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RenameFlags, Statx, mkdirat, openat, renameat, renameat_with,
    unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::Union;
use crate::attr::times;
use crate::beneath::{DIRECTORY, Result, magic, stat_at, stat_fd};
use crate::copy_file::{copy_file, copy_metadata};
use crate::inode::Key;
use crate::node::{Dir, ROOT, lock};
use crate::whiteout;

impl Union {
    /// Ensures that a file is in a writable branch; copies at most `length`
    /// bytes of its data, if given.
    ///
    /// # Errors
    /// `EROFS` if no branch above is writable; `ENOSPC` and the like from
    /// copying. Nothing has changed then.
    pub(crate) fn copy_up(&self, id: u64, length: Option<u64>) -> Result<()> {
        self.copy_up_to(id, length, usize::MAX)
    }

    /// Does what [`copy_up`](Self::copy_up) does, to `lowest` or a branch above
    /// it.
    pub(crate) fn copy_up_to(&self, id: u64, length: Option<u64>, lowest: usize) -> Result<()> {
        if self.may_be_written(id, lowest)? {
            return Ok(());
        }
        let copying = Arc::clone(&lock(&self.nodes).get(id)?.copying);
        let _one_at_a_time = lock(&copying);
        if self.may_be_written(id, lowest)? {
            return Ok(());
        }
        if lock(&self.nodes).get(id)?.kind == FileType::Directory {
            let _names = self.write_names();
            let (parent, from) = {
                let nodes = lock(&self.nodes);
                let parent = nodes.dir(nodes.name(id)?.0)?;
                (parent, nodes.get(id)?.key.branch)
            };
            let branch = self.branch_for_copy(&parent, from)?;
            return self.ensure_dir(id, branch).map(drop);
        }
        let (place, branch) = {
            let _names = self.read_names();
            let place = self.place(id)?;
            (place, self.target(id, lowest)?)
        };
        let temporary = self.temporary();
        let root = &self.branches[branch].root;
        let made = copy_file(&place, root, &temporary, length)
            .and_then(|()| self.show_copy(id, branch, &temporary, &stat_fd(&place)?));
        if made.is_err() {
            // The first error is the one that matters.
            whiteout::remove_tree(root, &temporary).ok();
        }
        made
    }

    /// Whether a file is in a writable branch that is not below `lowest`.
    fn may_be_written(&self, id: u64, lowest: usize) -> Result<bool> {
        let branch = lock(&self.nodes).get(id)?.key.branch;
        Ok(branch <= lowest && self.branches[branch].writable())
    }

    /// The branch for the copy of a file.
    fn target(&self, id: u64, lowest: usize) -> Result<usize> {
        let nodes = lock(&self.nodes);
        let from = nodes.get(id)?.key.branch.min(lowest.saturating_add(1));
        match nodes.name(id) {
            Ok((parent, _)) => {
                let parent = nodes.dir(parent)?;
                drop(nodes);
                self.branch_for_copy(&parent, from)
            }
            // Deleted, but still open: any writable branch suffices.
            Err(_) => self.writable(from).last().ok_or(Errno::ROFS),
        }
    }

    /// Moves a complete copy to its place, and records that the file is there
    /// now.
    fn show_copy(&self, id: u64, branch: usize, temporary: &OsStr, original: &Statx) -> Result<()> {
        let _names = self.write_names();
        let from = lock(&self.nodes).get(id)?.key.branch;
        let root = &self.branches[branch].root;
        let stat = stat_at(root, temporary)?;
        let name = {
            let nodes = lock(&self.nodes);
            let name = nodes
                .name(id)
                .map(|(parent, name)| (parent, name.to_owned()));
            name.ok()
        };
        if let Some((parent, name)) = name {
            let dir = self.ensure_dir(parent, branch)?;
            let before = stat_fd(&dir)?;
            let origin = self.origin(from, original);
            if let Some(origin) = origin {
                self.make_plink(origin, branch, temporary)?;
            }
            rename_new(root, temporary, &dir, &name)?;
            restore_times(&dir, &before)?;
            if let Some(origin) = origin {
                let copy = (branch, Key::of(branch, &stat));
                self.copied(origin, original.stx_nlink, copy)?;
            }
        } else {
            // Its last name was removed while it was copied.
            let place = openat(
                root,
                temporary,
                OFlags::PATH | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            unlinkat(root, temporary, AtFlags::empty())?;
            lock(&self.nodes).get_mut(id)?.detached = Some(Arc::new(place));
        }
        self.moved(id, branch, vec![branch], &stat)
    }

    /// Records that a file is in `layers` now, the highest of which is
    /// `branch`, and keeps its inode number.
    fn moved(&self, id: u64, branch: usize, layers: Vec<usize>, stat: &Statx) -> Result<()> {
        let key = Key::of(branch, stat);
        let mut nodes = lock(&self.nodes);
        let identity = nodes.get(id)?.identity;
        nodes.numbers.keep(key, stat, identity);
        nodes.moved(id, key, layers)?;
        drop(nodes);
        self.handles.follow(id, self)
    }

    /// Opens a directory in `branch`, and makes it there if need be, with all
    /// that is missing above it. The caller holds the names for writing.
    pub(crate) fn ensure_dir(&self, id: u64, branch: usize) -> Result<OwnedFd> {
        let (dir, parent) = {
            let nodes = lock(&self.nodes);
            let dir = nodes.dir(id)?;
            let parent = match id {
                ROOT => None,
                _ => Some(
                    nodes
                        .name(id)
                        .map(|(parent, name)| (parent, name.to_owned()))?,
                ),
            };
            (dir, parent)
        };
        let here = self.branches[branch].dir(&dir.path);
        let Some((parent, name)) = parent else {
            return here;
        };
        match here {
            Ok(here) if dir.layers.contains(&branch) => return Ok(here),
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        let above = self.ensure_dir(parent, branch)?;
        if stat_at(&above, &name).is_err() {
            self.copy_dir(&dir, branch, &above, &name)?;
        }
        let here = self.branches[branch].dir(&dir.path)?;
        let mut layers = dir.layers;
        layers.push(branch);
        layers.sort_unstable();
        layers.dedup();
        if layers.first() == Some(&branch) {
            self.moved(id, branch, layers, &stat_fd(&here)?)?;
        } else {
            lock(&self.nodes).get_mut(id)?.layers = layers;
        }
        Ok(here)
    }

    fn copy_dir(&self, dir: &Dir, branch: usize, above: &OwnedFd, name: &OsStr) -> Result<()> {
        let top = *dir.layers.first().ok_or(Errno::NOENT)?;
        let original = self.branches[top].dir(&dir.path)?;
        let temporary = self.temporary();
        let root = &self.branches[branch].root;
        let before = stat_fd(above)?;
        let made = mkdirat(root, &temporary, Mode::RWXU)
            .and_then(|()| openat(root, &temporary, DIRECTORY | OFlags::CLOEXEC, Mode::empty()))
            .and_then(|copy| copy_metadata(&original, &copy))
            .and_then(|()| renameat(root, &temporary, above, name))
            .and_then(|()| restore_times(above, &before));
        if made.is_err() {
            // The first error is the one that matters.
            whiteout::remove_tree(root, &temporary).ok();
        }
        made
    }

    /// A name in a branch's root that nobody else uses.
    pub(crate) fn temporary(&self) -> OsString {
        let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
        OsString::from(format!("{}{number}", whiteout::TEMPORARY))
    }
}

/// Renames to a name that must not exist. File systems without
/// `RENAME_NOREPLACE` return `EINVAL`; a plain rename suffices there, because
/// the names are locked.
fn rename_new(from: &OwnedFd, name: &OsStr, to: &OwnedFd, new: &OsStr) -> Result<()> {
    match renameat_with(from, name, to, new, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL) => renameat(from, name, to, new),
        renamed => renamed,
    }
}

/// Resets the times of a directory: a copy in it is no change by a user of the
/// union.
fn restore_times(dir: &OwnedFd, before: &Statx) -> Result<()> {
    utimensat(CWD, magic(dir), &times(before), AtFlags::empty())
}
