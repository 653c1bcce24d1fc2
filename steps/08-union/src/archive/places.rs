//! The resolution of names of an archive to places of the layer. A name means
//! what it means in the whole stack: a symbolic link of a layer below is
//! followed, and a directory of a layer below is made here with the same
//! metadata.
//!
//! Links on the way are followed in user space, so that `/` and `..` in them
//! end at the layer's root. The resulting place is then opened without
//! following any (openat2(2), `RESOLVE_BENEATH`, `RESOLVE_NO_SYMLINKS`). Nobody
//! else writes to the layer meanwhile; if somebody did, openat2(2) would
//! refuse.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, FileType, Mode, chmodat, mkdirat};
use rustix::process::{getegid, geteuid};

use super::below::Lower;
use super::layer::{Last, Layer};
use super::{Marks, PREFIX};
use crate::tree::node::{Metadata, Xattrs};
use crate::tree::{Place, file_type};

/// The most links in one path, as in the kernel (path_resolution(7)).
const LINKS: usize = 40;

/// The longest name of a file in AUFS, in bytes: its whiteout has to be a name,
/// too.
const AUFS_NAME_MAX: usize = 255 - PREFIX.len();

/// The treatment of directories that do not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// Make them.
    Make,
    /// Fail.
    Refuse,
}

/// What the layer itself has at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Here {
    /// Nothing: the layers below show through.
    Nothing,
    /// A whiteout: the layers below are hidden.
    Whiteout,
    /// A directory, perhaps merged with those below.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Any other file.
    Other,
}

impl Layer<'_> {
    /// Resolves `named`, which is not the root, to its place and its path
    /// without links. The place's directory is in the layer afterwards.
    ///
    /// # Errors
    /// If something on the way is not a directory.
    pub(super) fn find(&mut self, named: &Path, missing: Missing) -> Result<(Place, PathBuf)> {
        let name = named.file_name().context("the root of the layer")?;
        let parent = named.parent().unwrap_or(Path::new(""));
        let last = match self.last.take() {
            Some(last) if last.path == parent => last,
            _ => {
                let path = match self.directories.contains_key(parent) {
                    true => parent.to_owned(),
                    false => self.follow(parent, missing)?,
                };
                Last {
                    directory: self.tree.directory(&path)?,
                    path,
                }
            }
        };
        let place = Place {
            directory: last.directory.try_clone().context("dup")?,
            name: name.to_owned(),
        };
        let path = last.path.join(name);
        // Directories on the way to a path without links are above it, and
        // stay. A link may lead through what the next entry replaces.
        self.last = Some(last).filter(|last| last.path == parent);
        Ok((place, path))
    }

    /// What the layer itself has at `path`.
    pub(super) fn here(&self, path: &Path) -> Result<Here> {
        if self.whited_out.contains(path) {
            return Ok(Here::Whiteout);
        }
        Ok(match self.tree.stat(path)?.map(|stat| file_type(&stat)) {
            None => Here::Nothing,
            Some(FileType::Directory) => Here::Directory,
            Some(FileType::Symlink) => Here::Symlink,
            Some(_) => Here::Other,
        })
    }

    /// The file of the layers below that shows at `path` if the layer itself
    /// has nothing there.
    pub(super) fn shows_through(&mut self, path: &Path) -> Result<Option<Lower>> {
        let mut above = path.ancestors().skip(1);
        if above.any(|directory| self.opaque.contains(directory)) {
            return Ok(None);
        }
        self.below.find(path)
    }

    fn follow(&mut self, named: &Path, missing: Missing) -> Result<PathBuf> {
        let mut names: VecDeque<OsString> = named.iter().map(OsStr::to_owned).collect();
        let mut path = PathBuf::new();
        let mut links = 0;
        self.keep_look(&path)?;
        while let Some(name) = names.pop_front() {
            match name.as_encoded_bytes() {
                b"/" => {
                    path = PathBuf::new();
                    continue;
                }
                b"." => continue,
                b".." => {
                    // The root has no parent: `..` stays there.
                    path.pop();
                    continue;
                }
                bytes if bytes.starts_with(PREFIX.as_bytes()) => {
                    bail!("{name:?} is a whiteout, not a directory: refused")
                }
                _ => path.push(&name),
            }
            let Some(target) = self.descend(&path, missing)? else {
                continue;
            };
            links += 1;
            if links > LINKS {
                bail!("{named:?} goes through more than {LINKS} links: refused");
            }
            path.pop();
            for name in Path::new(&target).iter().rev() {
                names.push_front(name.to_owned());
            }
        }
        Ok(path)
    }

    /// Ensures that the directory `path` is in the layer. If `path` is a
    /// symbolic link, returns its target instead.
    fn descend(&mut self, path: &Path, missing: Missing) -> Result<Option<OsString>> {
        let here = self.here(path)?;
        match here {
            Here::Directory => {
                self.keep_look(path)?;
                return Ok(None);
            }
            Here::Symlink => return self.tree.link(path).map(Some),
            Here::Other => bail!("{path:?} is not a directory"),
            Here::Nothing => {
                if let Some(lower) = self.shows_through(path)? {
                    return self.descend_below(path, &lower);
                }
            }
            Here::Whiteout => {}
        }
        if missing == Missing::Refuse {
            bail!("there is no {path:?}");
        }
        let place = self.tree.place(path)?;
        self.make_directory(path, &place)?;
        self.directories.insert(path.to_owned(), new_look());
        Ok(None)
    }

    fn descend_below(&mut self, path: &Path, lower: &Lower) -> Result<Option<OsString>> {
        let tree = self.below.tree(lower.layer);
        match file_type(&lower.stat) {
            FileType::Directory => {
                let look = Metadata::read(tree, path, &lower.stat)?;
                let place = self.tree.place(path)?;
                self.make_directory(path, &place)?;
                self.directories.insert(path.to_owned(), look);
                Ok(None)
            }
            FileType::Symlink => tree.link(path).map(Some),
            _ => bail!("{path:?} is not a directory"),
        }
    }

    /// Makes a new directory. One that replaces a file or a whiteout hides the
    /// layers below, as these did.
    pub(super) fn make_directory(&mut self, path: &Path, place: &Place) -> Result<()> {
        self.check_name(place)?;
        self.room.take(0)?;
        let hides = match self.here(path)? {
            Here::Nothing | Here::Directory => false,
            Here::Whiteout => true,
            Here::Symlink | Here::Other => {
                let lower = self.shows_through(path)?;
                lower.is_some_and(|lower| file_type(&lower.stat) == FileType::Directory)
            }
        };
        self.in_place_of_another(path, place, || {
            mkdirat(&place.directory, &place.name, Mode::RWXU)
                .with_context(|| format!("mkdir({path:?})"))
        })?;
        self.uncover(path, place)?;
        match hides {
            true => self.hide_below(path, place),
            false => Ok(()),
        }
    }

    /// Records the metadata of a directory before something is put into it, and
    /// gives its owner the rights to do so.
    fn keep_look(&mut self, path: &Path) -> Result<()> {
        if self.directories.contains_key(path) {
            return Ok(());
        }
        let Some(stat) = self.tree.stat(path)? else {
            return Ok(());
        };
        let look = Metadata::read(self.tree, path, &stat)?;
        if Mode::from_raw_mode(look.mode) & Mode::RWXU != Mode::RWXU && !geteuid().is_root() {
            let place = self.tree.place(path)?;
            chmodat(&place.directory, &place.name, Mode::RWXU, AtFlags::empty())
                .with_context(|| format!("chmod({path:?}, 700)"))?;
        }
        self.directories.insert(path.to_owned(), look);
        Ok(())
    }

    /// Refuses a name that the layer's file system could not show.
    pub(super) fn check_name(&self, place: &Place) -> Result<()> {
        let length = place.name.len();
        if self.marks == Marks::Aufs && length > AUFS_NAME_MAX {
            bail!("a name of {length} bytes: AUFS takes {AUFS_NAME_MAX}");
        }
        Ok(())
    }
}

/// The metadata of a directory that the archive does not describe.
fn new_look() -> Metadata {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap_or_default();
    Metadata {
        mode: FileType::Directory.as_raw_mode() | 0o755,
        uid: geteuid().as_raw(),
        gid: getegid().as_raw(),
        mtime: (now.as_secs() as i64, now.subsec_nanos().into()),
        xattrs: Xattrs::new(),
    }
}
