//! Archives: `ADD` of one unpacks it, and a context may come as one.
//!
//! An archive is somebody's. Its names are resolved below the directory into
//! which it is unpacked, as if that were the root: a link that it brings leads
//! nowhere else, and `..` is refused. Sizes are checked before anything is
//! written, and what it may hold is bounded.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use engine::image::source::decompress::decompress;
use kit::warn;
use nix::sys::stat::makedev;
use rustix::fs::{AtFlags, FileType, statat};
use rustix::io::Errno;
use std::collections::BTreeMap;
use union::archive::reader::{Entry, EntryType, Reader};

use crate::copy::look::{Look, Named};
use crate::copy::stage::{Directory, NOBODYS, Stage, refuse_whiteout};
use crate::copy::tree::{DEEPEST, is_of_contexts};

/// The most entries of an archive that `ADD` unpacks.
pub const ENTRIES: u64 = 1 << 20;

/// The most entries of an archive that is a context: of each is kept what it is
/// to look like.
pub const ENTRIES_OF_CONTEXT: u64 = 500_000;

/// The most bytes of names and attributes of an archive. A packed one may hold
/// any number of long names in some kilobytes.
const NAMES: u64 = 64 << 20;

/// Whether a file is an archive, packed or not: as Docker finds out, by reading
/// its first entry.
pub fn is_archive(file: &mut File) -> Result<bool> {
    let is = match decompress(&*file) {
        Ok(unpacked) => matches!(Reader::new(unpacked).next(), Ok(Some(_))),
        Err(_) => false,
    };
    file.rewind().context("lseek")?;
    Ok(is)
}

/// Who makes the files of an archive.
pub trait Target {
    /// The most entries.
    fn most(&self) -> u64 {
        ENTRIES
    }
    /// What the file at `path` gets of the look of its entry; `None` if it is not
    /// made at all.
    fn look(&mut self, path: &Path, kind: EntryType, look: Look) -> Result<Option<Look>>;
}

/// Unpacks an archive into the root of `stage`. Directories get their looks in
/// the end: one that is not writable takes nothing more.
pub fn unpack(stage: &mut Stage, from: impl Read, target: &mut dyn Target) -> Result<()> {
    let mut archive = Reader::new(from);
    let mut looks: BTreeMap<PathBuf, Look> = BTreeMap::new();
    let (mut count, mut bytes) = (0, 0);
    while let Some(mut entry) = archive.next()? {
        // Here, and not in the end: before more of it is read, made or kept.
        count += 1;
        let most = target.most();
        ensure!(
            count <= most,
            "the archive has more than {most} entries: refused"
        );
        let named = PathBuf::from(OsStr::from_bytes(entry.path_bytes()));
        let attributes = entry.xattrs().iter();
        bytes += named.as_os_str().len() as u64
            + attributes
                .map(|(name, value)| (name.len() + value.len()) as u64)
                .sum::<u64>();
        ensure!(
            bytes <= NAMES,
            "the names and attributes in the archive have more than {} MiB: refused",
            NAMES >> 20
        );
        one(stage, &mut entry, &named, target, &mut looks)
            .with_context(|| format!("unpack {:?}", short(&named)))?;
    }
    for (path, look) in looks.iter().rev() {
        let made = stage
            .known(path)
            .and_then(|at| stage.write(at.file.as_fd(), look));
        made.with_context(|| format!("unpack {path:?}"))?;
    }
    Ok(())
}

/// A name for a message: an archive may have one of a megabyte.
fn short(path: &Path) -> String {
    path.to_string_lossy().chars().take(200).collect()
}

/// Where an entry is, below the directory.
fn inside(path: &Path) -> Result<PathBuf> {
    let inside = union::archive::inside(path).context("it leads out of the archive")?;
    ensure!(
        inside.components().count() <= DEEPEST,
        "directories are nested more than {DEEPEST} deep"
    );
    Ok(inside)
}

fn one(
    stage: &mut Stage,
    entry: &mut Entry<'_, impl Read>,
    named: &Path,
    target: &mut dyn Target,
    looks: &mut BTreeMap<PathBuf, Look>,
) -> Result<()> {
    let path = inside(named)?;
    let kind = entry.entry_type();
    let Some(name) = path.file_name() else {
        // The directory itself, which was there before.
        ensure!(kind == EntryType::Directory, "it has no name");
        return Ok(());
    };
    refuse_whiteout(name)?;
    let above = stage.directory(path.parent().unwrap_or(Path::new("")))?;
    // Where it really is: links that the archive has brought are resolved.
    let real = above.path.join(name);
    let Some(look) = target.look(&real, kind, look_of(entry)?)? else {
        return Ok(());
    };
    if make_room(stage, &above, name, kind)? {
        // What was a directory is none any more.
        let below = looks.range(real.clone()..);
        let below = below.take_while(|(known, _)| known.starts_with(&real));
        let gone: Vec<PathBuf> = below.map(|(known, _)| known.clone()).collect();
        for known in gone {
            looks.remove(&known);
        }
    }
    match kind {
        EntryType::Directory => {
            stage.enter(&above, name)?;
            looks.insert(real, look);
        }
        EntryType::Regular => {
            let file = stage.create(&above, name, entry.size())?;
            entry.write_to(&file)?;
            stage.write(file.as_fd(), &look)?;
        }
        EntryType::Symlink => {
            let link = entry.link_name_bytes().context("a link without a target")?;
            stage.symlink(&above, name, OsStr::from_bytes(link), &look)?;
        }
        EntryType::Link => {
            let link = entry.link_name_bytes().context("a link without a target")?;
            let link = inside(Path::new(OsStr::from_bytes(link)))?;
            let of = link.file_name().context("a link to a directory")?;
            let other = stage.directory(link.parent().unwrap_or(Path::new("")))?;
            stage.link(&above, name, &other, of)?;
        }
        EntryType::Fifo => stage.node(&above, name, FileType::Fifo, 0, &look)?,
        EntryType::Char | EntryType::Block => {
            let (major, minor) = entry.device();
            let kind = match kind {
                EntryType::Char => FileType::CharacterDevice,
                _ => FileType::BlockDevice,
            };
            stage.node(
                &above,
                name,
                kind,
                makedev(major.into(), minor.into()),
                &look,
            )?;
        }
    }
    Ok(())
}

/// What has the name of an entry makes place for it, but for a directory that
/// another one falls onto: as Docker unpacks. Returns whether something was
/// removed.
fn make_room(stage: &Stage, at: &Directory, name: &OsStr, kind: EntryType) -> Result<bool> {
    let stat = match statat(&at.file, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(false),
        Err(errno) => return Err(errno).context("stat"),
    };
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    match is_directory == (kind == EntryType::Directory) {
        // A file onto a file: `Stage` sees to that, and a hard link to itself
        // stays.
        true => Ok(false),
        false => stage.remove(at, name).map(|()| true),
    }
}

fn look_of(entry: &Entry<'_, impl Read>) -> Result<Look> {
    let (uid, gid) = entry.owner();
    let id = |id: i64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
    let mut xattrs = entry.xattrs().clone();
    xattrs.retain(|name, value| is_of_contexts(name) && value.len() <= 65536);
    Ok(Look {
        mode: entry.mode(),
        owner: (
            id(uid).with_context(|| format!("its uid {uid} is out of range"))?,
            id(gid).with_context(|| format!("its gid {gid} is out of range"))?,
        ),
        mtime: entry.mtime(),
        xattrs,
    })
}

/// The files of an archive become those of the image.
#[derive(Debug)]
pub struct Added;

impl Target for Added {
    fn look(&mut self, _: &Path, _: EntryType, look: Look) -> Result<Option<Look>> {
        Ok(Some(look))
    }
}

/// The files of an archive become those of a context: they are the caller's and
/// nobody else's, and what they are to look like is written aside, a line each.
#[derive(Debug)]
pub struct Aside<W> {
    /// Where to.
    pub looks: W,
}

impl<W: Write> Target for Aside<W> {
    fn most(&self) -> u64 {
        ENTRIES_OF_CONTEXT
    }

    fn look(&mut self, path: &Path, kind: EntryType, look: Look) -> Result<Option<Look>> {
        let mode = match kind {
            EntryType::Char | EntryType::Block => {
                warn!("{path:?} is a device, and is left out of the context");
                return Ok(None);
            }
            EntryType::Directory => 0o700,
            _ => 0o600,
        };
        serde_json::to_writer(&mut self.looks, &(Named(path.into()), look))?;
        self.looks.write_all(b"\n").context("write")?;
        Ok(Some(Look {
            mode,
            owner: NOBODYS,
            mtime: (0, 0),
            xattrs: BTreeMap::new(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use crate::copy::stage::Links;
    use rustix::fs::{Mode, OFlags, open};

    use super::*;

    /// Makes nothing, of three entries at most.
    struct Three;

    impl Target for Three {
        fn most(&self) -> u64 {
            3
        }

        fn look(&mut self, _: &Path, _: EntryType, _: Look) -> Result<Option<Look>> {
            Ok(None)
        }
    }

    /// The header of an empty file, as V7 wrote it.
    fn header(name: &str) -> [u8; 512] {
        let mut block = [0; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..107].copy_from_slice(b"0000644");
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        block
    }

    #[test]
    fn no_entry_beyond_the_most_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let unpacked = |entries: usize, then: &[u8]| {
            let root = open(directory.path(), OFlags::PATH, Mode::empty()).unwrap();
            let mut stage = Stage::new(root, Links::Followed, NOBODYS, None).unwrap();
            let archive = [&header("f").repeat(entries)[..], then].concat();
            unpack(&mut stage, &archive[..], &mut Three)
        };
        unpacked(3, &[0; 1024]).unwrap();
        // What follows is no archive: it is not looked at.
        let error = unpacked(4, &[b'x'; 2048]).unwrap_err();
        assert!(
            format!("{error:#}").contains("more than 3 entries"),
            "{error:#}"
        );
    }
}
