//! An archive into files. What is in the archive may come from somebody who
//! wishes the reader ill, and so may what is already there.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use kit::errno::is;
use kit::{say, warn};
use nix::sys::stat::makedev;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, linkat, mkdirat, mknodat, openat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use union::archive::reader::{Entry, EntryType, Reader};
use union::tree::node::ours;

use crate::copy::look::Look;
use crate::copy::names::{Names, Written};

/// Where an archive goes.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The place.
    pub written: Written,
    /// What the archive is.
    pub what: What,
    /// What its entries may decide.
    pub rules: Rules,
    /// How the place is called in errors.
    pub shown: String,
}

/// What an archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Somebody's: all of it goes into a directory.
    Archive,
    /// One file or directory, as [`send`](crate::copy::send::send) writes it.
    One,
    /// The content of a directory.
    Content,
}

/// What the entries of an archive may decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rules {
    /// Everything: owners, devices, rights. For a container, whose files they
    /// become.
    Everything,
    /// Owners and rights, but no devices.
    Owners,
    /// Neither: the files are the caller's, and give nobody his rights.
    Nothing,
}

/// The files of an archive are being made.
struct Target<'a> {
    names: &'a Names,
    rules: Rules,
    /// The directory to which paths are relative, and its path.
    base: OwnedFd,
    base_path: PathBuf,
    /// The name of what the archive holds.
    rename: Option<OsString>,
    /// Whether it has another one in the archive, with which each path begins.
    has_name: bool,
    /// The directory of the last entry: archives go through a tree directory by
    /// directory.
    last: Option<(PathBuf, OwnedFd)>,
    /// What directories are to look like once everything is in them.
    directories: BTreeMap<PathBuf, Metadata>,
}

/// The metadata of an entry.
#[derive(Clone, Debug)]
struct Metadata {
    mode: Mode,
    owner: Option<(u32, u32)>,
    mtime: (i64, i64),
    xattrs: BTreeMap<OsString, Vec<u8>>,
}

/// Writes the files of an archive to where they belong. Returns whether there was
/// anything in it.
pub fn receive(names: &Names, to: &Destination, from: &mut dyn Read) -> Result<bool> {
    let mut archive = Reader::new(from);
    let mut target = None;
    if to.what == What::Archive {
        target = Some(Target::directory(names, to)?);
    }
    let mut any = false;
    while let Some(mut entry) = archive.next()? {
        any = true;
        let target = match &mut target {
            Some(target) => target,
            None => {
                let is_directory = entry.entry_type() == EntryType::Directory;
                target.insert(Target::choose(names, to, is_directory)?)
            }
        };
        let path = PathBuf::from(OsStr::from_bytes(entry.path_bytes()));
        target
            .entry(&mut entry, &path)
            .with_context(|| format!("copy {path:?}"))?;
    }
    if let Some(target) = target {
        target.finish()?;
    }
    Ok(any)
}

impl<'a> Target<'a> {
    fn new(
        names: &'a Names,
        rules: Rules,
        (base, base_path): (OwnedFd, PathBuf),
        rename: Option<OsString>,
    ) -> Self {
        Target {
            names,
            rules,
            base,
            base_path,
            rename,
            has_name: true,
            last: None,
            directories: BTreeMap::new(),
        }
    }

    /// All of the archive goes into a directory, which exists.
    fn directory(names: &'a Names, to: &Destination) -> Result<Self> {
        let path = &to.written.path;
        match names.directory(path) {
            Ok(base) => Ok(Target::new(names, to.rules, (base, path.clone()), None)),
            Err(error) if is(&error, &[Errno::NOENT, Errno::NOTDIR]) => {
                bail!("destination {:?} must be a directory", to.shown)
            }
            Err(error) => Err(error),
        }
    }

    /// Docker's rules: what a name means depends on whether it exists, and on
    /// what is copied.
    // ANCHOR: choose
    fn choose(names: &'a Names, to: &Destination, is_directory: bool) -> Result<Self> {
        let path = &to.written.path;
        let found = match names.find(path, true) {
            Ok(found) => found,
            Err(error) if is(&error, &[Errno::NOENT, Errno::NOTDIR]) => {
                let parent = path.parent().unwrap_or(path).display();
                match names {
                    Names::Host => {
                        bail!("invalid output path: directory \"{parent}\" does not exist")
                    }
                    Names::Inside(_) => bail!("Could not find the file {parent} in {}", to.shown),
                }
            }
            Err(error) => return Err(error),
        };
        if found.is_directory() {
            let into = found.path.join(&found.name);
            let base = names.directory(&into)?;
            return Ok(Target::new(names, to.rules, (base, into), None));
        }
        match (found.stat.is_some(), is_directory) {
            (true, true) => bail!("cannot copy directory"),
            (true, false) if to.written.is_directory => {
                bail!("{}: not a directory", path.display())
            }
            (false, false) if to.written.is_directory => bail!("no such directory"),
            _ => {}
        }
        let base = (found.directory, found.path);
        let target = Target::new(names, to.rules, base, Some(found.name));
        Ok(Target {
            has_name: to.what != What::Content,
            ..target
        })
    }
    // ANCHOR_END: choose

    /// Where a path of the archive is, below the base.
    fn inside(&self, path: &Path) -> Result<PathBuf> {
        let mut inside = PathBuf::new();
        let mut parts = path.components().peekable();
        if let Some(name) = &self.rename {
            if self.has_name {
                parts.next();
            }
            inside.push(name);
        }
        for part in parts {
            match part {
                Component::Normal(name) => inside.push(name),
                Component::ParentDir => bail!("it leads out of the archive: refused"),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        Ok(inside)
    }

    /// Opens a directory below the base. Those that the archive does not mention
    /// are made.
    fn parent(&mut self, path: &Path) -> Result<BorrowedFd<'_>> {
        if self.last.as_ref().is_none_or(|(last, _)| last != path) {
            let opened = match self.names.below(&self.base, &self.base_path, path) {
                Err(error) if is(&error, &[Errno::NOENT]) => {
                    let above = path.parent().context("the directory is gone")?.to_owned();
                    let name = path.file_name().context("no name")?.to_owned();
                    let above = self.parent(&above)?;
                    match mkdirat(above, &name, Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(errno).context("mkdir"),
                    }
                    self.names.below(&self.base, &self.base_path, path)?
                }
                opened => opened?,
            };
            self.last = Some((path.to_owned(), opened));
        }
        let (_, directory) = self.last.as_ref().context("no directory")?;
        Ok(directory.as_fd())
    }

    fn entry(&mut self, entry: &mut Entry<'_, impl Read>, named: &Path) -> Result<()> {
        let path = self.inside(named)?;
        let type_of = entry.entry_type();
        let Some(name) = path.file_name() else {
            // The directory itself, which was there before.
            ensure!(type_of == EntryType::Directory, "it is no directory");
            return Ok(());
        };
        let name = name.to_owned();
        let look = self.look(entry)?;
        let above = path.parent().unwrap_or(Path::new("")).to_owned();
        let link = match type_of {
            EntryType::Link => {
                let link = entry.link_name_bytes().context("a link without a target")?;
                Some(self.inside(Path::new(OsStr::from_bytes(link)))?)
            }
            _ => None,
        };
        let is_device = matches!(type_of, EntryType::Char | EntryType::Block);
        if is_device && self.rules != Rules::Everything {
            warn!("{path:?} is a device, and is not copied");
            return Ok(());
        }
        let base = self.base_path.clone();
        let directory = self.parent(&above)?.try_clone_to_owned().context("dup")?;
        let there = match statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(FileType::from_raw_mode(stat.st_mode)),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(errno).context("stat"),
        };
        let shown = || base.join(&path).display().to_string();
        match (there, type_of) {
            (Some(FileType::Directory), EntryType::Directory) => {
                self.directories.insert(path, look);
                return Ok(());
            }
            (Some(FileType::Directory), _) => bail!(
                "cannot overwrite directory \"{}\" with non-directory {named:?}",
                shown()
            ),
            (Some(_), EntryType::Directory) => bail!(
                "cannot overwrite non-directory \"{}\" with directory {named:?}",
                shown()
            ),
            (Some(_), EntryType::Link) if link.as_ref() == Some(&path) => return Ok(()),
            // Another file, not another content of this one: it may have more
            // names, and somebody may be reading it.
            (Some(_), _) => unlinkat(&directory, &name, AtFlags::empty())
                .with_context(|| format!("unlink {}", shown()))?,
            (None, _) => {}
        }
        let at = directory.as_fd();
        match type_of {
            EntryType::Directory => {
                mkdirat(at, &name, Mode::RWXU).context("mkdir")?;
                self.directories.insert(path, look);
                return Ok(());
            }
            EntryType::Regular => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let file = openat(at, &name, flags, Mode::RUSR | Mode::WUSR).context("open")?;
                let file = File::from(file);
                if let Err(error) = entry.write_to(&file) {
                    // No half of a file under its name.
                    return match unlinkat(at, &name, AtFlags::empty()) {
                        Ok(()) => Err(error),
                        Err(errno) => Err(error.context(format!("and it stays: {errno}"))),
                    };
                }
                return look.write(&file.into());
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().context("a link without a target")?;
                symlinkat(OsStr::from_bytes(target), at, &name).context("symlink")?;
            }
            EntryType::Link => {
                let link = link.context("a link without a target")?;
                let other = link
                    .file_name()
                    .context("a link to a directory")?
                    .to_owned();
                let above = link.parent().unwrap_or(Path::new("")).to_owned();
                let other_directory = self.parent(&above)?;
                // Not followed: the archive may have put a link there.
                linkat(other_directory, &other, at, &name, AtFlags::empty()).context("link")?;
                return Ok(());
            }
            EntryType::Fifo | EntryType::Char | EntryType::Block => {
                let (kind, device) = match type_of {
                    EntryType::Fifo => (FileType::Fifo, 0),
                    EntryType::Char => (FileType::CharacterDevice, number(entry)),
                    _ => (FileType::BlockDevice, number(entry)),
                };
                if kind == FileType::CharacterDevice && device == 0 {
                    bail!("the device 0:0 means a deleted file to overlay: refused");
                }
                match mknodat(at, &name, kind, Mode::RUSR | Mode::WUSR, device) {
                    Err(Errno::PERM) => {
                        warn!("{path:?} is a device, and is not copied: mknod: EPERM");
                        return Ok(());
                    }
                    made => made.context("mknod")?,
                }
            }
        }
        // Whatever has this name now: no link is followed.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(at, &name, flags, Mode::empty()).context("open")?;
        look.write(&file)
    }

    /// What an entry is to look like.
    fn look(&self, entry: &Entry<'_, impl Read>) -> Result<Metadata> {
        let (uid, gid) = entry.owner();
        let id = |id: i64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
        let owner = match self.rules {
            Rules::Nothing => None,
            _ => Some((
                id(uid).with_context(|| format!("its uid {uid} is out of range"))?,
                id(gid).with_context(|| format!("its gid {gid} is out of range"))?,
            )),
        };
        let mut mode = entry.mode();
        let mut xattrs = entry.xattrs().clone();
        xattrs.retain(|name, value| {
            let name_bytes = name.as_bytes();
            let allowed = match self.rules {
                Rules::Everything => !name_bytes.starts_with(b"trusted."),
                Rules::Owners => name_bytes.starts_with(b"user.") || name == "security.capability",
                Rules::Nothing => name_bytes.starts_with(b"user."),
            };
            allowed && !ours(name) && value.len() <= 65536
        });
        if self.rules == Rules::Nothing {
            // A program of the container's must not run with the caller's
            // rights.
            mode &= 0o1777;
        }
        Ok(Metadata {
            mode: Mode::from_raw_mode(mode),
            owner,
            mtime: entry.mtime(),
            xattrs,
        })
    }

    /// Gives directories their looks, the innermost first: one that is not
    /// writable takes nothing more.
    fn finish(mut self) -> Result<()> {
        for (path, look) in std::mem::take(&mut self.directories).into_iter().rev() {
            let written = (|| {
                let above = path.parent().unwrap_or(Path::new("")).to_owned();
                let name = path.file_name().context("no name")?;
                let directory = self.parent(&above)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match openat(directory, name, flags, Mode::empty()) {
                    Ok(directory) => look.write(&directory),
                    // Somebody has replaced it meanwhile.
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
                    Err(errno) => Err(errno).context("open"),
                }
            })();
            written.with_context(|| format!("copy {path:?}"))?;
        }
        Ok(())
    }
}

fn number(entry: &Entry<'_, impl Read>) -> u64 {
    let (major, minor) = entry.device();
    makedev(major.into(), minor.into())
}

impl Metadata {
    /// Gives an open file this look.
    fn write(&self, file: &OwnedFd) -> Result<()> {
        let look = Look {
            mode: self.mode.as_raw_mode(),
            owner: self.owner,
            mtime: self.mtime,
            xattrs: &self.xattrs,
        };
        look.write(file.as_fd(), &mut |lost, errno| {
            say!("{lost:?}: {errno}");
            Ok(())
        })
    }
}
