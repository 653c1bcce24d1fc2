//! Files into an archive. Each file is opened once, as what it is then: not
//! followed if it is a link, not read if it is a device or a FIFO.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use kit::warn;
use nix::sys::stat::{major, minor};
use rustix::fs::{
    Dir, FileType, Mode, OFlags, SeekFrom, Stat, fgetxattr, flistxattr, fstat, getxattr, listxattr,
    openat, readlinkat, seek,
};
use rustix::io::Errno;
use tar::{Builder, EntryType};
use union::archive::write::{Exactly, append_pax, header, time};
use union::tree::node::ours;

use crate::copy::names::{Names, Written};

/// The most pieces of a file with holes. Of one with more, the holes are sent as
/// zeroes.
const PIECES: usize = 10_000;

/// The deepest directory that is sent. Each one on the way down is open, and has
/// its part of the stack.
const DEEPEST: usize = 512;

/// What is sent.
#[derive(Clone, Debug)]
pub struct Source {
    /// Where it is.
    pub written: Written,
    /// Whether a link is followed.
    pub follow: bool,
}

/// Writes what `source` names into an archive, and returns whether there is such
/// a file.
pub fn send(names: &Names, source: &Source, to: &mut dyn Write) -> Result<bool> {
    let written = &source.written;
    let found = match names.find(&written.path, source.follow || written.is_directory) {
        Ok(found) if found.stat.is_some() => found,
        Ok(_) => return Ok(false),
        Err(error) if kit::errno::is(&error, &[Errno::NOENT, Errno::NOTDIR]) => return Ok(false),
        Err(error) => return Err(error),
    };
    if written.is_directory && !found.is_directory() {
        bail!("{}: not a directory", written.path.display());
    }
    let mut archive = Archive {
        builder: Builder::new(to),
        links: HashMap::new(),
    };
    archive.file(
        found.directory.as_fd(),
        &found.name,
        Path::new(written.name()),
    )?;
    archive.builder.finish().context("write the archive")?;
    Ok(true)
}

struct Archive<'a> {
    builder: Builder<&'a mut dyn Write>,
    /// The first name of every file that has several.
    links: HashMap<(u64, u64), PathBuf>,
}

/// Opens a file of any kind without following a link, and without any effect on
/// a device.
fn open(directory: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::empty())
}

/// The path of an open file, for calls that take no descriptor of it.
fn through_proc(file: &impl AsRawFd) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

impl Archive<'_> {
    /// Writes a file, and what is in it, as `path`.
    fn file(&mut self, directory: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<()> {
        let file = match open(directory, name) {
            Ok(file) => file,
            // Somebody has removed it since.
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno).with_context(|| format!("open {path:?}")),
        };
        let stat = fstat(&file).with_context(|| format!("stat {path:?}"))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        // An end of a connection, not a file to keep.
        if kind == FileType::Socket {
            return Ok(());
        }
        if stat.st_nlink > 1 && kind != FileType::Directory {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&key) {
                let mut header = header(&stat, EntryType::Link);
                return self
                    .builder
                    .append_link(&mut header, path, first)
                    .with_context(|| format!("write {path:?} to the archive"));
            }
            self.links.insert(key, path.to_owned());
        }
        self.entry(&file, &stat, kind, path)
            .with_context(|| format!("copy {path:?}"))?;
        if kind != FileType::Directory {
            return Ok(());
        }
        if path.components().count() > DEEPEST {
            bail!("directories are nested more than {DEEPEST} deep");
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let list = || openat(&file, ".", flags, Mode::empty()).and_then(Dir::new);
        let mut entries = Vec::new();
        for entry in list().with_context(|| format!("open {path:?}"))? {
            let entry = entry.with_context(|| format!("readdir {path:?}"))?;
            let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
            if name != "." && name != ".." {
                entries.push(name);
            }
        }
        entries.sort();
        for name in entries {
            self.file(file.as_fd(), &name, &path.join(&name))?;
        }
        Ok(())
    }

    fn entry(&mut self, file: &OwnedFd, stat: &Stat, kind: FileType, path: &Path) -> Result<()> {
        let mtime = (stat.st_mtime, stat.st_mtime_nsec as i64);
        let mut records = vec![("mtime".to_owned(), time(mtime).into_bytes())];
        let content = match kind {
            FileType::RegularFile => Some(reopen(file)?),
            _ => None,
        };
        for (name, value) in attributes(file, content.as_ref())? {
            match name.to_str() {
                Some(name) => records.push((format!("SCHILY.xattr.{name}"), value)),
                None => warn!("{path:?} is copied without its attribute {name:?}"),
            }
        }
        let type_of = match kind {
            FileType::Directory => EntryType::Directory,
            FileType::Symlink => EntryType::Symlink,
            FileType::CharacterDevice => EntryType::Char,
            FileType::BlockDevice => EntryType::Block,
            FileType::Fifo => EntryType::Fifo,
            _ => EntryType::Regular,
        };
        let mut header = header(stat, type_of);
        let mut pieces = None;
        match type_of {
            EntryType::Symlink => {
                let target = readlinkat(file, "", Vec::new())
                    .context("readlink")?
                    .into_bytes();
                // The field has 100 bytes.
                if target.len() > 100 {
                    records.push(("linkpath".into(), target.clone()));
                }
                header.set_link_name_literal(&target[..target.len().min(100)])?;
            }
            EntryType::Char | EntryType::Block => {
                header.set_device_major(major(stat.st_rdev) as u32)?;
                header.set_device_minor(minor(stat.st_rdev) as u32)?;
            }
            EntryType::Regular => {
                let size = stat.st_size as u64;
                header.set_size(size);
                if let Some(content) = &content
                    && (stat.st_blocks as u64) * 512 < size
                    && let Some(found) = data(content, size)
                {
                    let name = path.as_os_str().as_bytes().to_vec();
                    records.push(("GNU.sparse.major".into(), b"1".into()));
                    records.push(("GNU.sparse.minor".into(), b"0".into()));
                    records.push(("GNU.sparse.name".into(), name));
                    records.push(("GNU.sparse.realsize".into(), size.to_string().into()));
                    pieces = Some(found);
                }
            }
            _ => {}
        }
        append_pax(&mut self.builder, path, &records)?;
        let mut shown = path.as_os_str().to_owned();
        if type_of == EntryType::Directory {
            shown.push("/");
        }
        match (content, pieces) {
            (Some(file), Some(pieces)) => {
                let map = map(&pieces);
                let length: u64 = pieces.iter().map(|(_, length)| length).sum();
                header.set_size(map.len() as u64 + length);
                let content = map.as_slice().chain(Pieces {
                    file,
                    pieces,
                    at: 0,
                });
                self.builder.append_data(&mut header, &shown, content)?;
            }
            (Some(file), None) => {
                let content = Exactly::new(file, stat.st_size as u64);
                self.builder.append_data(&mut header, &shown, content)?;
            }
            (None, _) => {
                self.builder
                    .append_data(&mut header, &shown, std::io::empty())?;
            }
        }
        Ok(())
    }
}

/// Opens for reading a file that is known to be a regular one.
fn reopen(file: &OwnedFd) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(through_proc(file), flags, Mode::empty())
        .map(File::from)
        .context("open")
}

/// The extended attributes of an open file, without those of overlay.
fn attributes(file: &OwnedFd, open: Option<&File>) -> Result<Vec<(OsString, Vec<u8>)>> {
    let path = through_proc(file);
    let mut names = vec![0; 65536];
    let listed = match open {
        Some(open) => flistxattr(open, &mut names[..]),
        None => listxattr(&path, &mut names[..]),
    };
    let length = match listed {
        Ok(length) => length,
        Err(Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => 0,
        Err(errno) => return Err(errno).context("listxattr"),
    };
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0) {
        let name = OsStr::from_bytes(name);
        if name.is_empty() || ours(name) {
            continue;
        }
        let mut value = vec![0; 65536];
        let read = match open {
            Some(open) => fgetxattr(open, name, &mut value[..]),
            None => getxattr(&path, name, &mut value[..]),
        };
        match read {
            Ok(length) => {
                value.truncate(length);
                found.push((name.to_owned(), value));
            }
            // It is gone since, or not for the caller.
            Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => {}
            Err(errno) => return Err(errno).with_context(|| format!("getxattr({name:?})")),
        }
    }
    Ok(found)
}

/// The pieces of a file that are no holes: offset and length. `None` if there are
/// too many, or the file system does not tell.
fn data(file: &File, size: u64) -> Option<Vec<(u64, u64)>> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) if start < size => start,
            Ok(_) | Err(Errno::NXIO) => break,
            Err(_) => return None,
        };
        let end = seek(file, SeekFrom::Hole(start)).ok()?.min(size);
        if end <= start || pieces.len() == PIECES {
            return None;
        }
        pieces.push((start, end - start));
        at = end;
    }
    Some(pieces)
}

/// The map of a file with holes, in the format 1.0 of GNU tar: decimal numbers,
/// filled up to a block.
fn map(pieces: &[(u64, u64)]) -> Vec<u8> {
    let mut map = format!("{}\n", pieces.len());
    for (offset, length) in pieces {
        map.push_str(&format!("{offset}\n{length}\n"));
    }
    let mut map = map.into_bytes();
    map.resize(map.len().next_multiple_of(512), 0);
    map
}

/// Reads the pieces of a file, one after the other.
struct Pieces {
    file: File,
    pieces: Vec<(u64, u64)>,
    /// How much of the first piece has been read.
    at: u64,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let Some((offset, length)) = self.pieces.first().copied() else {
            return Ok(0);
        };
        self.file.seek(std::io::SeekFrom::Start(offset + self.at))?;
        let read = Exactly::new(&self.file, length - self.at).read(buffer)?;
        self.at += read as u64;
        if self.at == length {
            self.pieces.remove(0);
            self.at = 0;
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let long = "n".repeat(200);
        let tree = directory.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        std::fs::write(tree.join(&long), "content").unwrap();
        let sparse = File::create(tree.join("sparse")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", (1 << 30) - 3).unwrap();
        std::os::unix::fs::symlink("l".repeat(300), tree.join("link")).unwrap();
        let source = Source {
            written: Written::new(tree.as_os_str(), Path::new("/")),
            follow: false,
        };
        let mut archive = Vec::new();
        assert!(send(&Names::Host, &source, &mut archive).unwrap());
        assert!(archive.len() < 1 << 20, "holes are not sent");
        let mut reader = union::archive::reader::Reader::new(&archive[..]);
        let mut found = Vec::new();
        while let Some(entry) = reader.next().unwrap() {
            let name = String::from_utf8(entry.path_bytes().to_vec()).unwrap();
            found.push((name, entry.size()));
        }
        let expected = [
            ("tree/".to_owned(), 0),
            ("tree/link".to_owned(), 0),
            (format!("tree/{long}"), 7),
            ("tree/sparse".to_owned(), 1 << 30),
        ];
        assert_eq!(found, expected);
    }
}
