//! A file's metadata: owner, permissions, times, extended attributes; read from
//! one tree and written to another. chown(2), chmod(2), utimensat(2), xattr(7).

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};
use kit::say;
use rustix::fs::XattrFlags;
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, RawMode, Stat, Timespec, Timestamps, Uid, chmodat, chownat,
    lgetxattr, llistxattr, lremovexattr, lsetxattr, utimensat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::{Place, Tree, file_type};

/// Extended attributes by name.
pub type Xattrs = BTreeMap<OsString, Vec<u8>>;

/// The metadata of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Type and permissions, as in `st_mode`.
    pub mode: RawMode,
    /// User ID of the owner.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
    /// Time of the last change of the content: seconds and nanoseconds since
    /// 1970.
    pub mtime: (i64, i64),
    /// Extended attributes, without those of overlay.
    pub xattrs: Xattrs,
}

impl Metadata {
    /// Reads the metadata of the file at `path`, whose status is `stat`.
    pub fn read(tree: &Tree, path: &Path, stat: &Stat) -> Result<Self> {
        Ok(Metadata {
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: (stat.st_mtime, stat.st_mtime_nsec as i64),
            xattrs: xattrs(tree, path)?,
        })
    }

    /// Gives the file at `place` this metadata. Owner first, because chown(2)
    /// clears set-user-ID bits and capabilities; times last. Without root, an
    /// owner that cannot be set and an attribute that only root may set are
    /// skipped.
    pub fn write(&self, place: &Place) -> Result<()> {
        self.write_owner(place)?;
        let type_of = FileType::from_raw_mode(self.mode);
        if type_of != FileType::Symlink {
            let mode = Mode::from_raw_mode(self.mode & 0o7777);
            chmodat(&place.directory, &place.name, mode, AtFlags::empty())
                .with_context(|| format!("chmod({:?}, {:o})", place.name, self.mode & 0o7777))?;
        }
        self.write_xattrs(place)?;
        self.write_times(place)
    }

    fn write_owner(&self, place: &Place) -> Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        match chownat(
            &place.directory,
            &place.name,
            Some(uid),
            Some(gid),
            AtFlags::SYMLINK_NOFOLLOW,
        ) {
            Ok(()) => Ok(()),
            Err(errno @ (Errno::PERM | Errno::INVAL)) if !geteuid().is_root() => {
                say!("{:?} stays the caller's: chown: {errno}", place.name);
                Ok(())
            }
            Err(errno) => Err(errno)
                .with_context(|| format!("chown({:?}, {}:{})", place.name, self.uid, self.gid)),
        }
    }

    fn write_xattrs(&self, place: &Place) -> Result<()> {
        let path = Tree::through_proc(place);
        for stale in list(&path)? {
            if !self.xattrs.contains_key(&stale) && !ours(&stale) {
                lremovexattr(&path, &*stale)
                    .with_context(|| format!("removexattr({:?}, {stale:?})", place.name))?;
            }
        }
        for (name, value) in &self.xattrs {
            match lsetxattr(&path, &**name, value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(errno @ Errno::PERM) if !geteuid().is_root() => {
                    say!("{:?} is without {name:?}: setxattr: {errno}", place.name);
                }
                // Only regular files and directories have these (xattr(7)).
                Err(errno @ Errno::PERM) if name.as_bytes().starts_with(b"user.") => {
                    say!("{:?} is without {name:?}: setxattr: {errno}", place.name);
                }
                // The file system keeps no attributes of this kind.
                Err(errno @ Errno::NOTSUP) => {
                    say!("{:?} is without {name:?}: setxattr: {errno}", place.name);
                }
                Err(errno) => {
                    return Err(errno)
                        .with_context(|| format!("setxattr({:?}, {name:?})", place.name));
                }
            }
        }
        Ok(())
    }

    /// Sets the access and modification times of the file at `place` to
    /// `mtime`.
    pub fn write_times(&self, place: &Place) -> Result<()> {
        let time = Timespec {
            tv_sec: self.mtime.0,
            tv_nsec: self.mtime.1,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        utimensat(
            &place.directory,
            &place.name,
            &times,
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .with_context(|| format!("utimensat({:?})", place.name))
    }
}

/// Whether an attribute is one with which overlay marks its own files. These
/// belong to the layer, not to the file, and a file from outside must not bring
/// them along.
pub fn ours(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// The extended attributes of the file at `path`, without those of overlay.
pub fn xattrs(tree: &Tree, path: &Path) -> Result<Xattrs> {
    let place = tree.place(path)?;
    let path = Tree::through_proc(&place);
    let mut xattrs = Xattrs::new();
    for name in list(&path)? {
        if ours(&name) {
            continue;
        }
        if let Some(value) = get(&path, &name)? {
            xattrs.insert(name, value);
        }
    }
    Ok(xattrs)
}

/// One extended attribute of the file at `path`; `None` if it is not set.
pub fn xattr(tree: &Tree, path: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    get(&Tree::through_proc(&tree.place(path)?), OsStr::new(name))
}

/// Sets one extended attribute of the file at `place`.
pub fn set_xattr(place: &Place, name: &str, value: &[u8]) -> Result<()> {
    lsetxattr(Tree::through_proc(place), name, value, XattrFlags::empty())
        .with_context(|| format!("setxattr({:?}, {name})", place.name))
}

fn list(path: &Path) -> Result<Vec<OsString>> {
    // Most files have none or few; the kernel's limit on a list of names is
    // 64 KiB (xattr(7)).
    let mut buffer = vec![0; 1024];
    let length = loop {
        match llistxattr(path, &mut buffer[..]) {
            Ok(length) => break length,
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            Err(Errno::RANGE) if buffer.len() < 65536 => buffer.resize(65536, 0),
            Err(errno) => return Err(errno).with_context(|| format!("listxattr({path:?})")),
        }
    };
    Ok(buffer[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| OsStr::from_bytes(name).to_owned())
        .collect())
}

fn get(path: &Path, name: &OsStr) -> Result<Option<Vec<u8>>> {
    let mut buffer = vec![0; 65536];
    match lgetxattr(path, name, &mut buffer[..]) {
        Ok(length) => {
            buffer.truncate(length);
            Ok(Some(buffer))
        }
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(errno) => Err(errno).with_context(|| format!("getxattr({path:?}, {name:?})")),
    }
}

/// Whether two files have the same type.
pub fn same_type(one: &Stat, other: &Stat) -> bool {
    file_type(one) == file_type(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let directory = tempfile::tempdir().unwrap();
        let tree = Tree::open(directory.path()).unwrap();
        let place = tree.place(Path::new("")).unwrap();
        // More names than fit into the first buffer, where the file system
        // takes that many; none where it takes none.
        let names: Vec<String> = (0..40)
            .map(|n| format!("user.{n:02}.{}", "x".repeat(30)))
            .collect();
        let set = |name: &&String| set_xattr(&place, name, b"value").is_ok();
        let expected: Vec<&String> = names.iter().filter(set).collect();
        let found = xattrs(&tree, Path::new("")).unwrap();
        let found: Vec<String> = found
            .into_keys()
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        assert_eq!(found.iter().collect::<Vec<_>>(), expected);
    }
}
