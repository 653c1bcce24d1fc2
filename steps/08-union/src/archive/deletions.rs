//! Whiteouts and opaque directories of an archive, and the layer's marks for
//! them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use kit::errno::is;
use rustix::fs::{FileType, Mode, OFlags, mknodat, openat};
use rustix::io::Errno;

use super::layer::Layer;
use super::places::Here;
use super::{Marks, OPAQUE, whited_out, whiteout};
use crate::tree::copy::create;
use crate::tree::node::set_xattr;
use crate::tree::remove::remove_at;
use crate::tree::{Place, file_type, names};

impl Layer<'_> {
    /// Makes the directory of the mark `path` opaque.
    pub(super) fn opaque(&mut self, path: &Path, place: &Place) -> Result<()> {
        let directory = path.parent().unwrap_or(Path::new(""));
        let here = Place {
            directory: place.directory.try_clone().context("dup")?,
            name: ".".into(),
        };
        self.hide_below(directory, &here)
    }

    /// Deletes `path`, whose name is `deleted`. `place` is the place of the
    /// whiteout.
    pub(super) fn whiteout(&mut self, path: &Path, deleted: &OsStr, place: &Place) -> Result<()> {
        // `.wh.` alone, and `.wh...`, would delete a directory itself.
        if deleted.is_empty() || deleted == "." || deleted == ".." {
            bail!("a whiteout without a name: refused");
        }
        let target = Place {
            name: deleted.to_owned(),
            directory: place.directory.try_clone().context("dup")?,
        };
        if self.made.contains(path) {
            // The file of a layer below is meant. A directory would be merged
            // with it.
            return match self.here(path)? {
                Here::Directory => self.hide_below(path, &target),
                _ => Ok(()),
            };
        }
        self.clear(path, &target)?;
        self.hide(path, &target)
    }

    /// Hides the file of the layers below that shows at `path`, where the layer
    /// itself has nothing. If there is none, makes no whiteout: overlay would
    /// show it as a file in a directory that it does not merge.
    pub(super) fn hide(&mut self, path: &Path, place: &Place) -> Result<()> {
        if self.here(path)? == Here::Whiteout || self.shows_through(path)?.is_none() {
            return Ok(());
        }
        self.room.take(0)?;
        match self.marks {
            Marks::Overlay { .. } => mknodat(
                &place.directory,
                &place.name,
                FileType::CharacterDevice,
                Mode::empty(),
                0,
            )
            .with_context(|| format!("mknod({path:?}, S_IFCHR, 0:0)"))?,
            Marks::Aufs => mark(&Place {
                directory: place.directory.try_clone().context("dup")?,
                name: whiteout(&place.name),
            })?,
            Marks::Whole => return Ok(()),
        }
        self.whited_out.insert(path.to_owned());
        Ok(())
    }

    /// Removes the whiteout at `path`, where a new file stands. In overlay the
    /// file has replaced it, but AUFS keeps whiteouts under names of their own.
    pub(super) fn uncover(&mut self, path: &Path, place: &Place) -> Result<()> {
        if self.whited_out.remove(path) && self.marks == Marks::Aufs {
            remove_at(&place.directory, &whiteout(&place.name))?;
        }
        Ok(())
    }

    /// Makes the directory at `place` opaque: hides its content in the layers
    /// below.
    pub(super) fn hide_below(&mut self, path: &Path, place: &Place) -> Result<()> {
        self.last = None;
        self.forget_below(path, place)?;
        match self.marks {
            Marks::Whole => return Ok(()),
            // Overlay and AUFS merge the roots of layers, opaque or not.
            _ if path.as_os_str().is_empty() => return self.hide_names(path),
            Marks::Overlay { opaque } => match set_xattr(place, opaque, b"y") {
                // The file system has no such attributes: tmpfs before Linux 6.6.
                Err(error) if is(&error, &[Errno::NOTSUP]) => return self.hide_names(path),
                set => set?,
            },
            Marks::Aufs => mark(&Place {
                directory: self.tree.directory(path)?,
                name: OPAQUE.into(),
            })?,
        }
        self.opaque.insert(path.to_owned());
        Ok(())
    }

    /// Removes from a directory of the layer what did not come from this
    /// archive: files of a whole tree, whiteouts, files that were copied up.
    fn forget_below(&mut self, path: &Path, place: &Place) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || {
            openat(&place.directory, &place.name, flags, Mode::empty())
                .with_context(|| format!("openat({path:?})"))
        };
        let directory = open()?;
        for name in names(open()?).context("readdir")? {
            if self.marks == Marks::Aufs
                && let Some(deleted) = whited_out(&name)
            {
                if name != OPAQUE {
                    self.whited_out.remove(&path.join(deleted));
                    remove_at(&directory, &name)?;
                }
                continue;
            }
            let path = path.join(&name);
            let place = Place {
                directory: directory.try_clone().context("dup")?,
                name,
            };
            if !self.made.contains(&path) {
                self.clear(&path, &place)?;
            } else if let Some(stat) = self.tree.stat(&path)?
                && file_type(&stat) == FileType::Directory
            {
                // It came with the archive, but its content may be older.
                self.forget_below(&path, &place)?;
            }
        }
        Ok(())
    }

    /// Hides the content of the directory `path` in the layers below name by
    /// name.
    fn hide_names(&mut self, path: &Path) -> Result<()> {
        let mut names = BTreeSet::new();
        for layer in self.below.directory(path)? {
            names.extend(self.below.tree(layer).names(path)?);
        }
        for name in names {
            let path = path.join(name);
            let place = self.tree.place(&path)?;
            match self.here(&path)? {
                Here::Nothing => self.hide(&path, &place)?,
                Here::Directory => self.hide_below(&path, &place)?,
                Here::Whiteout | Here::Symlink | Here::Other => {}
            }
        }
        Ok(())
    }
}

fn mark(place: &Place) -> Result<()> {
    match create(place) {
        Err(error) if is(&error, &[Errno::EXIST]) => Ok(()),
        created => created.map(drop),
    }
}
