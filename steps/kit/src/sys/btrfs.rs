//! Subvolumes of a btrfs, and their limits: the ioctl(2) requests of `linux/btrfs.h`.
//!
//! libbtrfsutil has them too, but it is a C library that would have to be
//! linked statically, and the program `btrfs` would be a process for each call.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

const BTRFS_IOC_SUBVOL_CREATE: libc::c_ulong = 0x5000_940e;
const BTRFS_IOC_SNAP_DESTROY: libc::c_ulong = 0x5000_940f;
const BTRFS_IOC_SNAP_CREATE_V2: libc::c_ulong = 0x5000_9417;
const BTRFS_IOC_INO_LOOKUP: libc::c_ulong = 0xd000_9412;
const BTRFS_IOC_QUOTA_CTL: libc::c_ulong = 0xc010_9428;
const BTRFS_IOC_QGROUP_CREATE: libc::c_ulong = 0x4010_942a;
const BTRFS_IOC_QGROUP_LIMIT: libc::c_ulong = 0x8030_942b;
const BTRFS_IOC_QUOTA_RESCAN_WAIT: libc::c_ulong = 0x942e;

const BTRFS_QUOTA_CTL_ENABLE: u64 = 1;
/// The limit counts what the subvolume shares with no other.
const BTRFS_QGROUP_LIMIT_MAX_EXCL: u64 = 1 << 1;
/// The inode of a subvolume's root (`BTRFS_FIRST_FREE_OBJECTID`).
const ROOT_INODE: u64 = 256;

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct VolArgs {
    fd: i64,
    name: [u8; 4088],
}

/// `struct btrfs_ioctl_vol_args_v2`.
#[repr(C)]
struct VolArgsV2 {
    fd: i64,
    transid: u64,
    flags: u64,
    unused: [u64; 4],
    name: [u8; 4040],
}

/// `struct btrfs_ioctl_qgroup_limit_args`.
#[repr(C)]
struct LimitArgs {
    qgroup: u64,
    flags: u64,
    max_referenced: u64,
    max_exclusive: u64,
    reserved: [u64; 2],
}

/// `struct btrfs_ioctl_ino_lookup_args`.
#[repr(C)]
struct LookupArgs {
    tree: u64,
    inode: u64,
    name: [u8; 4080],
}

fn fill(buffer: &mut [u8], name: &str) -> nix::Result<()> {
    // A NUL has to follow the name.
    if name.len() >= buffer.len() || name.contains('\0') {
        return Err(Errno::EINVAL);
    }
    buffer[..name.len()].copy_from_slice(name.as_bytes());
    Ok(())
}

fn by_name(directory: BorrowedFd<'_>, request: libc::c_ulong, name: &str) -> nix::Result<()> {
    let mut args = VolArgs {
        fd: 0,
        name: [0; 4088],
    };
    fill(&mut args.name, name)?;
    // SAFETY: the kernel reads the structure, which has the layout of its header.
    let done = unsafe { libc::ioctl(directory.as_raw_fd(), request as _, &args) };
    Errno::result(done).map(drop)
}

/// Creates the empty subvolume `name` in `directory`.
///
/// # Errors
/// `ENOTTY` if `directory` is not on a btrfs, `EEXIST` if the name is taken.
pub fn create_subvolume(directory: BorrowedFd<'_>, name: &str) -> nix::Result<()> {
    by_name(directory, BTRFS_IOC_SUBVOL_CREATE, name)
}

/// Creates the writable snapshot `name` of `subvolume` in `directory`: both
/// share every block until one of them changes it.
///
/// # Errors
/// `EINVAL` if `subvolume` is not the root of a subvolume, `EEXIST` if the name
/// is taken.
pub fn create_snapshot(
    directory: BorrowedFd<'_>,
    name: &str,
    subvolume: BorrowedFd<'_>,
) -> nix::Result<()> {
    let mut args = VolArgsV2 {
        fd: subvolume.as_raw_fd().into(),
        transid: 0,
        flags: 0,
        unused: [0; 4],
        name: [0; 4040],
    };
    fill(&mut args.name, name)?;
    // SAFETY: as in `by_name`.
    let done = unsafe { libc::ioctl(directory.as_raw_fd(), BTRFS_IOC_SNAP_CREATE_V2 as _, &args) };
    Errno::result(done).map(drop)
}

/// Deletes the subvolume `name` of `directory`, with its content.
///
/// # Errors
/// `ENOENT` if it does not exist, `ENOTEMPTY` if another subvolume is in it,
/// `EPERM` without `CAP_SYS_ADMIN`.
pub fn destroy_subvolume(directory: BorrowedFd<'_>, name: &str) -> nix::Result<()> {
    by_name(directory, BTRFS_IOC_SNAP_DESTROY, name)
}

/// The number of a subvolume, which is also that of its qgroup.
///
/// # Errors
/// `ENOTTY` if it is not on a btrfs.
pub fn subvolume_number(subvolume: BorrowedFd<'_>) -> nix::Result<u64> {
    let mut args = LookupArgs {
        tree: 0,
        inode: ROOT_INODE,
        name: [0; 4080],
    };
    // SAFETY: the kernel reads and fills the structure, which has the layout of
    // its header.
    let done = unsafe { libc::ioctl(subvolume.as_raw_fd(), BTRFS_IOC_INO_LOOKUP as _, &mut args) };
    Errno::result(done)?;
    Ok(args.tree)
}

/// Limits the bytes that a subvolume has for itself: what it shares with others
/// does not count. The first limit of a file system switches its quotas on, and
/// waits until everything has been counted.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`.
pub fn limit_subvolume(subvolume: BorrowedFd<'_>, bytes: u64) -> nix::Result<()> {
    let fd = subvolume.as_raw_fd();
    let mut enable = [BTRFS_QUOTA_CTL_ENABLE, 0];
    // SAFETY: the kernel reads and writes the two integers of
    // `struct btrfs_ioctl_quota_ctl_args`.
    Errno::result(unsafe { libc::ioctl(fd, BTRFS_IOC_QUOTA_CTL as _, &mut enable) })?;
    // SAFETY: without an argument.
    Errno::result(unsafe { libc::ioctl(fd, BTRFS_IOC_QUOTA_RESCAN_WAIT as _) })?;
    let limit = LimitArgs {
        // That of the subvolume.
        qgroup: 0,
        flags: BTRFS_QGROUP_LIMIT_MAX_EXCL,
        max_referenced: 0,
        max_exclusive: bytes,
        reserved: [0; 2],
    };
    // SAFETY: the kernel reads the structure, which has the layout of its header.
    Errno::result(unsafe { libc::ioctl(fd, BTRFS_IOC_QGROUP_LIMIT as _, &limit) }).map(drop)
}

/// Removes the limit of a subvolume that has been destroyed. Kernels that do so
/// themselves say `ENOENT` or, before they have, `EBUSY`.
///
/// # Errors
/// `ENOTCONN` if the file system has no quotas.
pub fn forget_limit(on: BorrowedFd<'_>, number: u64) -> nix::Result<()> {
    // `struct btrfs_ioctl_qgroup_create_args`: not made, but removed.
    let remove = [0, number];
    // SAFETY: the kernel reads two integers.
    let done = unsafe { libc::ioctl(on.as_raw_fd(), BTRFS_IOC_QGROUP_CREATE as _, &remove) };
    Errno::result(done).map(drop)
}
