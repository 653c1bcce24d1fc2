//! An archive into a layer. The archive may come from anywhere: nothing in it
//! reaches a file outside the layer's directory (openat2(2), `RESOLVE_IN_ROOT`).

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::io::{BufWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::stat::makedev;
use process::say;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawMode, ResolveFlags, linkat, mkdirat, mknodat, openat2,
    statat, symlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;
use tar::{Archive, Entry, EntryType};

use super::{Marks, OPAQUE, whited_out};
use crate::tree::copy::create;
use crate::tree::node::{Metadata, Xattrs, ours, set_xattr};
use crate::tree::remove::remove_at;
use crate::tree::{Place, Tree, file_type, names};

/// Applies the changes in the tar `from` to the layer in `tree`, which holds
/// what `marks` say: nothing but changes, or the whole parent. Reads `from` to
/// its end, also beyond the end of the archive.
///
/// # Errors
/// For a damaged archive, a name with `..`, a hard link to what is not there,
/// and those of writing. The layer is then half-made.
pub fn apply(tree: &Tree, marks: Marks, from: &mut dyn Read) -> Result<()> {
    let mut layer = Layer {
        tree,
        marks,
        made: HashSet::new(),
        directories: Vec::new(),
    };
    let mut archive = Archive::new(&mut *from);
    for entry in archive.entries().context("read the archive")? {
        let mut entry = entry.context("read the archive")?;
        let path = inside(Path::new(OsStr::from_bytes(&entry.path_bytes())))?;
        layer
            .entry(&mut entry, &path)
            .with_context(|| format!("{path:?} of the archive"))?;
    }
    layer.finish()?;
    std::io::copy(from, &mut std::io::sink()).context("read the archive to its end")?;
    Ok(())
}

struct Layer<'a> {
    tree: &'a Tree,
    marks: Marks,
    /// What came from this archive, which its own whiteouts do not concern.
    made: HashSet<PathBuf>,
    /// Directories get their metadata when nothing more is put into them.
    directories: Vec<(PathBuf, Metadata)>,
}

/// A path of an archive as one below the root.
///
/// # Errors
/// For `..`.
fn inside(path: &Path) -> Result<PathBuf> {
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

impl Layer<'_> {
    fn entry(&mut self, entry: &mut Entry<'_, impl Read>, path: &Path) -> Result<()> {
        let type_of = entry.header().entry_type();
        if type_of.is_pax_global_extensions() {
            return Ok(());
        }
        let Some(name) = path.file_name() else {
            if type_of != EntryType::Directory {
                bail!("the root of a layer is a directory");
            }
            let metadata = metadata(entry, FileType::Directory)?;
            self.directories.push((PathBuf::new(), metadata));
            return Ok(());
        };
        let place = self.place(path, name)?;
        if name == OPAQUE {
            return self.opaque(path, &place);
        }
        if let Some(deleted) = whited_out(name) {
            return self.whiteout(path, deleted, place);
        }
        self.make(entry, type_of, path, &place)?;
        self.made.insert(path.to_owned());
        Ok(())
    }

    /// The directory for `path`, made where it is missing. Links in the layer
    /// are followed, but `/` and `..` in them end at the layer's root.
    fn place(&self, path: &Path, name: &OsStr) -> Result<Place> {
        let parent = path.parent().unwrap_or(Path::new(""));
        let mut at = PathBuf::from(".");
        let mut directory = self.directory(&at)?;
        for component in parent {
            at.push(component);
            directory = match self.directory(&at) {
                Ok(directory) => directory,
                Err(Errno::NOENT) => {
                    let mode = Mode::from_raw_mode(0o755);
                    mkdirat(&directory, component, mode)
                        .with_context(|| format!("mkdir({at:?})"))?;
                    self.directory(&at)
                        .with_context(|| format!("openat2({at:?})"))?
                }
                Err(errno) => {
                    return Err(errno).with_context(|| format!("openat2({at:?}, RESOLVE_IN_ROOT)"));
                }
            };
        }
        Ok(Place {
            directory,
            name: name.to_owned(),
        })
    }

    fn directory(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        openat2(
            self.tree.root(),
            path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
        )
    }

    fn opaque(&mut self, path: &Path, place: &Place) -> Result<()> {
        match self.marks {
            Marks::Overlay { opaque } => {
                let here = Place {
                    directory: place.directory.try_clone().context("dup")?,
                    name: ".".into(),
                };
                set_xattr(&here, opaque, b"y")
            }
            Marks::Aufs => self.mark(place),
            Marks::Whole => {
                let parent = path.parent().unwrap_or(Path::new(""));
                self.forget_below(parent, place)
            }
        }
    }

    /// Removes what the layers below have put into a directory.
    fn forget_below(&self, path: &Path, place: &Place) -> Result<()> {
        let listing = rustix::fs::openat(
            &place.directory,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .context("openat(\".\")")?;
        for name in names(listing).context("readdir")? {
            if !self.made.contains(&path.join(&name)) {
                remove_at(&place.directory, &name)?;
            }
        }
        Ok(())
    }

    fn whiteout(&mut self, path: &Path, deleted: &OsStr, place: Place) -> Result<()> {
        // `.wh.` alone, and `.wh...`, would take away a directory itself.
        if deleted.is_empty() || deleted == "." || deleted == ".." {
            bail!("a whiteout of no name: refused");
        }
        if self.made.contains(&path.with_file_name(deleted)) {
            return Ok(());
        }
        let target = Place {
            name: deleted.to_owned(),
            directory: place.directory.try_clone().context("dup")?,
        };
        remove_at(&target.directory, deleted)?;
        match self.marks {
            Marks::Overlay { .. } => mknodat(
                &target.directory,
                deleted,
                FileType::CharacterDevice,
                Mode::empty(),
                0,
            )
            .with_context(|| format!("mknod({deleted:?}, S_IFCHR, 0:0)")),
            Marks::Aufs => self.mark(&place),
            Marks::Whole => Ok(()),
        }
    }

    fn mark(&self, place: &Place) -> Result<()> {
        match create(place) {
            Err(error) if crate::tree::is(&error, &[Errno::EXIST]) => Ok(()),
            created => created.map(drop),
        }
    }

    fn make(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        type_of: EntryType,
        path: &Path,
        place: &Place,
    ) -> Result<()> {
        let stat = statat(&place.directory, &place.name, AtFlags::SYMLINK_NOFOLLOW);
        let is_directory = matches!(stat, Ok(stat) if file_type(&stat) == FileType::Directory);
        if type_of == EntryType::Directory && is_directory {
            let metadata = metadata(entry, FileType::Directory)?;
            self.directories.push((path.to_owned(), metadata));
            return Ok(());
        }
        if stat.is_ok() && type_of != EntryType::Link {
            remove_at(&place.directory, &place.name)?;
        }
        let made = match type_of {
            EntryType::Directory => {
                mkdirat(&place.directory, &place.name, Mode::RWXU).context("mkdir")?;
                let metadata = metadata(entry, FileType::Directory)?;
                self.directories.push((path.to_owned(), metadata));
                return Ok(());
            }
            EntryType::Link => return self.link(entry, path, place),
            EntryType::Symlink => {
                let target = entry.link_name_bytes().context("a link without a target")?;
                symlinkat(OsStr::from_bytes(&target), &place.directory, &place.name)
                    .context("symlink")?;
                FileType::Symlink
            }
            EntryType::Char => self.device(entry, place, FileType::CharacterDevice)?,
            EntryType::Block => self.device(entry, place, FileType::BlockDevice)?,
            EntryType::Fifo => self.device(entry, place, FileType::Fifo)?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                // Large writes get large pages in the cache, and so faster reads.
                let mut file = BufWriter::with_capacity(1 << 20, create(place)?);
                std::io::copy(entry, &mut file).context("write")?;
                file.flush().context("write")?;
                FileType::RegularFile
            }
            other => bail!("an entry of the unknown type {other:?}"),
        };
        match statat(&place.directory, &place.name, AtFlags::SYMLINK_NOFOLLOW) {
            // A device that could not be made.
            Err(Errno::NOENT) => Ok(()),
            _ => metadata(entry, made)?.write(place),
        }
    }

    fn link(&self, entry: &Entry<'_, impl Read>, path: &Path, place: &Place) -> Result<()> {
        let target = entry.link_name_bytes().context("a link without a target")?;
        let target = inside(Path::new(OsStr::from_bytes(&target)))?;
        let name = target.file_name().context("a link to a directory")?;
        let first = self.place(&target, name)?;
        if target == path {
            return Ok(());
        }
        remove_at(&place.directory, &place.name)?;
        linkat(
            &first.directory,
            &first.name,
            &place.directory,
            &place.name,
            AtFlags::empty(),
        )
        .with_context(|| format!("link({target:?})"))
    }

    fn device(
        &self,
        entry: &Entry<'_, impl Read>,
        place: &Place,
        type_of: FileType,
    ) -> Result<FileType> {
        let header = entry.header();
        let device = match type_of {
            FileType::Fifo => 0,
            _ => makedev(
                header.device_major()?.unwrap_or(0).into(),
                header.device_minor()?.unwrap_or(0).into(),
            ),
        };
        if type_of == FileType::CharacterDevice && device == 0 {
            bail!("the character device 0:0 is overlay's whiteout, and no device: refused");
        }
        let mode = Mode::RUSR | Mode::WUSR;
        match mknodat(&place.directory, &place.name, type_of, mode, device) {
            Ok(()) => {}
            Err(Errno::PERM) if !geteuid().is_root() => {
                say!("{:?} is left out: mknod takes root", place.name);
            }
            Err(errno) => return Err(errno).with_context(|| format!("mknod({:?})", place.name)),
        }
        Ok(type_of)
    }

    fn finish(self) -> Result<()> {
        // The last word on a directory counts, and the innermost come first.
        let mut done = BTreeSet::new();
        let mut directories = self.directories;
        directories.reverse();
        directories.sort_by_key(|(path, _)| std::cmp::Reverse(path.components().count()));
        for (path, metadata) in directories {
            if done.insert(path.clone()) {
                let name = path.file_name().unwrap_or(OsStr::new("."));
                let layer = Layer {
                    tree: self.tree,
                    marks: self.marks,
                    made: HashSet::new(),
                    directories: Vec::new(),
                };
                let place = layer.place(&path, name)?;
                metadata
                    .write(&place)
                    .with_context(|| format!("{path:?} of the archive"))?;
            }
        }
        Ok(())
    }
}

/// The metadata of an entry, its PAX records before its header.
fn metadata(entry: &mut Entry<'_, impl Read>, type_of: FileType) -> Result<Metadata> {
    let header = entry.header();
    let number = |n: std::io::Result<u64>, what| -> Result<u32> {
        let n = n.with_context(|| format!("its {what}"))?;
        u32::try_from(n).with_context(|| format!("its {what} {n} is out of range"))
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
        (true, 1..) => (seconds - 1, 1_000_000_000 - nanoseconds),
        _ => (seconds, nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use super::{inside, parse_time};
    use std::path::Path;

    #[test]
    fn a_name_of_the_archive_stays_inside() {
        assert_eq!(inside(Path::new("/etc/./x/")).unwrap(), Path::new("etc/x"));
        assert!(inside(Path::new("a/../../x")).is_err());
    }

    #[test]
    fn times_are_read_as_they_are_written() {
        assert_eq!(parse_time("1.000000005"), Some((1, 5)));
        assert_eq!(parse_time("-0.5"), Some((-1, 500_000_000)));
        assert_eq!(parse_time("-3"), Some((-3, 0)));
        assert_eq!(parse_time("x"), None);
    }
}
