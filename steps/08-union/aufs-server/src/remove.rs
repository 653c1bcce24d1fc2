//! Removal of files: in a writable branch they are removed, below it they are
//! whited out. The whiteout is made first; a crash between the two leaves the
//! name as it was.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, renameat, unlinkat};
use rustix::io::Errno;

use crate::Union;
use crate::beneath::Result;
use crate::inode::Key;
use crate::lookup::Found;
use crate::node::{Dir, lock};
use crate::whiteout;

impl Union {
    /// Removes a name of a file that is not a directory.
    ///
    /// # Errors
    /// `EROFS` if it needs a whiteout and no branch above it is writable.
    pub(crate) fn unlink(&self, parent: u64, name: &OsStr) -> Result<()> {
        whiteout::check(name)?;
        let _names = self.write_names();
        let dir = lock(&self.nodes).dir(parent)?;
        let found = self.find(&dir, name)?;
        let branch = found.branch().ok_or(whiteout::absent(name))?;
        if found.is_dir() {
            return Err(Errno::ISDIR);
        }
        let held = self.hold(parent, name, &found)?;
        match self.hide(&dir, name, branch)? {
            Some(place) => unlinkat(&place, name, AtFlags::empty())?,
            None => self.hidden(&found)?,
        }
        self.unname(held, parent, name);
        self.unlinked(&found)
    }

    /// Records that a name is hidden which its branch still has.
    pub(crate) fn hidden(&self, found: &Found) -> Result<()> {
        match found.original {
            Some(original) => self.cover(original.origin, original.names),
            None => Ok(()),
        }
    }

    /// Removes a file's copy if this was the last of its names.
    pub(crate) fn unlinked(&self, found: &Found) -> Result<()> {
        match found.top() {
            Some((branch, stat)) => self.drop_plink(Key::of(branch, stat)),
            None => Ok(()),
        }
    }

    /// Removes a directory that looks empty.
    pub(crate) fn rmdir(&self, parent: u64, name: &OsStr) -> Result<()> {
        whiteout::check(name)?;
        let _names = self.write_names();
        let dir = lock(&self.nodes).dir(parent)?;
        let found = self.find(&dir, name)?;
        let (branch, _) = found.top().ok_or(whiteout::absent(name))?;
        if !found.is_dir() {
            return Err(Errno::NOTDIR);
        }
        if !self.is_empty(&inside(&dir, name, &found))? {
            return Err(Errno::NOTEMPTY);
        }
        let held = self.hold(parent, name, &found)?;
        if let Some(place) = self.hide(&dir, name, branch)? {
            self.discard(branch, &place, name)?;
        }
        self.unname(held, parent, name);
        Ok(())
    }

    /// Ensures that `name`, which `branch` has, is hidden once it is removed
    /// there: by a whiteout if a file below would show. Returns the directory
    /// in `branch` if that is writable.
    fn hide(&self, dir: &Dir, name: &OsStr, branch: usize) -> Result<Option<OwnedFd>> {
        if !self.branches[branch].writable() {
            let above = self.branch_for_copy(dir, branch)?;
            whiteout::make(&self.ensure_dir(dir.id, above)?, name)?;
            return Ok(None);
        }
        let place = self.ensure_dir(dir.id, branch)?;
        if self.exists_below(dir, name, branch)? {
            whiteout::make(&place, name)?;
        }
        Ok(Some(place))
    }

    /// Removes a directory that holds at most whiteouts. It is moved out of
    /// sight first, because the removal takes several steps.
    pub(crate) fn discard(&self, branch: usize, place: &OwnedFd, name: &OsStr) -> Result<()> {
        match unlinkat(place, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            removed => return removed,
        }
        let root = &self.branches[branch].root;
        let temporary = self.temporary();
        renameat(place, name, root, &temporary)?;
        whiteout::remove_tree(root, &temporary)
    }

    /// The file that the kernel knows by a name that is about to be removed: it
    /// may still be open, and is then needed without a name.
    pub(crate) fn hold(&self, parent: u64, name: &OsStr, found: &Found) -> Result<Held> {
        match self.known(parent, name, found) {
            Some(id) => Ok(Some((id, self.place(id)?))),
            None => Ok(None),
        }
    }

    /// Removes the name from the file's node. If it was the last one, only the
    /// held descriptor leads to the file from now on.
    pub(crate) fn unname(&self, held: Held, parent: u64, name: &OsStr) {
        let Some((id, place)) = held else {
            return;
        };
        let mut nodes = lock(&self.nodes);
        let named = nodes.remove_name(id, parent, name);
        if let Ok(node) = nodes.get_mut(id)
            && !named
        {
            node.detached = Some(place);
        }
    }
}

/// A file that the kernel knows, and a descriptor of it.
pub(crate) type Held = Option<(u64, Arc<OwnedFd>)>;

/// The directory that was found, as a place.
pub(crate) fn inside(dir: &Dir, name: &OsStr, found: &Found) -> Dir {
    Dir {
        id: 0,
        path: dir.path.join(name),
        layers: found.layers.iter().map(|(branch, _)| *branch).collect(),
        floor: found.floor,
    }
}
