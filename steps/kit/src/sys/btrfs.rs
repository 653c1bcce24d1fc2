//! Subvolumes of a btrfs: the ioctl(2) requests of `linux/btrfs.h`.
//!
//! libbtrfsutil has them too, but it is a C library that would have to be
//! linked statically, and the program `btrfs` would be a process for each call.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

const BTRFS_IOC_SUBVOL_CREATE: libc::c_ulong = 0x5000_940e;
const BTRFS_IOC_SNAP_DESTROY: libc::c_ulong = 0x5000_940f;
const BTRFS_IOC_SNAP_CREATE_V2: libc::c_ulong = 0x5000_9417;

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
