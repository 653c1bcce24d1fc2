//! Whiteouts and opaque directories of an archive, as the layer marks them.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{FileType, Mode, OFlags, mknodat, openat};
use rustix::io::Errno;

use super::apply::Layer;
use super::{Marks, OPAQUE, whiteout};
use crate::tree::copy::create;
use crate::tree::node::set_xattr;
use crate::tree::remove::remove_at;
use crate::tree::{Place, file_type, is, names};

impl Layer<'_> {
    /// The mark at `path` is for the directory that it is in.
    pub(super) fn opaque(&mut self, path: &Path, place: &Place) -> Result<()> {
        let directory = path.parent().unwrap_or(Path::new(""));
        let here = Place {
            directory: place.directory.try_clone().context("dup")?,
            name: ".".into(),
        };
        self.hide_below(directory, &here)
    }

    /// `path`, at `place` but for the name, is not there any more.
    pub(super) fn whiteout(&mut self, path: &Path, deleted: &OsStr, place: &Place) -> Result<()> {
        // `.wh.` alone, and `.wh...`, would take away a directory itself.
        if deleted.is_empty() || deleted == "." || deleted == ".." {
            bail!("a whiteout of no name: refused");
        }
        let target = Place {
            name: deleted.to_owned(),
            directory: place.directory.try_clone().context("dup")?,
        };
        self.whited_out.insert(path.to_owned());
        if self.made.contains(path) {
            // The one below was meant. Of a directory it would show through.
            let stat = self.tree.stat(path)?;
            let is_directory = stat.is_some_and(|stat| file_type(&stat) == FileType::Directory);
            return match is_directory {
                true => self.hide_below(path, &target),
                false => Ok(()),
            };
        }
        self.clear(path, &target)?;
        self.room.take(0)?;
        match self.marks {
            Marks::Overlay { .. } => mknodat(
                &target.directory,
                deleted,
                FileType::CharacterDevice,
                Mode::empty(),
                0,
            )
            .with_context(|| format!("mknod({deleted:?}, S_IFCHR, 0:0)")),
            Marks::Aufs => mark(place),
            Marks::Whole => Ok(()),
        }
    }

    /// A new directory stands where this archive has whited out an old one: what
    /// was in that must not show through. A whiteout in its place is gone
    /// already, but AUFS keeps it under a name of its own.
    pub(super) fn replaced(&mut self, path: &Path, place: &Place) -> Result<()> {
        if !self.whited_out.contains(path) {
            return Ok(());
        }
        if self.marks == Marks::Aufs {
            remove_at(&place.directory, &whiteout(&place.name))?;
        }
        let stat = self.tree.stat(path)?;
        match stat.is_some_and(|stat| file_type(&stat) == FileType::Directory) {
            true => self.hide_below(path, place),
            false => Ok(()),
        }
    }

    /// Of the directory at `place` nothing that is below is seen.
    fn hide_below(&mut self, path: &Path, place: &Place) -> Result<()> {
        match self.marks {
            // Overlay merges the roots of its layers whatever they are marked.
            Marks::Overlay { .. } if path.as_os_str().is_empty() => {
                self.by_name.insert(path.to_owned());
                Ok(())
            }
            Marks::Overlay { opaque } => match set_xattr(place, opaque, b"y") {
                // The file system has no such attributes: tmpfs before Linux 6.6.
                Err(error) if is(&error, &[Errno::NOTSUP]) => {
                    self.by_name.insert(path.to_owned());
                    Ok(())
                }
                set => set,
            },
            Marks::Aufs => mark(&Place {
                directory: self.tree.directory(path)?,
                name: OPAQUE.into(),
            }),
            Marks::Whole => self.forget_below(path, place),
        }
    }

    /// Removes what the layers below have put into a directory.
    fn forget_below(&mut self, path: &Path, place: &Place) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || {
            openat(&place.directory, &place.name, flags, Mode::empty())
                .with_context(|| format!("openat({path:?})"))
        };
        let directory = open()?;
        for name in names(open()?).context("readdir")? {
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
                // It came with the archive, what is in it may have been there.
                self.forget_below(&path, &place)?;
            }
        }
        Ok(())
    }

    /// Marks name by name that of the directory `path` nothing of the layers
    /// below is seen.
    pub(super) fn hide_names(&mut self, path: &Path) -> Result<()> {
        for tree in self.below {
            match tree.stat(path)?.map(|stat| file_type(&stat)) {
                None => continue,
                Some(FileType::Directory) => {}
                // What is further down does not show through this one.
                Some(_) => break,
            }
            for name in tree.names(path)? {
                let path = path.join(&name);
                let place = self.tree.place(&path)?;
                if !self.made.contains(&path) {
                    self.whiteout(&path, &name, &place)?;
                } else if let Some(stat) = self.tree.stat(&path)?
                    && file_type(&stat) == FileType::Directory
                {
                    self.hide_below(&path, &place)?;
                }
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
