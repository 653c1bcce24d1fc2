//! Digests of what would be copied, for the cache.
//!
//! A layer may be used again if it would come out the same: so the type counts,
//! permissions, owner, the target of a link, content and attributes. Times do
//! not: a checkout of the same commit has others.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use engine::image::digest::Digest;
use rustix::fs::{FileType, SeekFrom, Stat, seek};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::copy::look::Look;
use crate::copy::remembered::Remembered;
use crate::copy::tree::{Entry, Visitor, open_content, target};

/// The size of the pieces in which content is looked at, in bytes.
const PIECE: u64 = 64 << 10;

/// Takes the digests of the files of a walk.
#[derive(Debug, Default)]
pub struct Digests<'a> {
    /// What earlier builds have found.
    remembered: Option<&'a Remembered>,
    /// The files, by their paths in the tree.
    pub files: Vec<(String, Digest)>,
    /// What [`Stamp`] sees of them.
    pub stamp: Stamp,
    /// The directories that come along (`--parents`).
    pub above: PathBuf,
}

/// A digest of what changes when somebody changes a file: inode number, size,
/// times.
#[derive(Clone, Debug, Default)]
pub struct Stamp(Sha256);

impl Stamp {
    /// Adds a file.
    pub fn add(&mut self, path: &Path, stat: &Stat) {
        let mut text = Vec::from(path.as_os_str().as_bytes());
        text.extend_from_slice(
            format!(
                "\0{} {} {} {} {} {} {} {}\n",
                stat.st_dev,
                stat.st_ino,
                stat.st_mode,
                stat.st_size,
                stat.st_mtime,
                stat.st_mtime_nsec,
                stat.st_ctime,
                stat.st_ctime_nsec,
            )
            .as_bytes(),
        );
        self.0.update(&text);
    }

    /// The digest of all of them.
    pub fn digest(self) -> Digest {
        Digest::finished(self.0)
    }
}

impl<'a> Digests<'a> {
    /// None yet. Those that are `remembered` are not taken again.
    pub fn new(remembered: Option<&'a Remembered>) -> Self {
        Digests {
            remembered,
            ..Digests::default()
        }
    }

    fn content(&self, entry: &Entry<'_>) -> Result<Digest> {
        let take = || {
            let file = open_content(&entry.file)?;
            content(&file, entry.stat.st_size as u64)
        };
        match self.remembered {
            Some(remembered) => remembered.digest(entry.file, entry.stat, take),
            None => take(),
        }
    }

    fn add(&mut self, entry: &Entry<'_>, what: &[u8]) {
        let path = entry.path.to_string_lossy().into_owned();
        // A file that was found through a link keeps the link's name.
        let name = self.above.join(entry.name);
        let what = [name.as_os_str().as_bytes(), b"\0", what].concat();
        let digest = of_look(entry.kind(), &entry.look, &what);
        self.files.push((path, digest));
    }
}

/// The digest of a file: its look, and `what` is in it.
pub fn of_look(kind: FileType, look: &Look, what: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    let (uid, gid) = look.owner;
    // No permissions of a link: it has none.
    let mode = match kind {
        FileType::Symlink => 0,
        _ => look.mode,
    };
    let head = format!("{:o} {mode:o} {uid} {gid}\n", kind.as_raw_mode());
    hash.update(head.as_bytes());
    let mut text = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for (name, value) in &look.xattrs {
        text(name.as_bytes());
        text(value);
    }
    text(what);
    Digest::finished(hash)
}

impl Visitor for Digests<'_> {
    fn enter(&mut self, entry: &Entry<'_>) -> Result<()> {
        self.add(entry, b"");
        self.stamp.add(entry.path, entry.stat);
        Ok(())
    }

    fn leave(&mut self, _: &Entry<'_>) -> Result<()> {
        Ok(())
    }

    fn file(&mut self, entry: &Entry<'_>) -> Result<()> {
        self.stamp.add(entry.path, entry.stat);
        match entry.kind() {
            FileType::RegularFile => {
                let content = self.content(entry)?;
                self.add(entry, content.hex().as_bytes());
            }
            FileType::Symlink => {
                let target = target(entry.file.as_fd())?;
                self.add(entry, target.as_bytes());
            }
            _ => self.add(entry, entry.stat.st_rdev.to_string().as_bytes()),
        }
        Ok(())
    }

    fn odd(&mut self, _: &Path, _: &str) -> Result<()> {
        Ok(())
    }
}

/// The digest of a file's content. Holes are not read, and count as the zeroes
/// that they are.
pub fn content(file: &File, size: u64) -> Result<Digest> {
    let mut hash = Sha256::new();
    hash.update(size.to_le_bytes());
    let mut buffer = vec![0; PIECE as usize];
    let mut at = 0;
    while at < size {
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data,
            // Only a hole is left, or the file has become shorter.
            Err(Errno::NXIO) => break,
            // The file system does not tell.
            Err(_) => at,
        };
        at = data - data % PIECE;
        let mut length = 0;
        while length < buffer.len() {
            let offset = at + length as u64;
            match file
                .read_at(&mut buffer[length..], offset)
                .context("read")?
            {
                0 => break,
                read => length += read,
            }
        }
        if length == 0 {
            break;
        }
        if buffer[..length].iter().any(|byte| *byte != 0) {
            hash.update(at.to_le_bytes());
            hash.update(&buffer[..length]);
        }
        at += PIECE;
    }
    Ok(Digest::finished(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_zeroes() {
        let directory = tempfile::tempdir().unwrap();
        let make = |name: &str| File::create_new(directory.path().join(name)).unwrap();
        let of = |name: &str| {
            let file = File::open(directory.path().join(name)).unwrap();
            let size = file.metadata().unwrap().len();
            content(&file, size).unwrap()
        };
        let (written, sparse, other) = (make("written"), make("sparse"), make("other"));
        let mut bytes = vec![0; 300_000];
        bytes[200_000] = 1;
        written.write_all_at(&bytes, 0).unwrap();
        sparse.set_len(300_000).unwrap();
        sparse.write_all_at(&[1], 200_000).unwrap();
        other.set_len(300_000).unwrap();
        other.write_all_at(&[1], 200_001).unwrap();
        assert_eq!(of("written"), of("sparse"));
        assert_ne!(of("written"), of("other"));
        other.set_len(299_999).unwrap();
        assert_ne!(of("written"), of("other"));
        // Larger than any disk, and at once.
        make("giant").set_len(1 << 42).unwrap();
        assert_ne!(of("giant"), of("sparse"));
    }
}
