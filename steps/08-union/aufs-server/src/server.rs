//! The operations that the kernel requests, each in a few lines: their meaning
//! is in the other modules. See fuse(4).

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno as Reply, FileHandle, Filesystem, FopenFlags,
    Generation, INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{OFlags, Statx, fstatvfs, readlinkat};
use rustix::io::Errno;

use crate::Union;
use crate::answer::{ALWAYS, NOTHING, errno, reply};
use crate::attr::{Changes, to_fuse};
use crate::beneath::Result;
use crate::create::Caller;
use crate::file::Opened;
use crate::node::lock;
use crate::options::Udba;
use crate::rename::Name;
use crate::spelling::Rights;
use crate::whiteout;

/// The largest read or write in one request, in bytes.
const MAX_WRITE: u32 = 1 << 20;

/// The union, as the FUSE library calls it.
pub(crate) struct Server(pub(crate) Arc<Union>);

impl Filesystem for Server {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let mut wanted = InitFlags::FUSE_ATOMIC_O_TRUNC
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_ASYNC_DIO
            | InitFlags::FUSE_AUTO_INVAL_DATA;
        let options = &self.0.options;
        if options.udba == Udba::None {
            wanted |= InitFlags::FUSE_CACHE_SYMLINKS;
        }
        if options.acl {
            wanted |= InitFlags::FUSE_POSIX_ACL | InitFlags::FUSE_DONT_MASK;
        }
        // Features that an old kernel lacks are not used.
        let wanted = wanted & config.capabilities();
        config.add_capabilities(wanted).ok();
        // Out of bounds, the library keeps its own value.
        config.set_max_write(MAX_WRITE).ok();
        config.set_max_background(64).ok();
        if options.passthrough && config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok() {
            let stacked = self.0.branches.iter().any(|branch| branch.is_stacked());
            let granted = config.set_max_stack_depth(1 + u32::from(stacked)).is_ok();
            self.0.handles.passthrough.store(granted, Ordering::Relaxed);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let union = &self.0;
        let look = || {
            whiteout::check(name)?;
            let _names = union.read_names();
            let dir = lock(&union.nodes).dir(parent.0)?;
            union.enter(parent.0, name, &union.find(&dir, name)?)
        };
        match look() {
            // Nobody else can make the name, so its absence is cached too.
            Err(Errno::NOENT) if self.0.options.udba == Udba::None => {
                reply.entry(&ALWAYS, &NOTHING, Generation(0));
            }
            found => self.entry(found, reply),
        }
    }

    fn forget(&self, _: &Request, ino: INodeNo, lookups: u64) {
        lock(&self.0.nodes).forget(ino.0, lookups);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply!(reply, self.0.getattr(ino.0), (number, stat) => {
            reply.attr(&self.attr_ttl(ino.0), &to_fuse(number, &stat));
        });
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changes = Changes {
            mode,
            uid,
            gid,
            size,
            atime,
            mtime,
        };
        let changed = self.0.setattr(ino.0, changes);
        let changed = changed.and_then(|()| self.0.getattr(ino.0));
        reply!(reply, changed, (number, stat) => {
            reply.attr(&self.attr_ttl(ino.0), &to_fuse(number, &stat));
        });
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let _names = self.0.read_names();
        let read = || readlinkat(&*self.0.place(ino.0)?, "", Vec::new());
        reply!(reply, read(), target => reply.data(target.as_bytes()));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let caller = Self::caller(request, umask);
        self.entry(self.0.mknod(caller, parent.0, name, mode, rdev), reply);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let caller = Self::caller(request, umask);
        self.entry(self.0.mkdir(caller, parent.0, name, mode), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply!(reply, self.0.unlink(parent.0, name), () => reply.ok());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply!(reply, self.0.rmdir(parent.0, name), () => reply.ok());
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let caller = Self::caller(request, 0);
        self.entry(self.0.symlink(caller, parent.0, name, target), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let from = Name {
            parent: parent.0,
            name,
        };
        let to = Name {
            parent: newparent.0,
            name: newname,
        };
        reply!(reply, self.0.rename(from, to, flags), () => reply.ok());
    }

    fn link(
        &self,
        _: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        self.entry(self.0.link(ino.0, newparent.0, newname), reply);
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let flags = OFlags::from_bits_retain(flags.0 as u32);
        let opened = self.0.open_file(ino.0, flags, &|fd| reply.open_backing(fd));
        reply!(reply, opened, opened => match opened {
            Opened::Passed { handle, backing } => {
                reply.opened_passthrough(FileHandle(handle), FopenFlags::empty(), &backing);
            }
            Opened::Served { handle, keep_cache } => {
                reply.opened(FileHandle(handle), served(keep_cache));
            }
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let caller = Self::caller(request, umask);
        let flags = OFlags::from_bits_retain(flags as u32);
        let register = |fd: std::os::fd::BorrowedFd<'_>| reply.open_backing(fd);
        let created = self
            .0
            .create(caller, parent.0, name, mode, flags, &register);
        reply!(reply, created, (id, stat, opened) => {
            let (_, generation) = self.identity(id);
            let attr = to_fuse(id, &stat);
            let ttl = self.name_ttl();
            match opened {
                Opened::Passed { handle, backing } => {
                    let (handle, none) = (FileHandle(handle), FopenFlags::empty());
                    reply.created_passthrough(&ttl, &attr, generation, handle, none, &backing);
                }
                Opened::Served { handle, .. } => {
                    reply.created(&ttl, &attr, generation, FileHandle(handle), served(false));
                }
            }
        });
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        reply!(reply, self.0.read(fh.0, offset, size as usize), data => reply.data(&data));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply!(reply, self.0.write(fh.0, offset, data), count => reply.written(count as u32));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Nothing is buffered here. After this answer the kernel asks no more.
        reply.error(Reply::ENOSYS);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.0.release(fh.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, fh: FileHandle, data: bool, reply: ReplyEmpty) {
        reply!(reply, self.0.sync(fh.0, data), () => reply.ok());
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        reply!(reply, self.0.allocate(fh.0, mode, offset, length), () => reply.ok());
    }

    fn lseek(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        reply!(reply, self.0.seek(fh.0, offset, whence), at => reply.offset(at as i64));
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        length: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let (from, to) = ((fh_in.0, offset_in), (fh_out.0, offset_out));
        reply!(reply, self.0.copy_range(from, to, length), n => reply.written(n as u32));
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let handle = self.0.handles.add_listing(ino.0);
        reply.opened(FileHandle(handle), FopenFlags::empty());
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let fill = |reply: &mut ReplyDirectory| {
            let listing = self.0.handles.listing(fh.0)?;
            let mut entries = lock(&listing.entries);
            // At the start, and after rewinddir(3).
            if offset == 0 {
                *entries = self.0.list(listing.node)?;
            }
            for (at, entry) in entries.iter().enumerate().skip(offset as usize) {
                if reply.add(INodeNo(entry.ino), at as u64 + 1, entry.kind, &entry.name) {
                    break;
                }
            }
            Ok(())
        };
        reply!(reply, fill(&mut reply), () => reply.ok());
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.0.handles.remove_listing(fh.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply!(reply, self.0.space(), fs => reply.statfs(
            fs.blocks,
            fs.free,
            fs.available,
            fs.files,
            fs.files_free,
            fs.block,
            whiteout::NAME_MAX as u32,
            fs.block,
        ));
    }

    fn setxattr(
        &self,
        _: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        reply!(reply, self.0.setxattr(ino.0, name, value, flags), () => reply.ok());
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        answer_xattr(self.0.getxattr(ino.0, name), size, reply);
    }

    fn listxattr(&self, request: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        answer_xattr(self.0.listxattr(ino.0, request.uid() == 0), size, reply);
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply!(reply, self.0.removexattr(ino.0, name), () => reply.ok());
    }
}

fn served(keep_cache: bool) -> FopenFlags {
    match keep_cache {
        true => FopenFlags::FOPEN_KEEP_CACHE,
        false => FopenFlags::empty(),
    }
}

/// Answers with the value. A `size` of 0 asks for its length; one that is too
/// small is `ERANGE`.
fn answer_xattr(value: Result<Vec<u8>>, size: u32, reply: ReplyXattr) {
    match value {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > size as usize => reply.error(Reply::ERANGE),
        Ok(value) => reply.data(&value),
        Err(error) => reply.error(errno(error)),
    }
}

/// The result of statfs(2), in blocks of `block` bytes.
struct Space {
    block: u32,
    blocks: u64,
    free: u64,
    available: u64,
    files: u64,
    files_free: u64,
}

impl Union {
    /// The space of the first writable branch, else of the first; with `sum`,
    /// of all of them.
    fn space(&self) -> Result<Space> {
        let first = self.writable(self.branches.len()).next().unwrap_or(0);
        let mut space: Option<Space> = None;
        for (index, branch) in self.branches.iter().enumerate() {
            if index != first && !self.options.sum {
                continue;
            }
            let fs = fstatvfs(&branch.root)?;
            let sum = space.get_or_insert(Space {
                block: fs.f_frsize as u32,
                blocks: 0,
                free: 0,
                available: 0,
                files: 0,
                files_free: 0,
            });
            let blocks = |of: u64| of.saturating_mul(fs.f_frsize) / u64::from(sum.block.max(1));
            sum.blocks += blocks(fs.f_blocks);
            sum.free += blocks(fs.f_bfree);
            sum.available += blocks(fs.f_bavail);
            sum.files += fs.f_files;
            sum.files_free += fs.f_ffree;
        }
        space.ok_or(Errno::IO)
    }
}

impl Server {
    /// How long the kernel may cache names.
    fn name_ttl(&self) -> Duration {
        match self.0.options.udba {
            Udba::None => ALWAYS,
            Udba::Reval => Duration::ZERO,
        }
    }

    /// How long the kernel may cache attributes: those of a branch that is
    /// `rr`, always.
    fn attr_ttl(&self, id: u64) -> Duration {
        let union = &self.0;
        let nodes = lock(&union.nodes);
        let branch = nodes.get(id).map(|node| node.key.branch);
        let unchanging = branch.is_ok_and(|b| union.branches[b].access == Rights::Rr);
        match unchanging || union.options.udba == Udba::None {
            true => ALWAYS,
            false => Duration::ZERO,
        }
    }

    fn entry(&self, result: Result<(u64, Statx)>, reply: ReplyEntry) {
        reply!(reply, result, (id, stat) => {
            let (ino, generation) = self.identity(id);
            // If the node's id is not its inode number, only getattr shows the
            // right number, so that nothing is cached.
            let ttl = if ino == id { self.attr_ttl(id) } else { Duration::ZERO };
            let attr = to_fuse(id, &stat);
            reply.entry_with_ttls(&ttl, &self.name_ttl(), &attr, generation);
        });
    }

    fn identity(&self, id: u64) -> (u64, Generation) {
        let nodes = lock(&self.0.nodes);
        let identity = nodes.get(id).map(|node| node.identity);
        identity.map_or((id, Generation(0)), |i| (i.ino, Generation(i.generation)))
    }

    fn caller(request: &Request, umask: u32) -> Caller {
        Caller {
            uid: request.uid(),
            gid: request.gid(),
            umask,
        }
    }
}
