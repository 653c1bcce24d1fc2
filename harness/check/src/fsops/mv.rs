//! Renaming as mv(1) does: what rename(2) refuses is copied.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, lchown, symlink};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use rustix::fs::{XattrFlags, lsetxattr};

use super::picture::xattrs;
use super::time::set_time;

/// Renames by rename(2). A directory for which that fails with `EXDEV` is
/// copied and removed, as mv(1) does. `EMLINK` for a directory with files that
/// have several names: a copy would separate the names.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let is_directory = fs::symlink_metadata(from)?.is_dir();
    if is_directory && has_links(from)? {
        return Err(Errno::EMLINK.into());
    }
    match fs::rename(from, to) {
        Err(error) if error.raw_os_error() == Some(libc::EXDEV) && is_directory => {
            if to.starts_with(from) {
                return Err(Errno::EINVAL.into());
            }
            match fs::symlink_metadata(to) {
                Ok(there) if there.is_dir() => fs::remove_dir(to)?,
                Ok(_) => return Err(Errno::ENOTDIR.into()),
                Err(_) => {}
            }
            copy(from, to)?;
            fs::remove_dir_all(from)
        }
        renamed => renamed,
    }
}

fn has_links(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let metadata = fs::symlink_metadata(&path)?;
        let linked = match metadata.is_dir() {
            true => has_links(&path)?,
            false => metadata.nlink() > 1,
        };
        if linked {
            return Ok(true);
        }
    }
    Ok(false)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    if metadata.is_dir() {
        fs::create_dir(to)?;
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            copy(&from.join(&name), &to.join(&name))?;
        }
    } else if metadata.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
    } else if metadata.is_file() {
        let mut content = Vec::new();
        File::open(from)?.read_to_end(&mut content)?;
        File::create_new(to)?.write_all(&content)?;
    } else {
        mkfifo(to, Mode::S_IRUSR)?;
    }
    lchown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    if !metadata.is_symlink() {
        fs::set_permissions(to, metadata.permissions())?;
    }
    for (name, value) in xattrs(from)? {
        lsetxattr(to, &*name, value.as_bytes(), XattrFlags::empty())?;
    }
    set_time(to, metadata.mtime(), metadata.mtime_nsec())
}
