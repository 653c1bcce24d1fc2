//! Attributes: from statx(2) to FUSE and back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};
use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, Statx, StatxTimestamp, Timespec, Timestamps, UTIME_NOW,
    UTIME_OMIT, Uid, chmodat, chownat, ftruncate, makedev, utimensat,
};
use rustix::io::Errno;

use crate::Union;
use crate::beneath::{self, Result, kind, magic, stat_fd};
use crate::node::lock;

/// The permission bits.
pub(crate) fn mode(stat: &Statx) -> Mode {
    Mode::from_raw_mode(u32::from(stat.stx_mode) & 0o7777)
}

/// The device number of a device node.
pub(crate) fn rdev(stat: &Statx) -> u64 {
    makedev(stat.stx_rdev_major, stat.stx_rdev_minor)
}

/// The attributes in FUSE's form, with the inode number `ino`.
pub(crate) fn to_fuse(ino: u64, stat: &Statx) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: stat.stx_size,
        blocks: stat.stx_blocks,
        atime: time(&stat.stx_atime),
        mtime: time(&stat.stx_mtime),
        ctime: time(&stat.stx_ctime),
        crtime: UNIX_EPOCH,
        kind: kind(stat),
        perm: stat.stx_mode & 0o7777,
        nlink: stat.stx_nlink,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        // The kernel's own encoding of 32 bits (new_encode_dev).
        rdev: new_encode_dev(stat.stx_rdev_major, stat.stx_rdev_minor),
        blksize: stat.stx_blksize,
        flags: 0,
    }
}

fn new_encode_dev(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// A device number from FUSE's encoding.
pub(crate) fn decode_dev(rdev: u32) -> u64 {
    let major = (rdev & 0xfff00) >> 8;
    let minor = (rdev & 0xff) | ((rdev >> 12) & 0xfff00);
    makedev(major, minor)
}

fn time(stamp: &StatxTimestamp) -> SystemTime {
    let nanoseconds = Duration::from_nanos(stamp.tv_nsec.into());
    let seconds = Duration::from_secs(stamp.tv_sec.unsigned_abs());
    match stamp.tv_sec >= 0 {
        true => UNIX_EPOCH + seconds + nanoseconds,
        false => UNIX_EPOCH - seconds + nanoseconds,
    }
}

fn timespec(time: Option<TimeOrNow>) -> Timespec {
    let special = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    match time {
        None => special(UTIME_OMIT),
        Some(TimeOrNow::Now) => special(UTIME_NOW),
        Some(TimeOrNow::SpecificTime(time)) => match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Timespec {
                tv_sec: since.as_secs() as i64,
                tv_nsec: i64::from(since.subsec_nanos()) as _,
            },
            Err(before) => {
                let before = before.duration();
                let nanoseconds = i64::from(before.subsec_nanos());
                let borrow = i64::from(nanoseconds > 0);
                Timespec {
                    tv_sec: -(before.as_secs() as i64) - borrow,
                    tv_nsec: ((borrow * 1_000_000_000) - nanoseconds) as _,
                }
            }
        },
    }
}

/// Access and modification time of a file, as utimensat(2) takes them.
pub(crate) fn times(stat: &Statx) -> Timestamps {
    let spec = |stamp: &StatxTimestamp| Timespec {
        tv_sec: stamp.tv_sec,
        tv_nsec: stamp.tv_nsec.into(),
    };
    Timestamps {
        last_access: spec(&stat.stx_atime),
        last_modification: spec(&stat.stx_mtime),
    }
}

/// The attributes that a setattr request changes.
pub(crate) struct Changes {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) size: Option<u64>,
    pub(crate) atime: Option<TimeOrNow>,
    pub(crate) mtime: Option<TimeOrNow>,
}

impl Union {
    /// The inode number and the attributes of a file.
    ///
    /// # Errors
    /// `ESTALE` or `ENOENT` if it is gone from its branch.
    pub(crate) fn getattr(&self, id: u64) -> Result<(u64, Statx)> {
        let _names = self.read_names();
        let dir = lock(&self.nodes).dir(id);
        if let Some(dir) = dir.ok().filter(|dir| dir.layers.len() > 1) {
            return self.directory_attributes(&dir);
        }
        let place = self.place(id)?;
        let mut stat = stat_fd(&*place)?;
        let nodes = lock(&self.nodes);
        let node = nodes.get(id)?;
        let (ino, branch, named) = (node.identity.ino, node.key.branch, node.detached.is_none());
        drop(nodes);
        if kind(&stat) != FileType::Directory && named {
            stat.stx_nlink = self.visible_links(branch, &stat);
        }
        Ok((ino, stat))
    }

    fn directory_attributes(&self, dir: &crate::node::Dir) -> Result<(u64, Statx)> {
        let mut layers = Vec::new();
        for &index in &dir.layers {
            let place = beneath::optional(self.branches[index].dir(&dir.path))?;
            if let Some(place) = place {
                layers.push((index, stat_fd(&place)?));
            }
        }
        let found = crate::lookup::Found {
            layers,
            whiteout: None,
            floor: dir.floor,
            original: None,
        };
        let (_, top) = found.top().ok_or(Errno::NOENT)?;
        let ino = lock(&self.nodes).get(dir.id)?.identity.ino;
        Ok((ino, crate::lookup::merged(&found, *top)))
    }

    /// Changes attributes, after copy_up if the file is in a branch that is not
    /// writable.
    pub(crate) fn setattr(&self, id: u64, changes: Changes) -> Result<()> {
        self.copy_up(id, changes.size)?;
        let _names = self.read_names();
        let place = self.place(id)?;
        let path = magic(&*place);
        if changes.uid.is_some() || changes.gid.is_some() {
            let uid = changes.uid.map(Uid::from_raw);
            let gid = changes.gid.map(Gid::from_raw);
            chownat(&*place, "", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        if let Some(mode) = changes.mode {
            let mode = Mode::from_raw_mode(mode & 0o7777);
            chmodat(CWD, &path, mode, AtFlags::empty())?;
        }
        if let Some(size) = changes.size {
            ftruncate(reopen(&place, OFlags::WRONLY)?, size)?;
        }
        if changes.atime.is_some() || changes.mtime.is_some() {
            let times = Timestamps {
                last_access: timespec(changes.atime),
                last_modification: timespec(changes.mtime),
            };
            utimensat(CWD, &path, &times, AtFlags::empty())?;
        }
        Ok(())
    }
}

/// Opens the file of an `O_PATH` descriptor.
pub(crate) fn reopen(place: &std::os::fd::OwnedFd, flags: OFlags) -> Result<std::os::fd::OwnedFd> {
    rustix::fs::open(magic(place), flags | OFlags::CLOEXEC, Mode::empty())
}
