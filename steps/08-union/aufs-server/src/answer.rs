//! Answers to the kernel, and how long it may cache them.

use std::time::{Duration, SystemTime};

use fuser::{Errno as Reply, FileAttr, FileType, INodeNo};
use rustix::io::Errno;

/// How long the kernel may cache what nobody else changes: over six months.
pub(super) const ALWAYS: Duration = Duration::from_secs(1 << 24);

/// The answer for a file that does not exist: inode number 0.
pub(super) const NOTHING: FileAttr = FileAttr {
    ino: INodeNo(0),
    size: 0,
    blocks: 0,
    atime: SystemTime::UNIX_EPOCH,
    mtime: SystemTime::UNIX_EPOCH,
    ctime: SystemTime::UNIX_EPOCH,
    crtime: SystemTime::UNIX_EPOCH,
    kind: FileType::RegularFile,
    perm: 0,
    nlink: 0,
    uid: 0,
    gid: 0,
    rdev: 0,
    blksize: 0,
    flags: 0,
};

pub(super) fn errno(errno: Errno) -> Reply {
    Reply::from_i32(errno.raw_os_error())
}

/// Answers a request with the value of a result, or with its errno.
macro_rules! reply {
    ($reply:ident, $result:expr, $value:pat => $answer:expr) => {
        match $result {
            Ok($value) => $answer,
            Err(error) => $reply.error($crate::answer::errno(error)),
        }
    };
}

pub(super) use reply;
