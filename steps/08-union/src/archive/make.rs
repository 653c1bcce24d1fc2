//! The files of an archive, made one by one.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::sys::stat::makedev;
use process::say;
use rustix::fs::{AtFlags, FileType, Mode, linkat, mkdirat, mknodat, symlinkat};
use rustix::io::Errno;

use super::apply::Layer;
use super::entry::{inside, metadata};
use super::places::Missing;
use super::reader::{Entry, EntryType};
use super::{OPAQUE, whited_out};
use crate::tree::copy::create;
use crate::tree::{Place, file_type, is};

impl Layer<'_> {
    /// Makes what an entry stands for. What is there already goes, but a
    /// directory that meets a directory stays.
    pub(super) fn make(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        type_of: EntryType,
        path: &Path,
        place: &Place,
    ) -> Result<()> {
        self.room.take(match type_of {
            EntryType::Regular => entry.size(),
            _ => 0,
        })?;
        let made = match type_of {
            EntryType::Directory => self.directory(path, place)?,
            EntryType::Link => {
                self.link(entry, path, place)?;
                return self.replaced(path, place);
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().context("a link without a target")?;
                let target = OsStr::from_bytes(target);
                self.in_place_of_another(path, place, || {
                    symlinkat(target, &place.directory, &place.name).context("symlink")
                })?;
                FileType::Symlink
            }
            EntryType::Char => FileType::CharacterDevice,
            EntryType::Block => FileType::BlockDevice,
            EntryType::Fifo => FileType::Fifo,
            EntryType::Regular => {
                let mut file = self.in_place_of_another(path, place, || create(place))?;
                self.room.fill(&mut file, entry)?;
                FileType::RegularFile
            }
        };
        if matches!(
            type_of,
            EntryType::Char | EntryType::Block | EntryType::Fifo
        ) && !self.device(entry, path, place, made)?
        {
            return Ok(());
        }
        self.replaced(path, place)?;
        let metadata = metadata(entry, made)?;
        if made == FileType::Directory {
            self.directories.insert(path.to_owned(), metadata);
            return Ok(());
        }
        metadata.write(place)
    }

    /// Calls `make`, and once more when what is in the way has gone.
    fn in_place_of_another<T>(
        &mut self,
        path: &Path,
        place: &Place,
        make: impl Fn() -> Result<T>,
    ) -> Result<T> {
        match make() {
            Err(error) if is(&error, &[Errno::EXIST]) => {
                self.clear(path, place)?;
                make()
            }
            made => made,
        }
    }

    fn directory(&mut self, path: &Path, place: &Place) -> Result<FileType> {
        let make = || mkdirat(&place.directory, &place.name, Mode::RWXU).context("mkdir");
        match make() {
            Err(error) if is(&error, &[Errno::EXIST]) => {
                let stat = self.tree.stat(path)?;
                if stat.is_none_or(|stat| file_type(&stat) != FileType::Directory) {
                    self.clear(path, place)?;
                    make()?;
                }
            }
            made => made?,
        }
        Ok(FileType::Directory)
    }

    fn link(&mut self, entry: &Entry<'_, impl Read>, path: &Path, place: &Place) -> Result<()> {
        let target = entry.link_name_bytes().context("a link without a target")?;
        let target = inside(Path::new(OsStr::from_bytes(target)))?;
        let name = target.file_name().context("a link to a directory")?;
        if name == OPAQUE || whited_out(name).is_some() {
            bail!("a link to the whiteout {target:?}: refused");
        }
        let (first, target) = self
            .find(&target, Missing::Refuse)
            .with_context(|| format!("a link to {target:?}"))?;
        if target == path {
            return Ok(());
        }
        if target.starts_with(path) {
            bail!("a link to {target:?}, which is in it: refused");
        }
        let is_there = self.tree.stat(&target)?;
        if is_there.is_none_or(|stat| file_type(&stat) == FileType::Directory) {
            bail!("a link to {target:?}, which is no file of this archive: refused");
        }
        self.in_place_of_another(path, place, || {
            linkat(
                &first.directory,
                &first.name,
                &place.directory,
                &place.name,
                AtFlags::empty(),
            )
            .with_context(|| format!("link({target:?})"))
        })
    }

    /// Makes a device or a FIFO; false where only root could.
    fn device(
        &mut self,
        entry: &Entry<'_, impl Read>,
        path: &Path,
        place: &Place,
        type_of: FileType,
    ) -> Result<bool> {
        let (major, minor) = entry.device();
        let device = makedev(major.into(), minor.into());
        if type_of == FileType::CharacterDevice && device == 0 {
            bail!("the character device 0:0 is overlay's whiteout, and no device: refused");
        }
        let mode = Mode::RUSR | Mode::WUSR;
        let made = self.in_place_of_another(path, place, || {
            mknodat(&place.directory, &place.name, type_of, mode, device)
                .with_context(|| format!("mknod({path:?}, {type_of:?}, {device:#x})"))
        });
        match made {
            Err(error) if is(&error, &[Errno::PERM]) => {
                // /dev is mounted over in every container anyway.
                say!("{path:?} is left out: making a device takes CAP_MKNOD");
                Ok(false)
            }
            made => made.map(|()| true),
        }
    }
}
