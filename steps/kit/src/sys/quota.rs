//! Project quotas: a number on a directory, which everything that is made in it
//! inherits, and a limit of bytes for all files with the number. quotactl(2),
//! `linux/fs.h`, `linux/dqblk_xfs.h`.

use std::mem::zeroed;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

const FS_IOC_FSGETXATTR: libc::c_ulong = 0x801c_581f;
const FS_IOC_FSSETXATTR: libc::c_ulong = 0x401c_5820;
/// What is made in the directory gets its project.
const FS_XFLAG_PROJINHERIT: u32 = 0x200;

/// `PRJQUOTA`: quotas of projects, not of users or groups.
const PROJECTS: u32 = 2;
const Q_GETQUOTA: u32 = 0x0080_0007;
const Q_SETQUOTA: u32 = 0x0080_0008;
const Q_XGETQSTATV: u32 = 0x5808;
/// `QIF_BLIMITS`: the limits of space are set, no others.
const QIF_BLIMITS: u32 = 1;
/// `FS_QUOTA_PDQ_ENFD`: limits of projects are enforced, not only counted.
const FS_QUOTA_PDQ_ENFD: u16 = 1 << 5;

/// `struct fsxattr`.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    unused: [u8; 8],
}

/// `struct fs_quota_statv`.
#[repr(C)]
#[derive(Default)]
struct State {
    version: i8,
    unused_1: u8,
    flags: u16,
    in_memory: u32,
    /// Three of `struct fs_qfilestatv`, and the limits of time.
    rest: [u64; 19],
}

/// What a project has, and may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProjectUsage {
    /// The bytes that its files take.
    pub used: u64,
    /// The bytes that they may take; 0 for no limit.
    pub limit: u64,
}

/// The project of a file or directory; 0 for none.
///
/// # Errors
/// `ENOTTY` or `EOPNOTSUPP` if the file system has no projects.
pub fn project(of: BorrowedFd<'_>) -> nix::Result<u32> {
    attributes(of).map(|attributes| attributes.project)
}

fn attributes(of: BorrowedFd<'_>) -> nix::Result<Attributes> {
    let mut attributes = Attributes::default();
    // SAFETY: the kernel fills the structure, which has the layout of its header.
    let done = unsafe { libc::ioctl(of.as_raw_fd(), FS_IOC_FSGETXATTR as _, &mut attributes) };
    Errno::result(done)?;
    Ok(attributes)
}

/// Gives a directory a project, which everything that is made in it inherits.
///
/// # Errors
/// As [`project`]; `EINVAL` in a user namespace that is not the first, or if the
/// file system was made without projects.
pub fn set_project(directory: BorrowedFd<'_>, project: u32) -> nix::Result<()> {
    let mut attributes = attributes(directory)?;
    attributes.project = project;
    attributes.flags |= FS_XFLAG_PROJINHERIT;
    // SAFETY: the kernel reads the structure, which has the layout of its header.
    let done = unsafe { libc::ioctl(directory.as_raw_fd(), FS_IOC_FSSETXATTR as _, &attributes) };
    Errno::result(done).map(drop)
}

/// Whether the file system of `on` stops a project at its limit. One that is
/// mounted without `prjquota` may take limits, and not heed them.
///
/// # Errors
/// `ENOSYS` before Linux 5.14 (`quotactl_fd`), and if the file system has no
/// quotas.
pub fn enforces_projects(on: BorrowedFd<'_>) -> nix::Result<bool> {
    let mut state = State {
        version: 1,
        ..State::default()
    };
    // SAFETY: the kernel fills the structure, which has the layout of its header.
    unsafe { quotactl(on, Q_XGETQSTATV, 0, (&raw mut state).cast()) }?;
    Ok(state.flags & FS_QUOTA_PDQ_ENFD != 0)
}

/// What a project has on the file system of `on`, and may have.
///
/// # Errors
/// As [`enforces_projects`]; `EPERM` without `CAP_SYS_ADMIN`.
pub fn project_usage(on: BorrowedFd<'_>, project: u32) -> nix::Result<ProjectUsage> {
    // SAFETY: of integers only, of which 0 is a valid value.
    let mut usage: libc::dqblk = unsafe { zeroed() };
    // SAFETY: the kernel fills the structure, which has the layout of its header.
    match unsafe { quotactl(on, Q_GETQUOTA, project, (&raw mut usage).cast()) } {
        Ok(()) => Ok(ProjectUsage {
            used: usage.dqb_curspace,
            limit: usage.dqb_bhardlimit << 10,
        }),
        // XFS says so of one that it has never seen.
        Err(Errno::ENOENT) => Ok(ProjectUsage::default()),
        Err(errno) => Err(errno),
    }
}

/// Sets the bytes that a project may have, in steps of 1024; 0 for no limit.
///
/// # Errors
/// As [`project_usage`]; `ESRCH` if the file system has no quotas of projects.
pub fn limit_project(on: BorrowedFd<'_>, project: u32, bytes: u64) -> nix::Result<()> {
    // SAFETY: of integers only, of which 0 is a valid value.
    let mut limit: libc::dqblk = unsafe { zeroed() };
    limit.dqb_bhardlimit = bytes >> 10;
    limit.dqb_valid = QIF_BLIMITS;
    // SAFETY: the kernel reads the structure, which has the layout of its header.
    unsafe { quotactl(on, Q_SETQUOTA, project, (&raw mut limit).cast()) }
}

/// # Safety
/// `data` points to what the command reads or writes.
unsafe fn quotactl(
    on: BorrowedFd<'_>,
    command: u32,
    project: u32,
    data: *mut libc::c_void,
) -> nix::Result<()> {
    let command = command << 8 | PROJECTS;
    // SAFETY: the caller's.
    let done = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            on.as_raw_fd(),
            command,
            project,
            data,
        )
    };
    Errno::result(done).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<Attributes>(), 28);
        assert_eq!(size_of::<State>(), 160);
    }
}
