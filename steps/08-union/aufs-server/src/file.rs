//! Open files: read and written past this server if the kernel supports it
//! (`FUSE_PASSTHROUGH`, since Linux 6.9), else through it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fuser::{BackingId, FileType};
use rustix::fs::{FallocateFlags, OFlags, SeekFrom, fallocate, fdatasync, fsync, seek};
use rustix::io::{Errno, pread, pwrite};

use crate::Union;
use crate::attr::reopen;
use crate::beneath::{Result, stat_fd};
use crate::node::{Io, lock};

/// How the kernel uses an open file.
pub(crate) enum Opened {
    /// Through this server. `keep_cache`: what the kernel has cached of it is
    /// still valid.
    Served { handle: u64, keep_cache: bool },
    /// Past this server (passthrough).
    Passed {
        handle: u64,
        backing: Arc<BackingId>,
    },
}

/// A function that registers a file with the kernel for passthrough.
pub(crate) type Register<'a> = &'a dyn Fn(BorrowedFd<'_>) -> std::io::Result<BackingId>;

/// The flags that apply to the file in the branch.
const KEPT: OFlags = OFlags::ACCMODE
    .union(OFlags::APPEND)
    .union(OFlags::NONBLOCK)
    .union(OFlags::DSYNC)
    .union(OFlags::SYNC)
    .union(OFlags::TRUNC);

impl Union {
    /// Opens a file, after copy_up if it is to be changed.
    ///
    /// # Errors
    /// `ESTALE` if the original is still open past this server: the kernel then
    /// looks the name up again and gets another node.
    pub(crate) fn open_file(
        &self,
        id: u64,
        flags: OFlags,
        register: Register<'_>,
    ) -> Result<Opened> {
        let truncate = flags.contains(OFlags::TRUNC);
        if truncate || flags.intersects(OFlags::WRONLY | OFlags::RDWR) {
            self.copy_up(id, truncate.then_some(0))?;
        }
        let _names = self.read_names();
        let place = self.place(id)?;
        let fd = reopen(&place, flags & KEPT)?;
        self.opened(id, flags, fd, register)
    }

    /// Records an open file, and decides how the kernel uses it.
    pub(crate) fn opened(
        &self,
        id: u64,
        flags: OFlags,
        fd: OwnedFd,
        register: Register<'_>,
    ) -> Result<Opened> {
        let stat = stat_fd(&fd)?;
        let mut nodes = lock(&self.nodes);
        let node = nodes.get_mut(id)?;
        let io = match &node.io {
            Io::Passed(_, key) if *key != node.key => return Err(Errno::STALE),
            Io::Closed => self
                .passthrough(node.kind, &fd, register)
                .map_or(Io::Served, |backing| {
                    Io::Passed(Arc::new(backing), node.key)
                }),
            open => open.clone(),
        };
        let seen = (stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec, stat.stx_size);
        let keep_cache = node.seen.replace(seen) == Some(seen);
        nodes.opened(id, io.clone())?;
        drop(nodes);
        let handle = self.handles.add(id, flags & KEPT & !OFlags::TRUNC, fd);
        Ok(match io {
            Io::Passed(backing, _) => Opened::Passed { handle, backing },
            _ => Opened::Served { handle, keep_cache },
        })
    }

    fn passthrough(
        &self,
        kind: FileType,
        fd: &OwnedFd,
        register: Register<'_>,
    ) -> Option<BackingId> {
        let wanted = &self.handles.passthrough;
        if kind != FileType::RegularFile || !wanted.load(Ordering::Relaxed) {
            return None;
        }
        // EPERM: the server has no CAP_SYS_ADMIN on the host, which applies to
        // every other file too. ELOOP: the branch itself is too deeply stacked.
        let registered = register(fd.as_fd());
        if registered
            .as_ref()
            .is_err_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied)
        {
            wanted.store(false, Ordering::Relaxed);
        }
        registered.ok()
    }

    /// Closes a file.
    pub(crate) fn release(&self, handle: u64) {
        if let Some(file) = self.handles.remove(handle) {
            lock(&self.nodes).closed(file.node);
        }
    }

    /// Reads up to `size` bytes: fewer only at the end of the file, or before
    /// an error.
    pub(crate) fn read(&self, handle: u64, offset: u64, size: usize) -> Result<Vec<u8>> {
        let fd = self.handles.get(handle)?.fd();
        let mut data = vec![0; size];
        let mut filled = 0;
        while filled < size {
            match pread(&*fd, &mut data[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(_) if filled > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        data.truncate(filled);
        Ok(data)
    }

    /// Writes, and returns the number of bytes: fewer than asked for only
    /// before an error, such as a full file system.
    pub(crate) fn write(&self, handle: u64, offset: u64, data: &[u8]) -> Result<usize> {
        let fd = self.handles.get(handle)?.fd();
        let mut written = 0;
        while written < data.len() {
            match pwrite(&*fd, &data[written..], offset + written as u64) {
                Ok(0) => break,
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(_) if written > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(written)
    }

    /// Writes a file to the disk: fsync(2), or fdatasync(2).
    pub(crate) fn sync(&self, handle: u64, data_only: bool) -> Result<()> {
        let fd = self.handles.get(handle)?.fd();
        match data_only {
            true => fdatasync(&*fd),
            false => fsync(&*fd),
        }
    }

    /// Allocates or frees space: fallocate(2).
    pub(crate) fn allocate(&self, handle: u64, mode: i32, offset: u64, length: u64) -> Result<()> {
        let fd = self.handles.get(handle)?.fd();
        let mode = FallocateFlags::from_bits_retain(mode as u32);
        fallocate(&*fd, mode, offset, length)
    }

    /// Finds data or holes: lseek(2) with `SEEK_DATA` or `SEEK_HOLE`.
    ///
    /// # Errors
    /// `ENXIO` beyond the end.
    pub(crate) fn seek(&self, handle: u64, offset: i64, whence: i32) -> Result<u64> {
        let fd = self.handles.get(handle)?.fd();
        let from = u64::try_from(offset).map_err(|_| Errno::NXIO)?;
        match whence {
            libc::SEEK_DATA => seek(&*fd, SeekFrom::Data(from)),
            libc::SEEK_HOLE => seek(&*fd, SeekFrom::Hole(from)),
            _ => Err(Errno::INVAL),
        }
    }

    /// Copies between two open files inside the kernel: copy_file_range(2).
    pub(crate) fn copy_range(
        &self,
        (from, mut read): (u64, u64),
        (to, mut written): (u64, u64),
        length: u64,
    ) -> Result<usize> {
        let (from, to) = (self.handles.get(from)?.fd(), self.handles.get(to)?.fd());
        // A reply has 32 bits for the length.
        let length = length.min(1 << 30) as usize;
        rustix::fs::copy_file_range(&*from, Some(&mut read), &*to, Some(&mut written), length)
    }
}
