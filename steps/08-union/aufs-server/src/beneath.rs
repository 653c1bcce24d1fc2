//! Opening of files by directory descriptor, so that no path ever leaves a
//! branch: openat2(2) with `RESOLVE_BENEATH` and without symbolic links or
//! mounts on the way.

use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use fuser::FileType;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Statx, StatxFlags, openat2, statx};
use rustix::io::Errno;

/// The result of a file system operation: a value, or the errno for the caller
/// of the system call.
pub(crate) type Result<T> = std::result::Result<T, Errno>;

/// The longest path to open at once, in bytes. It is well under `PATH_MAX`,
/// which limits one system call, not a file system: longer paths are walked in
/// pieces.
const PIECE: usize = 3800;

/// Opens the file at `path`, which is relative to `root` and has no `..`. A
/// symbolic link at its end is opened itself with `O_PATH`, and is `ELOOP`
/// otherwise.
///
/// # Errors
/// `EXDEV` at a mount point inside the branch, `ELOOP` at a symbolic link that
/// has replaced a directory on the way.
pub(crate) fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() <= PIECE {
        return open_piece(root, path, flags);
    }
    let Some(cut) = bytes[..PIECE].iter().rposition(|&byte| byte == b'/') else {
        return Err(Errno::NAMETOOLONG);
    };
    let (start, rest) = (&bytes[..cut], &bytes[cut + 1..]);
    let middle = open_piece(root, Path::new(OsStr::from_bytes(start)), DIRECTORY)?;
    open(middle.as_fd(), Path::new(OsStr::from_bytes(rest)), flags)
}

/// The flags for a directory that is only a starting point for further calls.
pub(crate) const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);

fn open_piece(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd> {
    let path = match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    };
    let beneath = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    loop {
        match openat2(root, path, flags, Mode::empty(), beneath) {
            // A rename happened at the same time (openat2(2)).
            Err(Errno::AGAIN) if !flags.contains(OFlags::NONBLOCK) => {}
            opened => return opened,
        }
    }
}

/// The attributes of `name` in a directory; of a symbolic link, its own.
pub(crate) fn stat_at(dir: &OwnedFd, name: &OsStr) -> Result<Statx> {
    statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, WANTED)
}

/// The attributes of the file of a descriptor, `O_PATH` or not.
pub(crate) fn stat_fd(fd: impl AsFd) -> Result<Statx> {
    statx(fd, c"", AtFlags::EMPTY_PATH, WANTED)
}

const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// Turns `ENOENT` and `ENOTDIR` into `None`; every other error stays one.
pub(crate) fn optional<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The path of a descriptor's file for calls that take no `O_PATH` descriptor
/// (chmod(2), setxattr(2)). It leads to that very file, even to a symbolic
/// link: proc_pid_fd(5).
pub(crate) fn magic(fd: &impl AsRawFd) -> PathBuf {
    let mut text = Vec::with_capacity(24);
    // Writing to memory does not fail.
    if write!(text, "/proc/self/fd/{}", fd.as_raw_fd()).is_err() {
        return PathBuf::new();
    }
    PathBuf::from(OsStr::from_bytes(&text))
}

/// The type of a file.
pub(crate) fn kind(stat: &Statx) -> FileType {
    match rustix::fs::FileType::from_raw_mode(stat.stx_mode.into()) {
        rustix::fs::FileType::Directory => FileType::Directory,
        rustix::fs::FileType::Symlink => FileType::Symlink,
        rustix::fs::FileType::Fifo => FileType::NamedPipe,
        rustix::fs::FileType::Socket => FileType::Socket,
        rustix::fs::FileType::CharacterDevice => FileType::CharDevice,
        rustix::fs::FileType::BlockDevice => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}
