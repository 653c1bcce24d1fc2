//! Renaming. A file is copied up and renamed in its new branch. A directory is
//! renamed if no part of it lies in a branch below the written one; otherwise
//! the answer is `EXDEV`, as with AUFS without `dirren`, and mv(1) copies.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;

use fuser::RenameFlags as Flags;
use rustix::fs::{Mode, OFlags, RenameFlags, openat, renameat, renameat_with};
use rustix::io::Errno;

use crate::Union;
use crate::beneath::{DIRECTORY, Result};
use crate::inode::Key;
use crate::lookup::Found;
use crate::node::{Dir, lock};
use crate::remove::inside;
use crate::whiteout;

/// A name in a directory.
#[derive(Clone, Copy)]
pub(crate) struct Name<'a> {
    pub(crate) parent: u64,
    pub(crate) name: &'a OsStr,
}

/// A name, and the result of its lookup.
struct Seen<'a> {
    at: Name<'a>,
    dir: Dir,
    found: Found,
}

impl Seen<'_> {
    /// The branch that has the name; if there is none, the branch of its
    /// whiteout, or the lowest in which the name could be.
    fn lowest(&self) -> usize {
        let whiteout = self.found.whiteout.unwrap_or(self.dir.floor);
        self.found.branch().unwrap_or(whiteout)
    }
}

/// The number of attempts when others move the files at the same time.
const ATTEMPTS: usize = 16;

impl Union {
    /// Renames a file.
    ///
    /// # Errors
    /// `EXDEV` for a directory with parts in other branches; `EINVAL` for
    /// `RENAME_WHITEOUT`; `EBUSY` if others move the files at each attempt.
    pub(crate) fn rename(&self, from: Name<'_>, to: Name<'_>, flags: Flags) -> Result<()> {
        whiteout::check(from.name)?;
        whiteout::check_new(to.name)?;
        if flags.contains(Flags::RENAME_WHITEOUT) {
            return Err(Errno::INVAL);
        }
        let exchange = flags.contains(Flags::RENAME_EXCHANGE);
        for _ in 0..ATTEMPTS {
            self.make_ready(from, to, exchange)?;
            let _names = self.write_names();
            let (old, new) = (self.see(from)?, self.see(to)?);
            let branch = old.found.branch().ok_or(whiteout::absent(from.name))?;
            let there = new.found.top().is_some();
            match (there, exchange) {
                (true, false) if flags.contains(Flags::RENAME_NOREPLACE) => {
                    return Err(Errno::EXIST);
                }
                (false, true) => return Err(Errno::NOENT),
                _ => {}
            }
            let ready = self.branches[branch].writable()
                && branch <= new.lowest()
                && (!exchange || branch == new.lowest());
            if !ready {
                continue;
            }
            return match exchange {
                true => self.exchange(&old, &new, branch),
                false => self.replace(&old, &new, branch),
            };
        }
        Err(Errno::BUSY)
    }

    fn see<'a>(&self, at: Name<'a>) -> Result<Seen<'a>> {
        let dir = lock(&self.nodes).dir(at.parent)?;
        let found = self.find(&dir, at.name)?;
        Ok(Seen { at, dir, found })
    }

    /// Copies files up to where they can be renamed. This takes long for big
    /// files, so others may go on meanwhile.
    fn make_ready(&self, from: Name<'_>, to: Name<'_>, exchange: bool) -> Result<()> {
        let (old, new) = {
            let _names = self.read_names();
            (self.see(from)?, self.see(to)?)
        };
        self.raise(&old, new.lowest())?;
        if exchange {
            let branch = self.see(from)?.lowest();
            self.raise(&new, branch)?;
        }
        Ok(())
    }

    fn raise(&self, seen: &Seen<'_>, lowest: usize) -> Result<()> {
        let branch = seen.found.branch();
        let branch = branch.ok_or(whiteout::absent(seen.at.name))?;
        let in_place = self.branches[branch].writable() && branch <= lowest;
        if seen.found.is_dir() {
            // A directory cannot be moved away from its parts below.
            let alone = seen.found.layers.len() == 1 && in_place;
            return if alone { Ok(()) } else { Err(Errno::XDEV) };
        }
        if in_place {
            return Ok(());
        }
        let (id, _) = self.enter(seen.at.parent, seen.at.name, &seen.found)?;
        let raised = self
            .copy_up_to(id, None, lowest)
            .and_then(|()| self.make_name_real(seen.at));
        lock(&self.nodes).forget(id, 1);
        raised
    }

    /// Makes a name that leads to a copy only as a pseudo-link a real name of
    /// the copy.
    fn make_name_real(&self, at: Name<'_>) -> Result<()> {
        let _names = self.write_names();
        let seen = self.see(at)?;
        let (branch, stat) = seen.found.top().ok_or(Errno::NOENT)?;
        let Some(original) = seen.found.original.filter(|o| o.branch != branch) else {
            return Ok(());
        };
        let path = self.plink_path(Key::of(branch, stat)).ok_or(Errno::XDEV)?;
        let copy = self.branches[branch].place(&path)?;
        let dir = self.ensure_dir(at.parent, branch)?;
        self.make_real(&copy, &dir, at.name)?;
        self.cover(original.origin, original.names)
    }

    fn replace(&self, old: &Seen<'_>, new: &Seen<'_>, branch: usize) -> Result<()> {
        let is_dir = old.found.is_dir();
        match (is_dir, new.found.top().map(|_| new.found.is_dir())) {
            (true, Some(false)) => return Err(Errno::NOTDIR),
            (false, Some(true)) => return Err(Errno::ISDIR),
            (true, Some(true)) if !self.is_empty(&inside(&new.dir, new.at.name, &new.found))? => {
                return Err(Errno::NOTEMPTY);
            }
            _ => {}
        }
        let held = self.hold(new.at.parent, new.at.name, &new.found)?;
        let moved = self.known(old.at.parent, old.at.name, &old.found);
        let source = self.ensure_dir(old.dir.id, branch)?;
        let target = self.ensure_dir(new.dir.id, branch)?;
        let opaque = is_dir && self.exists_below(&new.dir, new.at.name, branch)?;
        if opaque {
            make_opaque(&source, old.at.name)?;
        }
        // First, so that nothing below shows even after a crash: a file beside
        // its own whiteout is visible.
        let hides = self.exists_below(&old.dir, old.at.name, branch)?;
        if hides {
            whiteout::make(&source, old.at.name)?;
        }
        let renamed = match is_dir {
            true => self.rename_dir(branch, (&source, old.at.name), (&target, new.at.name)),
            false => renameat(&source, old.at.name, &target, new.at.name),
        };
        if renamed.is_err() && hides {
            // The first error is the one that matters.
            whiteout::remove(&source, old.at.name).ok();
        }
        renamed?;
        whiteout::remove(&target, new.at.name)?;
        self.unname(held, new.at.parent, new.at.name);
        if new.found.branch().is_some_and(|hidden| hidden != branch) {
            self.hidden(&new.found)?;
        }
        self.unlinked(&new.found)?;
        if let Some(id) = moved {
            let mut nodes = lock(&self.nodes);
            // First the new one: a node without a name could be dropped.
            nodes.add_name(id, new.at.parent, new.at.name);
            nodes.remove_name(id, old.at.parent, old.at.name);
            nodes.get_mut(id)?.floor = if opaque { branch } else { new.dir.floor };
        }
        Ok(())
    }

    /// Renames a directory over another one that looks empty, but may hold
    /// whiteouts.
    fn rename_dir(
        &self,
        branch: usize,
        (source, old): (&OwnedFd, &OsStr),
        (target, new): (&OwnedFd, &OsStr),
    ) -> Result<()> {
        match renameat(source, old, target, new) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            renamed => return renamed,
        }
        renameat_with(source, old, target, new, RenameFlags::EXCHANGE)?;
        self.discard(branch, source, old)
    }

    fn exchange(&self, old: &Seen<'_>, new: &Seen<'_>, branch: usize) -> Result<()> {
        let one = self.known(old.at.parent, old.at.name, &old.found);
        let other = self.known(new.at.parent, new.at.name, &new.found);
        let source = self.ensure_dir(old.dir.id, branch)?;
        let target = self.ensure_dir(new.dir.id, branch)?;
        let mut floors = [new.dir.floor, old.dir.floor];
        for (which, (seen, place, goes_to)) in [(old, &source, new), (new, &target, old)]
            .into_iter()
            .enumerate()
        {
            let at = &goes_to.at;
            if seen.found.is_dir() && self.exists_below(&goes_to.dir, at.name, branch)? {
                make_opaque(place, seen.at.name)?;
                floors[which] = branch;
            }
        }
        let (from, to) = (old.at.name, new.at.name);
        renameat_with(&source, from, &target, to, RenameFlags::EXCHANGE)?;
        let mut nodes = lock(&self.nodes);
        for (id, seen, goes_to, floor) in [(one, old, new, floors[0]), (other, new, old, floors[1])]
        {
            let Some(id) = id else { continue };
            nodes.add_name(id, goes_to.at.parent, goes_to.at.name);
            nodes.remove_name(id, seen.at.parent, seen.at.name);
            nodes.get_mut(id)?.floor = floor;
        }
        Ok(())
    }
}

fn make_opaque(parent: &OwnedFd, name: &OsStr) -> Result<()> {
    let flags = DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    whiteout::make_opaque(&openat(parent, name, flags, Mode::empty())?)
}
