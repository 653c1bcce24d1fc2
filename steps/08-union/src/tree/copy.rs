//! A copy of a tree: content, hard links, holes, metadata.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, SeekFrom, Stat, copy_file_range, ftruncate, ioctl_ficlone,
    linkat, mkdirat, mknodat, openat, seek, symlinkat,
};
use rustix::io::Errno;

use super::node::Metadata;
use super::{Place, Tree, file_type};

/// The numbers of copied files, by method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Files whose blocks are shared with the original.
    pub reflinked: u64,
    /// Files whose content was written again.
    pub written: u64,
}

/// Copies everything in `from` into the empty tree `to`, with the metadata of
/// the root.
pub fn copy(from: &Tree, to: &Tree) -> Result<Copied> {
    let mut copied = Copied::default();
    let mut links: HashMap<(u64, u64), PathBuf> = HashMap::new();
    let mut directories = vec![PathBuf::new()];
    from.walk(Path::new(""), &mut |path, stat| {
        if stat.st_nlink > 1 && file_type(stat) != FileType::Directory {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = links.get(&key) {
                link(to, first, path)?;
                return Ok(true);
            }
            links.insert(key, path.to_owned());
        }
        copy_file(from, to, path, stat, &mut copied)?;
        match file_type(stat) {
            FileType::Directory => directories.push(path.to_owned()),
            _ => Metadata::read(from, path, stat)?.write(&to.place(path)?)?,
        }
        Ok(true)
    })?;
    // Directories last, the innermost first: creating a file in a directory
    // changes its times, and a directory that is not writable takes no file.
    for path in directories.iter().rev() {
        if let Some(stat) = from.stat(path)? {
            Metadata::read(from, path, &stat)?.write(&to.place(path)?)?;
        }
    }
    Ok(copied)
}

/// Makes `path` a hard link to `first`.
pub fn link(tree: &Tree, first: &Path, path: &Path) -> Result<()> {
    let (from, to) = (tree.place(first)?, tree.place(path)?);
    linkat(
        &from.directory,
        &from.name,
        &to.directory,
        &to.name,
        AtFlags::empty(),
    )
    .with_context(|| format!("link({first:?}, {path:?})"))
}

/// Copies the file at `path`, whose status is `stat`, without its metadata; of
/// a directory only the name.
pub fn copy_file(
    from: &Tree,
    to: &Tree,
    path: &Path,
    stat: &Stat,
    copied: &mut Copied,
) -> Result<()> {
    let place = to.place(path)?;
    match file_type(stat) {
        FileType::Directory => mkdirat(&place.directory, &place.name, Mode::RWXU)
            .with_context(|| format!("mkdir({path:?})")),
        FileType::Symlink => symlinkat(from.link(path)?, &place.directory, &place.name)
            .with_context(|| format!("symlink({path:?})")),
        FileType::RegularFile => {
            let source = from.file(path)?;
            let target = create(&place)?;
            match ioctl_ficlone(&target, &source) {
                Ok(()) => copied.reflinked += 1,
                // Another file system, or one without reflinks.
                Err(_) => {
                    copied.written += 1;
                    copy_content(&source, &target, stat.st_size as u64)
                        .with_context(|| format!("copy {path:?}"))?;
                }
            }
            Ok(())
        }
        other => mknodat(
            &place.directory,
            &place.name,
            other,
            Mode::RUSR | Mode::WUSR,
            stat.st_rdev,
        )
        .with_context(|| format!("mknod({path:?}, {other:?})")),
    }
}

/// Creates a new regular file.
///
/// # Errors
/// `EEXIST` if the name is taken.
pub fn create(place: &Place) -> Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    openat(&place.directory, &place.name, flags, mode)
        .map(File::from)
        .with_context(|| format!("open({:?}, O_CREAT | O_EXCL)", place.name))
}

/// Copies the first `size` bytes of a file into an empty one: the data between
/// the holes (lseek(2), `SEEK_DATA`), within the kernel.
pub fn copy_content(source: &File, target: &File, size: u64) -> Result<()> {
    ftruncate(target, size).context("ftruncate")?;
    let mut end = 0;
    while end < size {
        let start = match seek(source, SeekFrom::Data(end)) {
            Ok(start) => start,
            // Only a hole is left.
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(errno).context("lseek(SEEK_DATA)"),
        };
        end = seek(source, SeekFrom::Hole(start)).context("lseek(SEEK_HOLE)")?;
        copy_range(source, target, start, end)?;
    }
    Ok(())
}

fn copy_range(source: impl AsFd, target: impl AsFd, start: u64, end: u64) -> Result<()> {
    let (mut from, mut to) = (start, start);
    while from < end {
        let length = usize::try_from(end - from).unwrap_or(usize::MAX);
        match copy_file_range(&source, Some(&mut from), &target, Some(&mut to), length) {
            // The file has become shorter.
            Ok(0) => break,
            Ok(_) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                return read_and_write(&source, &target, from, end);
            }
            Err(errno) => return Err(errno).context("copy_file_range"),
        }
    }
    Ok(())
}

fn read_and_write(source: impl AsFd, target: impl AsFd, start: u64, end: u64) -> Result<()> {
    let mut buffer = vec![0; 128 * 1024];
    let mut at = start;
    while at < end {
        let wanted = buffer.len().min((end - at) as usize);
        let read = rustix::io::pread(&source, &mut buffer[..wanted], at).context("pread")?;
        if read == 0 {
            break;
        }
        let mut written = 0;
        while written < read {
            let offset = at + written as u64;
            written +=
                rustix::io::pwrite(&target, &buffer[written..read], offset).context("pwrite")?;
        }
        at += read as u64;
    }
    Ok(())
}
