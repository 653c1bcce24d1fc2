//! Creation of files: in the branch that the policy picks, owned by the caller,
//! with a whiteout of the same name removed.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;

use fuser::FileType;
use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, Statx, Uid, chmodat, chownat, linkat, mkdirat, mknodat,
    openat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use crate::Union;
use crate::attr::{decode_dev, mode as mode_of};
use crate::beneath::kind;
use crate::beneath::{DIRECTORY, Result, magic, stat_at, stat_fd};
use crate::file::{Opened, Register};
use crate::lookup::Found;
use crate::node::{Dir, lock};
use crate::{whiteout, xattr};

/// The process that creates a file: its IDs and its umask.
#[derive(Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) umask: u32,
}

/// The place for a new file.
struct Room {
    branch: usize,
    /// The directory in that branch.
    place: OwnedFd,
    /// Whether that branch has a whiteout of the name.
    whited_out: bool,
}

impl Union {
    /// Makes a directory.
    ///
    /// # Errors
    /// `EROFS` if no branch is writable.
    pub(crate) fn mkdir(
        &self,
        caller: Caller,
        parent: u64,
        name: &OsStr,
        mode: u32,
    ) -> Result<(u64, Statx)> {
        self.make(caller, parent, name, mode, true, |place, mode| {
            mkdirat(place, name, mode)
        })
    }

    /// Makes a device node, FIFO, socket or empty file.
    pub(crate) fn mknod(
        &self,
        caller: Caller,
        parent: u64,
        name: &OsStr,
        mode: u32,
        rdev: u32,
    ) -> Result<(u64, Statx)> {
        let kind = rustix::fs::FileType::from_raw_mode(mode);
        self.make(caller, parent, name, mode, false, |place, mode| {
            mknodat(place, name, kind, mode, decode_dev(rdev))
        })
    }

    /// Makes a symbolic link.
    pub(crate) fn symlink(
        &self,
        caller: Caller,
        parent: u64,
        name: &OsStr,
        target: &Path,
    ) -> Result<(u64, Statx)> {
        self.make(caller, parent, name, 0o777, false, |place, _| {
            symlinkat(target, place, name)
        })
    }

    /// Makes a file and opens it.
    pub(crate) fn create(
        &self,
        caller: Caller,
        parent: u64,
        name: &OsStr,
        mode: u32,
        flags: OFlags,
        register: Register<'_>,
    ) -> Result<(u64, Statx, Opened)> {
        let mut made = None;
        let how = (flags & OFlags::ACCMODE) | (flags & OFlags::APPEND);
        let how = how | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (id, stat) = self.make(caller, parent, name, mode, false, |place, mode| {
            made = Some(openat(place, name, how, mode)?);
            Ok(())
        })?;
        let fd = made.ok_or(Errno::IO)?;
        let opened = self.opened(id, flags, fd, register);
        if opened.is_err() {
            lock(&self.nodes).forget(id, 1);
        }
        Ok((id, stat, opened?))
    }

    /// Makes another name for a file, in the branch that has it.
    ///
    /// # Errors
    /// `EXDEV` if something above that branch hides the new name.
    pub(crate) fn link(&self, id: u64, parent: u64, name: &OsStr) -> Result<(u64, Statx)> {
        whiteout::check_new(name)?;
        self.copy_up(id, None)?;
        let _names = self.write_names();
        let (dir, whiteout) = self.vacant(parent, name)?;
        let branch = lock(&self.nodes).get(id)?.key.branch;
        if whiteout.unwrap_or(dir.floor) < branch {
            // Something above the branch that has the file hides the new name.
            return Err(Errno::XDEV);
        }
        let place = self.ensure_dir(parent, branch)?;
        let original = self.place(id)?;
        // linkat(2) with AT_EMPTY_PATH takes a capability; this does not.
        linkat(
            CWD,
            magic(&*original),
            &place,
            name,
            AtFlags::SYMLINK_FOLLOW,
        )?;
        if whiteout == Some(branch) {
            whiteout::remove(&place, name)?;
        }
        let found = one(branch, dir.floor, stat_at(&place, name)?);
        self.enter(parent, name, &found)
    }

    /// Makes a file by `make`, which gets the directory in the branch and the
    /// mode, and must fail if the name exists.
    fn make(
        &self,
        caller: Caller,
        parent: u64,
        name: &OsStr,
        mode: u32,
        is_dir: bool,
        make: impl FnOnce(&OwnedFd, Mode) -> Result<()>,
    ) -> Result<(u64, Statx)> {
        whiteout::check_new(name)?;
        let _names = self.write_names();
        let (dir, whiteout) = self.vacant(parent, name)?;
        let room = self.room(&dir, whiteout, is_dir)?;
        let masked = match self.options.acl && !xattr::has_default_acl(&room.place) {
            true => mode & !caller.umask,
            false => mode,
        };
        let mode = Mode::from_raw_mode(masked & 0o7777);
        make(&room.place, mode)?;
        let finished = self.finish(caller, &room, name, mode, is_dir);
        if finished.is_err() {
            let how = if is_dir {
                AtFlags::REMOVEDIR
            } else {
                AtFlags::empty()
            };
            // The first error is the one that matters.
            unlinkat(&room.place, name, how).ok();
        }
        let found = one(room.branch, dir.floor.max(room.branch), finished?);
        self.enter(parent, name, &found)
    }

    /// The directory, and the branch with a whiteout of the name, if any;
    /// `EEXIST` if the name is taken.
    fn vacant(&self, parent: u64, name: &OsStr) -> Result<(Dir, Option<usize>)> {
        let dir = lock(&self.nodes).dir(parent)?;
        let found = self.find(&dir, name)?;
        match found.layers.is_empty() {
            true => Ok((dir, found.whiteout)),
            false => Err(Errno::EXIST),
        }
    }

    fn room(&self, dir: &Dir, whiteout: Option<usize>, is_dir: bool) -> Result<Room> {
        let floor = whiteout.unwrap_or(dir.floor);
        let branch = self.branch_for_new(dir, floor, is_dir)?;
        Ok(Room {
            branch,
            place: self.ensure_dir(dir.id, branch)?,
            whited_out: whiteout == Some(branch),
        })
    }

    /// Gives the new file its owner, and then shows it.
    fn finish(
        &self,
        caller: Caller,
        room: &Room,
        name: &OsStr,
        mode: Mode,
        is_dir: bool,
    ) -> Result<Statx> {
        let stat = stat_at(&room.place, name)?;
        let parent = stat_fd(&room.place)?;
        let inherits = mode_of(&parent).contains(Mode::SGID);
        let group = if inherits { parent.stx_gid } else { caller.gid };
        if (stat.stx_uid, stat.stx_gid) != (caller.uid, group) {
            let (uid, gid) = (Uid::from_raw(caller.uid), Gid::from_raw(group));
            chownat(
                &room.place,
                name,
                Some(uid),
                Some(gid),
                AtFlags::SYMLINK_NOFOLLOW,
            )?;
            // A change of owner clears these bits.
            if kind(&stat) != FileType::Symlink && mode.intersects(Mode::SUID | Mode::SGID) {
                chmodat(&room.place, name, mode_of(&stat), AtFlags::empty())?;
            }
        }
        if room.whited_out {
            // In this order: the directory must not show for a moment what
            // the whiteout hides.
            if is_dir {
                let flags = DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = openat(&room.place, name, flags, Mode::empty())?;
                whiteout::make_opaque(&made)?;
            }
            whiteout::remove(&room.place, name)?;
        }
        stat_at(&room.place, name)
    }
}

/// The result of a lookup that finds a file in one branch only.
pub(crate) fn one(branch: usize, floor: usize, stat: Statx) -> Found {
    Found {
        layers: vec![(branch, stat)],
        whiteout: None,
        floor,
        original: None,
    }
}
