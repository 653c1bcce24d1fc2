//! The operations on files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use rustix::fs::{XattrFlags, lremovexattr, lsetxattr};
use serde::{Deserialize, Serialize};

use super::mv::rename;
use super::time::set_time;
use crate::sys::write_by_mmap;

/// One operation. Paths are relative to the tree.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Op {
    /// open(2) with `O_CREAT | O_TRUNC`, and a write.
    Create { path: String, text: String },
    /// open(2) with `O_CREAT | O_EXCL`.
    CreateNew { path: String },
    /// A write into an existing file.
    Write { path: String, at: u64, text: String },
    /// A write at the end of an existing file.
    Append { path: String, text: String },
    /// truncate(2).
    Truncate { path: String, length: u64 },
    /// A write through a shared mapping.
    Mmap { path: String, at: u64, byte: u8 },
    /// `O_TMPFILE`, a write, and a name by linkat(2). On a file system without
    /// `O_TMPFILE` (`EOPNOTSUPP`): a plain new file.
    TmpFile { path: String, text: String },
    /// rename(2); a directory that cannot be renamed (`EXDEV`) is copied, as
    /// mv(1) does.
    Rename { from: String, to: String },
    /// link(2).
    Link { from: String, to: String },
    /// symlink(2).
    Symlink { target: String, path: String },
    /// unlink(2).
    Unlink { path: String },
    /// rmdir(2).
    Rmdir { path: String },
    /// Removes a directory and everything in it.
    RemoveAll { path: String },
    /// mkdir(2).
    Mkdir { path: String, mode: u32 },
    /// mkfifo(3).
    Fifo { path: String },
    /// chmod(2).
    Chmod { path: String, mode: u32 },
    /// lchown(2).
    Chown { path: String, uid: u32, gid: u32 },
    /// lsetxattr(2).
    SetXattr {
        path: String,
        name: String,
        value: String,
    },
    /// lremovexattr(2).
    RemoveXattr { path: String, name: String },
    /// utimensat(2): seconds since 1970.
    Times { path: String, seconds: i64 },
}

/// Runs the operations in `directory`, one after the other, and returns the
/// result of each: `ok` or the name of the errno.
pub fn run(directory: &Path, ops: &[Op]) -> Vec<String> {
    ops.iter()
        .map(|op| match one(directory, op) {
            Ok(()) => "ok".to_owned(),
            Err(error) => match error.raw_os_error() {
                Some(errno) => format!("{:?}", Errno::from_raw(errno)),
                None => error.to_string(),
            },
        })
        .collect()
}

fn one(dir: &Path, op: &Op) -> io::Result<()> {
    match op {
        Op::Create { path, text } => {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(dir.join(path))?;
            file.write_all(text.as_bytes())
        }
        Op::CreateNew { path } => File::create_new(dir.join(path)).map(drop),
        Op::Write { path, at, text } => {
            writable(&dir.join(path))?.write_all_at(text.as_bytes(), *at)
        }
        Op::Append { path, text } => {
            let mut file = OpenOptions::new()
                .append(true)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(dir.join(path))?;
            regular(&file)?;
            file.write_all(text.as_bytes())
        }
        Op::Truncate { path, length } => writable(&dir.join(path))?.set_len(*length),
        Op::Mmap { path, at, byte } => {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(dir.join(path))?;
            regular(&file)?;
            Ok(write_by_mmap(&file, *at as usize, *byte)?)
        }
        Op::TmpFile { path, text } => tmp_file(&dir.join(path), text),
        Op::Rename { from, to } => rename(&dir.join(from), &dir.join(to)),
        Op::Link { from, to } => fs::hard_link(dir.join(from), dir.join(to)),
        Op::Symlink { target, path } => symlink(target, dir.join(path)),
        Op::Unlink { path } => fs::remove_file(dir.join(path)),
        Op::Rmdir { path } => fs::remove_dir(dir.join(path)),
        Op::RemoveAll { path } => fs::remove_dir_all(dir.join(path)),
        Op::Mkdir { path, mode } => fs::DirBuilder::new().mode(*mode).create(dir.join(path)),
        Op::Fifo { path } => Ok(mkfifo(&dir.join(path), Mode::S_IRUSR)?),
        Op::Chmod { path, mode } => {
            let path = dir.join(path);
            // chmod(2) would follow a symbolic link.
            if fs::symlink_metadata(&path)?.is_symlink() {
                return Err(Errno::ELOOP.into());
            }
            fs::set_permissions(path, fs::Permissions::from_mode(*mode))
        }
        Op::Chown { path, uid, gid } => lchown(dir.join(path), Some(*uid), Some(*gid)),
        Op::SetXattr { path, name, value } => Ok(lsetxattr(
            dir.join(path),
            name,
            value.as_bytes(),
            XattrFlags::empty(),
        )?),
        Op::RemoveXattr { path, name } => Ok(lremovexattr(dir.join(path), name)?),
        Op::Times { path, seconds } => set_time(&dir.join(path), *seconds, 0),
    }
}

fn writable(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    regular(&file)?;
    Ok(file)
}

fn regular(file: &File) -> io::Result<()> {
    match file.metadata()?.is_file() {
        true => Ok(()),
        false => Err(Errno::ESPIPE.into()),
    }
}

fn tmp_file(path: &Path, text: &str) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .mode(0o640)
        .open(parent);
    match opened {
        Ok(mut file) => {
            file.write_all(text.as_bytes())?;
            let by = format!("/proc/self/fd/{}", file.as_raw_fd());
            rustix::fs::linkat(
                rustix::fs::CWD,
                by,
                rustix::fs::CWD,
                path,
                rustix::fs::AtFlags::SYMLINK_FOLLOW,
            )?;
            Ok(())
        }
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o640)
                .open(path)?;
            file.write_all(text.as_bytes())
        }
        Err(error) => Err(error),
    }
}
