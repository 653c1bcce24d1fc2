//! What the kernel is told, and for how long it may go by that.

use std::time::{Duration, SystemTime};

use fuser::{Errno as Reply, FileAttr, FileType, Generation, INodeNo, ReplyEntry, Request};
use rustix::fs::Statx;
use rustix::io::Errno;

use crate::attr::to_fuse;
use crate::beneath::Result;
use crate::create::Caller;
use crate::node::lock;
use crate::options::Udba;
use crate::server::Server;
use crate::spelling::Access;

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

impl Server {
    /// How long names are good for.
    pub(super) fn name_ttl(&self) -> Duration {
        match self.0.options.udba {
            Udba::None => ALWAYS,
            Udba::Reval => Duration::ZERO,
        }
    }

    /// How long attributes are good for: those of a branch that is really
    /// read-only, always.
    pub(super) fn attr_ttl(&self, id: u64) -> Duration {
        let union = &self.0;
        let nodes = lock(&union.nodes);
        let branch = nodes.get(id).map(|node| node.key.branch);
        let unchanging = branch.is_ok_and(|b| union.branches[b].access == Access::Rr);
        match unchanging || union.options.udba == Udba::None {
            true => ALWAYS,
            false => Duration::ZERO,
        }
    }

    pub(super) fn entry(&self, result: Result<(u64, Statx)>, reply: ReplyEntry) {
        reply!(reply, result, (id, stat) => {
            let (ino, generation) = self.identity(id);
            // A node that is not called by its number shows the right one only
            // when asked, so it must be asked.
            let ttl = if ino == id { self.attr_ttl(id) } else { Duration::ZERO };
            let attr = to_fuse(id, &stat);
            reply.entry_with_ttls(&ttl, &self.name_ttl(), &attr, generation);
        });
    }

    pub(super) fn identity(&self, id: u64) -> (u64, Generation) {
        let nodes = lock(&self.0.nodes);
        let identity = nodes.get(id).map(|node| node.identity);
        identity.map_or((id, Generation(0)), |i| (i.ino, Generation(i.generation)))
    }

    pub(super) fn caller(request: &Request, umask: u32) -> Caller {
        Caller {
            uid: request.uid(),
            gid: request.gid(),
            umask,
        }
    }
}

pub(super) use reply;
