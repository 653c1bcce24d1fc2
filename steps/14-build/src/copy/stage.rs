//! The root into which files are copied. What is already there comes from an
//! image, and its links may lead anywhere: as in [`tree`](crate::copy::tree),
//! names are resolved part by part and never leave the root.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Once;

use anyhow::{Context, Result, bail, ensure};
use kit::{say, warn};
use lifecycle::copy::look::{self, Lost, write_owner, write_time};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, chmod, fstat, fstatvfs, ioctl_ficlone, linkat, mkdirat,
    mknodat, openat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use union::tree::copy::copy_content;
use union::tree::remove::remove_at;

use crate::copy::look::Look;
use crate::copy::tree::{DEEPEST, open_path, stacked, target, through_proc};

/// The most links in one name.
const LINKS: usize = 40;

/// Instead of an owner: files stay the caller's.
pub const NOBODYS: (u32, u32) = (u32::MAX, u32::MAX);

/// What happens to a link in the way to the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// It is followed, within the root.
    Followed,
    /// It makes place for a directory, and so does any file: the result is to be
    /// the same on every root (`--link`).
    Replaced,
}

/// A root that is being filled.
#[derive(Debug)]
pub struct Stage {
    root: OwnedFd,
    links: Links,
    /// The owner of directories that are made on the way.
    owner: (u32, u32),
    /// No file gets a later time.
    latest: Option<i64>,
    /// Directories in which something was made.
    touched: BTreeSet<PathBuf>,
    /// Whether a file did not get an attribute.
    lost: Cell<bool>,
    room: Room,
}

/// A directory of the root.
#[derive(Debug)]
pub struct Directory {
    /// The directory.
    pub file: OwnedFd,
    /// Its path, without links.
    pub path: PathBuf,
}

/// The place for a file.
#[derive(Debug)]
pub struct Place {
    /// Its directory.
    pub directory: Directory,
    /// Its name there.
    pub name: OsString,
}

/// What is left of the file system. A sparse file of some bytes may claim to be
/// larger than any disk, and the layer's archive has no holes.
#[derive(Debug)]
pub struct Room {
    bytes: u64,
    files: u64,
}

impl Room {
    /// The free space of the file system that `directory` is on.
    pub fn of(directory: impl AsFd) -> Result<Self> {
        let stat = fstatvfs(directory).context("fstatvfs")?;
        Ok(Room {
            bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            // Some file systems, such as btrfs, count no inodes.
            files: match stat.f_files {
                0 => u64::MAX,
                _ => stat.f_favail,
            },
        })
    }

    /// Subtracts a file of `size` bytes.
    ///
    /// # Errors
    /// If there is not enough room for it.
    pub fn take(&mut self, size: u64) -> Result<()> {
        let left = self.bytes.checked_sub(size).zip(self.files.checked_sub(1));
        let Some((bytes, files)) = left else {
            bail!(
                "no space left on device: {} MB and {} files fit, and there are more to copy",
                self.bytes / 1_000_000,
                self.files
            );
        };
        (self.bytes, self.files) = (bytes, files);
        Ok(())
    }
}

impl Stage {
    /// The root below the directory `root`.
    pub fn new(
        root: OwnedFd,
        links: Links,
        owner: (u32, u32),
        latest: Option<i64>,
    ) -> Result<Self> {
        Ok(Stage {
            room: Room::of(&root)?,
            root,
            links,
            owner,
            latest,
            touched: BTreeSet::new(),
            lost: Cell::new(false),
        })
    }

    /// Directories on the way are made for this owner from now on.
    pub fn makes_for(&mut self, owner: (u32, u32)) {
        self.owner = owner;
    }

    /// Reads a small regular file; `None` if there is none.
    pub fn read(&self, path: &str, most: u64) -> Result<Option<String>> {
        let tree = crate::copy::tree::Tree::layer(self.root.try_clone().context("dup")?);
        tree.read(Path::new(path), most)
    }

    /// A directory, which is made if it is missing, with those above it.
    // ANCHOR: directory
    pub fn directory(&mut self, path: &Path) -> Result<Directory> {
        // ANCHOR: exercise_directory
        let mut left = stacked(path);
        let mut above: Vec<(OsString, OwnedFd)> = Vec::new();
        let mut links = 0;
        while let Some(name) = left.pop() {
            if name == ".." {
                above.pop();
                continue;
            }
            // Before the first directory is made.
            ensure!(
                above.len() + left.len() < DEEPEST,
                "directories are nested more than {DEEPEST} deep"
            );
            let here = above
                .last()
                .map_or(self.root.as_fd(), |(_, file)| file.as_fd());
            let in_path = || above.iter().map(|(name, _)| name).collect::<PathBuf>();
            let file = match open_path(here, &name) {
                Ok(file) => file,
                Err(Errno::NOENT) => {
                    refuse_whiteout(&name)?;
                    let made = make(here, &name, self.owner)
                        .with_context(|| format!("mkdir {}", shown(&in_path().join(&name))))?;
                    touched(&mut self.touched, in_path());
                    touched(&mut self.touched, in_path().join(&name));
                    made
                }
                Err(errno) => return Err(errno).with_context(|| format!("open {name:?}")),
            };
            let stat = fstat(&file).context("stat")?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => above.push((name, file)),
                FileType::Symlink if self.links == Links::Followed => {
                    links += 1;
                    ensure!(links <= LINKS, "{path:?} is behind more than {LINKS} links");
                    let target = target(&file)?;
                    if Path::new(&target).has_root() {
                        above.clear();
                    }
                    left.extend(stacked(Path::new(&target)));
                }
                _ if self.links == Links::Replaced => {
                    unlinkat(here, &name, AtFlags::empty()).context("unlink")?;
                    let made = make(here, &name, self.owner).context("mkdir")?;
                    touched(&mut self.touched, in_path());
                    above.push((name, made));
                }
                _ => bail!(
                    "cannot copy to non-directory: {}",
                    shown(&in_path().join(&name))
                ),
            }
        }
        let path = above.iter().map(|(name, _)| name).collect();
        let file = match above.pop() {
            Some((_, file)) => file,
            None => self.root.try_clone().context("dup")?,
        };
        Ok(Directory { file, path })
        // ANCHOR_END: exercise_directory
    }
    // ANCHOR_END: directory

    /// The place that a path means, with the directories above it. A link there
    /// is followed, also to where nothing is yet.
    pub fn place(&mut self, path: &Path) -> Result<Place> {
        let mut path = path.to_owned();
        for _ in 0..LINKS {
            let Some(name) = path.file_name().map(OsStr::to_owned) else {
                bail!("the destination is the root, and what is copied is no directory");
            };
            let directory = self.directory(path.parent().unwrap_or(Path::new("")))?;
            let link = match open_path(&directory.file, &name) {
                Ok(file) if self.links == Links::Followed => {
                    let stat = fstat(&file).context("stat")?;
                    let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
                    is_link.then_some(file)
                }
                Ok(_) | Err(Errno::NOENT) => None,
                Err(errno) => return Err(errno).with_context(|| format!("open {name:?}")),
            };
            let Some(link) = link else {
                return Ok(Place { directory, name });
            };
            path = directory.path.join(target(&link)?);
            if path.file_name().is_none() {
                // `..` or `/`: it can only be a directory.
                let directory = self.directory(&path)?;
                path = directory.path;
            }
        }
        bail!("{path:?} is behind more than {LINKS} links")
    }

    /// Whether a path leads to a directory that exists.
    pub fn is_directory(&self, path: &Path) -> Result<bool> {
        let tree = crate::copy::tree::Tree::layer(self.root.try_clone().context("dup")?);
        tree.is_directory(path)
    }

    /// Makes place for a file of the type `kind`: what has its name is removed,
    /// unless one of the two is a directory.
    fn clear(&self, at: &Directory, name: &OsStr) -> Result<()> {
        refuse_whiteout(name)?;
        let stat = match statat(&at.file, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno).context("stat"),
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            // Another file, and not another content of this one.
            return unlinkat(&at.file, name, AtFlags::empty()).context("unlink");
        }
        match self.links {
            Links::Replaced => remove_at(&at.file, name),
            Links::Followed => bail!(
                "cannot replace to directory {} with file",
                shown(&at.path.join(name))
            ),
        }
    }

    /// Enters the directory `name`, which is made if it is missing. Returns
    /// whether it was.
    pub fn enter(&mut self, at: &Directory, name: &OsStr) -> Result<(Directory, bool)> {
        refuse_whiteout(name)?;
        let path = at.path.join(name);
        loop {
            match mkdirat(&at.file, name, Mode::RWXU) {
                Ok(()) => {
                    let file = open_path(&at.file, name).context("open")?;
                    return Ok((Directory { file, path }, true));
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno).context("mkdir"),
            }
            let file = open_path(&at.file, name).context("open")?;
            let stat = fstat(&file).context("stat")?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                return Ok((Directory { file, path }, false));
            }
            ensure!(
                self.links == Links::Replaced,
                "cannot copy to non-directory: {}",
                shown(&path)
            );
            unlinkat(&at.file, name, AtFlags::empty()).context("unlink")?;
        }
    }

    /// Makes a new regular file, and opens it for writing.
    pub fn create(&mut self, at: &Directory, name: &OsStr, size: u64) -> Result<File> {
        self.room.take(size)?;
        self.clear(at, name)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        openat(&at.file, name, flags, Mode::RUSR | Mode::WUSR)
            .map(File::from)
            .context("open")
    }

    /// Copies a regular file.
    pub fn copy(
        &mut self,
        at: &Directory,
        name: &OsStr,
        from: &File,
        size: u64,
        look: &Look,
    ) -> Result<()> {
        let to = self.create(at, name, size)?;
        // The blocks may be shared if both are on one file system.
        if ioctl_ficlone(&to, from).is_err() {
            copy_content(from, &to, size)?;
        }
        self.write(to.as_fd(), look)
    }

    /// Makes a link.
    pub fn symlink(
        &mut self,
        at: &Directory,
        name: &OsStr,
        target: &OsStr,
        look: &Look,
    ) -> Result<()> {
        self.room.take(0)?;
        self.clear(at, name)?;
        symlinkat(target, &at.file, name).context("symlink")?;
        let link = open_path(&at.file, name).context("open")?;
        self.write(link.as_fd(), look)
    }

    /// Makes a FIFO or a device. Without root there are no devices.
    pub fn node(
        &mut self,
        at: &Directory,
        name: &OsStr,
        kind: FileType,
        device: u64,
        look: &Look,
    ) -> Result<()> {
        ensure!(
            kind != FileType::CharacterDevice || device != 0,
            "the device 0:0 means a deleted file to overlay: refused"
        );
        self.room.take(0)?;
        self.clear(at, name)?;
        match mknodat(&at.file, name, kind, Mode::RUSR | Mode::WUSR, device) {
            Err(Errno::PERM) if kind != FileType::Fifo => {
                warn!(
                    "{} is a device, and is not copied: mknod: EPERM",
                    shown(&at.path.join(name))
                );
                return Ok(());
            }
            made => made.context("mknod")?,
        }
        let node = open_path(&at.file, name).context("open")?;
        self.write(node.as_fd(), look)
    }

    /// Gives the file `other` another name.
    pub fn link(
        &mut self,
        at: &Directory,
        name: &OsStr,
        other: &Directory,
        of: &OsStr,
    ) -> Result<()> {
        self.room.take(0)?;
        if at.path == other.path && name == of {
            return Ok(());
        }
        self.clear(at, name)?;
        linkat(&other.file, of, &at.file, name, AtFlags::empty()).context("link")
    }

    /// A directory that is known, without links on the way.
    pub fn known(&self, path: &Path) -> Result<Directory> {
        let mut file = self.root.try_clone().context("dup")?;
        for name in path {
            file = open_path(&file, name).with_context(|| format!("open {path:?}"))?;
        }
        let path = path.to_owned();
        Ok(Directory { file, path })
    }

    /// Removes a file of any kind, with all that is in it.
    pub fn remove(&self, at: &Directory, name: &OsStr) -> Result<()> {
        remove_at(&at.file, name)
    }

    /// Says that the directory holds something new.
    pub fn touch(&mut self, path: &Path) {
        touched(&mut self.touched, path.to_owned());
    }

    /// Gives an open file a look.
    pub fn write(&self, file: BorrowedFd<'_>, look: &Look) -> Result<()> {
        let mtime = match self.latest {
            Some(latest) if look.mtime.0 >= latest => (latest, 0),
            _ => look.mtime,
        };
        let look = look::Look {
            mode: look.mode,
            owner: Some(look.owner).filter(|owner| *owner != NOBODYS),
            mtime,
            xattrs: &look.xattrs,
        };
        look.write(file, &mut |lost, errno| match lost {
            Lost::Attribute(name) => {
                say!("without {name:?}: setxattr: {errno}");
                self.lost.set(true);
                Ok(())
            }
            lost => without_owner(lost, errno),
        })
    }

    /// Whether a file has not got an attribute that it should have.
    pub fn has_lost(&self) -> bool {
        self.lost.get()
    }

    /// Ends the copy: with `SOURCE_DATE_EPOCH`, that something was made in a
    /// directory just now does not show.
    pub fn finish(self) -> Result<()> {
        let Some(latest) = self.latest else {
            return Ok(());
        };
        for path in &self.touched {
            let directory = self.known(path)?;
            write_time(directory.file.as_fd(), (latest, 0), &mut without_owner)?;
        }
        Ok(())
    }
}

fn touched(all: &mut BTreeSet<PathBuf>, path: PathBuf) {
    all.insert(path);
}

/// Makes a directory on the way to a destination.
fn make(at: BorrowedFd<'_>, name: &OsStr, owner: (u32, u32)) -> Result<OwnedFd> {
    mkdirat(at, name, Mode::RWXU)?;
    let made = open_path(at, name).context("open")?;
    if owner != NOBODYS {
        write_owner(made.as_fd(), owner, &mut without_owner)?;
    }
    chmod(through_proc(&made), Mode::from_raw_mode(0o755)).context("chmod")?;
    Ok(made)
}

/// A layer's archive could not hold such a file, and whoever unpacks one takes it
/// for the mark of a deleted file.
pub fn refuse_whiteout(name: &OsStr) -> Result<()> {
    ensure!(
        !name.as_bytes().starts_with(b".wh."),
        "{:?}: a name that begins with .wh. stands for a deleted file in an image: rename it, or \
         leave it out (.dockerignore)",
        name.to_string_lossy()
    );
    Ok(())
}

fn shown(path: &Path) -> String {
    Path::new("/").join(path).display().to_string()
}

/// What a file is not given is said once: an owner, for all files of a copy.
fn without_owner(lost: Lost<'_>, errno: Errno) -> Result<()> {
    static TOLD: Once = Once::new();
    if let Lost::Owner(uid, gid) = lost {
        TOLD.call_once(|| {
            warn!(
                "what should belong to {uid}:{gid} belongs to root: chown: {errno}: without \
                 ranges in /etc/subuid and /etc/subgid there are no other users"
            );
        });
        return Ok(());
    }
    Err(errno).context(match lost {
        Lost::Time => "utimensat",
        _ => "setxattr",
    })
}
