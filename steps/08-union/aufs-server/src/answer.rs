//! What the kernel is told, and for how long it may go by that.

use std::time::{Duration, SystemTime};

use fuser::{Errno as Reply, FileAttr, FileType, INodeNo};
use rustix::io::Errno;

/// How long the kernel may go by what it was told where nobody else changes
/// anything: as good as for ever.
pub(super) const ALWAYS: Duration = Duration::from_secs(1 << 24);

/// The answer that there is no such file: the number 0.
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

/// Answers with the value, or with the errno.
macro_rules! reply {
    ($reply:ident, $result:expr, $value:pat => $answer:expr) => {
        match $result {
            Ok($value) => $answer,
            Err(error) => $reply.error($crate::answer::errno(error)),
        }
    };
}

pub(super) use reply;
