//! What an entry of an archive says about the file's metadata.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{FileType, RawMode};
use tar::Entry;

use super::{DOUBLE_PREFIX, OPAQUE, PREFIX};
use crate::tree::node::{Metadata, Xattrs, ours};

/// A path of an archive as one below the root.
///
/// # Errors
/// For `..`.
pub fn inside(path: &Path) -> Result<PathBuf> {
    let mut inside = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => inside.push(name),
            Component::ParentDir => bail!("{path:?} in the archive leaves the layer: refused"),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(inside)
}

/// Whether a path is one of AUFS's own, which archives made on it may hold and
/// which mean nothing elsewhere.
///
/// # Errors
/// If it goes through a whiteout, which is no directory.
pub fn is_bookkeeping(path: &Path) -> Result<bool> {
    let starts = |name: &OsStr, with: &str| name.as_bytes().starts_with(with.as_bytes());
    for name in path {
        if starts(name, DOUBLE_PREFIX) && name != OPAQUE {
            return Ok(true);
        }
    }
    let mut above = path.parent().unwrap_or(Path::new("")).iter();
    match above.find(|name| starts(name, PREFIX)) {
        Some(name) => bail!("{name:?} is a whiteout, and no directory: refused"),
        None => Ok(false),
    }
}

/// The metadata of an entry, its PAX records before its header.
///
/// # Errors
/// For a header that is damaged.
pub fn metadata(entry: &mut Entry<'_, impl Read>, type_of: FileType) -> Result<Metadata> {
    let header = entry.header();
    let number = |n: std::io::Result<u64>, what| -> Result<u32> {
        let n = n.with_context(|| format!("its {what}"))?;
        // The highest one means “none” to chown(2).
        match u32::try_from(n) {
            Ok(n) if n != u32::MAX => Ok(n),
            _ => bail!("its {what} {n} is out of range"),
        }
    };
    let mode: RawMode = header.mode().context("its mode")? & 0o7777;
    let uid = number(header.uid(), "uid")?;
    let gid = number(header.gid(), "gid")?;
    let seconds = header.mtime().context("its mtime")?;
    let mut mtime = (i64::try_from(seconds).unwrap_or(i64::MAX), 0);
    let mut xattrs = Xattrs::new();
    if let Some(records) = entry.pax_extensions().context("its PAX records")? {
        for record in records {
            let record = record.context("its PAX records")?;
            match record.key_bytes() {
                b"mtime" => {
                    if let Some(exact) = record.value().ok().and_then(parse_time) {
                        mtime = exact;
                    }
                }
                key if key.starts_with(b"GNU.sparse.") => bail!(
                    "it is sparse in the way of PAX, which is not understood here: pack it again \
                     without --sparse"
                ),
                key => {
                    let Some(name) = key.strip_prefix(b"SCHILY.xattr.") else {
                        continue;
                    };
                    let name = OsStr::from_bytes(name);
                    // A layer from outside must not speak for overlay.
                    if !ours(name) {
                        xattrs.insert(name.to_owned(), record.value_bytes().to_vec());
                    }
                }
            }
        }
    }
    Ok(Metadata {
        mode: mode | type_of.as_raw_mode(),
        uid,
        gid,
        mtime,
        xattrs,
    })
}

fn parse_time(text: &str) -> Option<(i64, i64)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanoseconds: i64 = digits.parse().ok()?;
    let seconds: i64 = whole.parse().ok()?;
    Some(match (whole.starts_with('-'), nanoseconds) {
        (true, 1..) => (seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds),
        _ => (seconds, nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_the_archive_stays_inside() {
        assert_eq!(inside(Path::new("/etc/./x/")).unwrap(), Path::new("etc/x"));
        assert!(inside(Path::new("a/../../x")).is_err());
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
    fn times_are_read_as_they_are_written() {
        assert_eq!(parse_time("1.000000005"), Some((1, 5)));
        assert_eq!(parse_time("-0.5"), Some((-1, 500_000_000)));
        assert_eq!(parse_time("-3"), Some((-3, 0)));
        assert_eq!(parse_time("x"), None);
        assert_eq!(parse_time("-9223372036854775808.5"), None);
    }
}
