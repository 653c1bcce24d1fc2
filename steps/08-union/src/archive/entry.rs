//! Paths and metadata of the entries of an archive, checked.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{FileType, Mode};

use super::reader::Entry;
use super::{DOUBLE_PREFIX, OPAQUE, PREFIX};
use crate::tree::node::{Metadata, ours};

/// The largest value of an extended attribute, in bytes (xattr(7)).
const XATTR: usize = 65536;

/// A path of an archive as a path relative to the layer's root, without `..`: a
/// name before it goes, as in Go's `filepath.Clean`, whatever the name is of.
///
/// # Errors
/// If it leads out of the root. `/..` does not: it is the root.
pub fn inside(path: &Path) -> Result<PathBuf> {
    let mut inside = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => inside.push(name),
            Component::ParentDir if inside.pop() || path.has_root() => {}
            Component::ParentDir => bail!("{path:?} in the archive leaves the layer: refused"),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(inside)
}

/// Whether a path belongs to AUFS itself. Archives made on AUFS may hold such
/// files, which mean nothing elsewhere.
///
/// # Errors
/// If it goes through a whiteout, which is not a directory.
pub(super) fn is_bookkeeping(path: &Path) -> Result<bool> {
    let starts = |name: &OsStr, with: &str| name.as_bytes().starts_with(with.as_bytes());
    for name in path {
        if starts(name, DOUBLE_PREFIX) && name != OPAQUE {
            return Ok(true);
        }
    }
    let mut above = path.parent().unwrap_or(Path::new("")).iter();
    match above.find(|name| starts(name, PREFIX)) {
        Some(name) => bail!("{name:?} is a whiteout, not a directory: refused"),
        None => Ok(false),
    }
}

/// The metadata of an entry.
///
/// # Errors
/// If an attribute is too long, or an ID out of range.
pub(super) fn metadata(entry: &mut Entry<'_, impl Read>, type_of: FileType) -> Result<Metadata> {
    let (uid, gid) = entry.owner();
    let mut xattrs = entry.xattrs().clone();
    // A layer from outside must not set overlay's marks.
    xattrs.retain(|name, _| !ours(name));
    if let Some((name, value)) = xattrs.iter().find(|(_, value)| value.len() > XATTR) {
        let length = value.len();
        bail!("its attribute {name:?} has {length} bytes, and the kernel takes {XATTR}: refused");
    }
    let mut mode = entry.mode() | type_of.as_raw_mode();
    // chown(2) takes the highest ID for “unchanged”: with Docker and GNU tar the
    // file then belongs to root, who unpacks it. A set-ID bit was not meant for
    // root.
    let mut owner = |number, what, bit: Mode| match id(number, what)? {
        u32::MAX => {
            mode &= !bit.as_raw_mode();
            Ok(0)
        }
        id => anyhow::Ok(id),
    };
    let (uid, gid) = (
        owner(uid, "uid", Mode::SUID)?,
        owner(gid, "gid", Mode::SGID)?,
    );
    Ok(Metadata {
        mode,
        uid,
        gid,
        mtime: entry.mtime(),
        xattrs,
    })
}

/// A user or group ID. Old programs wrote the highest ones as negative numbers.
fn id(number: i64, what: &str) -> Result<u32> {
    let id = u32::try_from(number).ok();
    id.or(i32::try_from(number).ok().map(i32::cast_unsigned))
        .with_context(|| format!("its {what} {number} is out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_the_archive_stays_inside() {
        assert_eq!(inside(Path::new("/etc/./x/")).unwrap(), Path::new("etc/x"));
        assert_eq!(inside(Path::new("a/b/../x")).unwrap(), Path::new("a/x"));
        assert_eq!(inside(Path::new("/../x")).unwrap(), Path::new("x"));
        assert!(inside(Path::new("a/../../x")).is_err());
        assert!(inside(Path::new("..")).is_err());
    }

    #[test]
    fn names_of_aufs_itself_are_left_out() {
        assert!(is_bookkeeping(Path::new(".wh..wh.plnk/1.2")).unwrap());
        assert!(is_bookkeeping(Path::new("a/.wh..wh.aufs")).unwrap());
        assert!(!is_bookkeeping(Path::new("a/.wh..wh..opq")).unwrap());
        assert!(!is_bookkeeping(Path::new("a/.wh.x")).unwrap());
        assert!(is_bookkeeping(Path::new("a/.wh.x/b")).is_err());
    }

    #[test]
    fn nobody_may_be_minus_two() {
        assert_eq!(id(-2, "uid").unwrap(), u32::MAX - 1);
        assert_eq!(id(4_294_967_294, "uid").unwrap(), u32::MAX - 1);
        assert_eq!(id(-1, "uid").unwrap(), u32::MAX);
        for none in [4_294_967_296, i64::MIN] {
            assert!(id(none, "uid").is_err());
        }
    }
}
