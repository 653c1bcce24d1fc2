//! Extended attributes: passed on to the branches, except AUFS's own.

use std::ffi::{CStr, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};
use rustix::io::Errno;

use crate::Union;
use crate::beneath::{Result, magic};

/// The attribute of every file of a union that lists its branches.
pub(crate) const BRANCHES: &str = "user.aufs.branches";
/// The attribute that holds the PID of its server.
pub(crate) const SERVER: &str = "user.aufs.server";
/// The prefix of AUFS's own attributes.
const OWN: &[u8] = b"user.aufs.";
/// The prefix of POSIX access control lists, which count only with the option
/// `acl`.
const ACL: &[u8] = b"system.posix_acl_";
/// The largest value and the longest list of names, in bytes: `XATTR_SIZE_MAX`
/// and `XATTR_LIST_MAX`, xattr(7).
const LARGEST: usize = 64 << 10;

/// Copies all attributes. Those that this server may not set, in a user
/// namespace, or that the branch cannot keep are skipped, as cp(1) does.
pub(crate) fn copy(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let (from, to) = (magic(from), magic(to));
    for name in names(&from)? {
        let value = get(&from, OsStr::from_bytes(&name))?;
        match setxattr(&to, name.as_slice(), &value, XattrFlags::empty()) {
            Err(Errno::PERM | Errno::OPNOTSUPP) => {}
            set => set?,
        }
    }
    Ok(())
}

fn names(path: &Path) -> Result<Vec<Vec<u8>>> {
    let mut buffer = vec![0; LARGEST];
    let length = match listxattr(path, buffer.as_mut_slice()) {
        Err(Errno::OPNOTSUPP) => 0,
        length => length?,
    };
    let names = buffer[..length].split(|&byte| byte == 0);
    Ok(names
        .filter(|n| !n.is_empty())
        .map(<[u8]>::to_vec)
        .collect())
}

fn get(path: &Path, name: &OsStr) -> Result<Vec<u8>> {
    let mut small = [0; 256];
    match getxattr(path, name, small.as_mut_slice()) {
        Err(Errno::RANGE) => {}
        length => return Ok(small[..length?].to_vec()),
    }
    let mut value = vec![0; LARGEST];
    let length = getxattr(path, name, value.as_mut_slice())?;
    value.truncate(length);
    Ok(value)
}

impl Union {
    /// The value of an attribute.
    ///
    /// # Errors
    /// `ENODATA` if there is none, also for AUFS's own names.
    pub(crate) fn getxattr(&self, id: u64, name: &OsStr) -> Result<Vec<u8>> {
        if name == BRANCHES {
            return Ok(self.listing());
        }
        if name == SERVER {
            return Ok(std::process::id().to_string().into_bytes());
        }
        self.check(name, Errno::NODATA)?;
        let _names = self.read_names();
        get(&magic(&*self.place(id)?), name)
    }

    /// The names of all attributes, each with a NUL byte after it. Only root
    /// sees those of `trusted.` (xattr(7)).
    pub(crate) fn listxattr(&self, id: u64, for_root: bool) -> Result<Vec<u8>> {
        let _names = self.read_names();
        let mut list = Vec::new();
        for name in names(&magic(&*self.place(id)?))? {
            let shown = for_root || !name.starts_with(b"trusted.");
            if shown && !name.starts_with(OWN) {
                list.extend_from_slice(&name);
                list.push(0);
            }
        }
        Ok(list)
    }

    /// Sets an attribute, after copy_up if need be.
    pub(crate) fn setxattr(&self, id: u64, name: &OsStr, value: &[u8], flags: i32) -> Result<()> {
        self.check(name, Errno::PERM)?;
        self.copy_up(id, None)?;
        let _names = self.read_names();
        let flags = XattrFlags::from_bits_retain(flags as u32);
        setxattr(magic(&*self.place(id)?), name, value, flags)
    }

    /// Removes an attribute, after copy_up if need be.
    pub(crate) fn removexattr(&self, id: u64, name: &OsStr) -> Result<()> {
        self.check(name, Errno::PERM)?;
        self.getxattr(id, name)?;
        self.copy_up(id, None)?;
        let _names = self.read_names();
        removexattr(magic(&*self.place(id)?), name)
    }

    /// Refuses AUFS's own names with the errno `own`, and access control lists
    /// where they are not enforced (`EOPNOTSUPP`): a list that is kept without
    /// effect would mislead.
    fn check(&self, name: &OsStr, own: Errno) -> Result<()> {
        let name = name.as_bytes();
        if name.starts_with(OWN) {
            return Err(own);
        }
        match name.starts_with(ACL) && !self.options.acl {
            true => Err(Errno::OPNOTSUPP),
            false => Ok(()),
        }
    }

    /// The branches as `PATH=rw`, as in the files of `/sys/fs/aufs/si_*`, each
    /// with a NUL byte after it.
    fn listing(&self) -> Vec<u8> {
        let mut lines = Vec::new();
        for branch in &self.branches {
            lines.extend_from_slice(&branch.listing());
            lines.push(b'\0');
        }
        lines
    }
}

/// Whether a directory has a default access control list, which replaces the
/// umask.
pub(crate) fn has_default_acl(dir: &OwnedFd) -> bool {
    const DEFAULT: &CStr = c"system.posix_acl_default";
    get(&magic(dir), OsStr::from_bytes(DEFAULT.to_bytes())).is_ok()
}
