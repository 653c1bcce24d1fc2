//! Creation of the files of an archive, one by one.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use kit::errno::is;
use kit::say;
use nix::sys::stat::makedev;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, linkat, mknodat, openat, symlinkat};
use rustix::io::Errno;

use super::entry::{inside, metadata};
use super::layer::{Layer, Plink};
use super::places::{Here, Missing};
use super::reader::{Entry, EntryType};
use super::{OPAQUE, PLINKS, whited_out};
use crate::tree::copy::create;
use crate::tree::{Place, file_type};

impl Layer<'_> {
    /// Makes the file of an entry, in place of what is there. A directory in
    /// place of a directory changes only its metadata.
    pub(super) fn make(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        type_of: EntryType,
        path: &Path,
        place: &Place,
    ) -> Result<()> {
        self.check_name(place)?;
        self.room.take(match type_of {
            EntryType::Regular => entry.size(),
            _ => 0,
        })?;
        let made = match type_of {
            EntryType::Directory => {
                if self.here(path)? != Here::Directory {
                    self.make_directory(path, place)?;
                }
                FileType::Directory
            }
            EntryType::Link => {
                self.link(entry, path, place)?;
                return self.uncover(path, place);
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
            return self.hide(path, place);
        }
        self.uncover(path, place)?;
        let metadata = metadata(entry, made)?;
        if made == FileType::Directory {
            self.directories.insert(path.to_owned(), metadata);
            return Ok(());
        }
        metadata.write(place)
    }

    /// Calls `make`; if that fails with `EEXIST`, removes what is in the way
    /// and calls it again.
    pub(super) fn in_place_of_another<T>(
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

    fn link(&mut self, entry: &Entry<'_, impl Read>, path: &Path, place: &Place) -> Result<()> {
        let target = entry.link_name_bytes().context("a link without a target")?;
        let target = inside(Path::new(OsStr::from_bytes(target)))?;
        let name = target.file_name().context("a link to a directory")?;
        if target.starts_with(PLINKS) {
            return self.link_plink(name, path, place);
        }
        if name == OPAQUE || whited_out(name).is_some() {
            bail!("a link to the whiteout {target:?}: refused");
        }
        let (first, target) = self
            .find(&target, Missing::Refuse)
            .with_context(|| format!("a link to {target:?}"))?;
        if target.starts_with(path) && target != path {
            bail!("a link to {target:?}, which is in it: refused");
        }
        let is_file = match self.here(&target)? {
            Here::Symlink | Here::Other => true,
            Here::Directory | Here::Whiteout => false,
            Here::Nothing => match self.shows_through(&target)? {
                Some(lower) if file_type(&lower.stat) != FileType::Directory => {
                    self.copy_up(&target, &first, &lower)?;
                    true
                }
                _ => false,
            },
        };
        if !is_file {
            bail!("a link to {target:?}, which is not a file: refused");
        }
        if target == path {
            return Ok(());
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

    /// Keeps a file of AUFS's directory of files with several names, for links
    /// to it. It has no name in the tree yet (`O_TMPFILE`).
    pub(super) fn keep_plink(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        path: &Path,
    ) -> Result<()> {
        self.room.take(entry.size())?;
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let mut file = openat(self.tree.root(), ".", flags, Mode::RUSR | Mode::WUSR)
            .map(File::from)
            .context("open(O_TMPFILE)")?;
        self.room.fill(&mut file, entry)?;
        let look = metadata(entry, FileType::RegularFile)?;
        let name = path.file_name().context("a file without a name")?;
        self.plinks.insert(name.to_owned(), Plink { file, look });
        Ok(())
    }

    fn link_plink(&mut self, name: &OsStr, path: &Path, place: &Place) -> Result<()> {
        let Some(plink) = self.plinks.remove(name) else {
            bail!("a link to {PLINKS}/{}, which is not there", name.display());
        };
        let file = format!("/proc/self/fd/{}", plink.file.as_raw_fd());
        self.in_place_of_another(path, place, || {
            let (directory, name) = (&place.directory, &place.name);
            linkat(CWD, &*file, directory, name, AtFlags::SYMLINK_FOLLOW)
                .with_context(|| format!("link({path:?})"))
        })?;
        plink.look.write(place)?;
        self.plinks.insert(name.to_owned(), plink);
        Ok(())
    }

    /// Makes a device or a FIFO. Returns false if only root could, and for the
    /// character device 0:0, overlay's whiteout: in a file system that another
    /// engine keeps, such as an image of an engine.
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
            self.null_devices += 1;
            self.clear(path, place)?;
            return Ok(false);
        }
        let mode = Mode::RUSR | Mode::WUSR;
        let made = self.in_place_of_another(path, place, || {
            mknodat(&place.directory, &place.name, type_of, mode, device)
                .with_context(|| format!("mknod({path:?}, {type_of:?}, {device:#x})"))
        });
        match made {
            Err(error) if is(&error, &[Errno::PERM]) => {
                // /dev is mounted over in every container anyway.
                say!("{path:?} is skipped: creating a device needs CAP_MKNOD");
                Ok(false)
            }
            made => made.map(|()| true),
        }
    }
}
