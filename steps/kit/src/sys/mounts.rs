//! Attributes of mounts: mount_setattr(2).

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// Sets attributes of a mount, attached or detached: mount_setattr(2) with
/// `AT_EMPTY_PATH`, and with `AT_RECURSIVE` for the mounts below it too.
/// Attributes that are set stay set, including those that are locked in a user
/// namespace. Since Linux 5.12.
///
/// # Errors
/// `ENOSYS` before Linux 5.12: callers fall back to mount(2). `EPERM` without
/// `CAP_SYS_ADMIN` over the mount namespace, `EINVAL` for an unknown attribute.
pub fn mount_setattr(mount: BorrowedFd<'_>, recursive: bool, attr_set: u64) -> nix::Result<()> {
    change_mount(mount, recursive, attr_set, 0, 0)
}

/// Sets and clears attributes of a mount, and its propagation type
/// (`MS_PRIVATE`…; 0 leaves it), like [`mount_setattr`].
pub fn change_mount(
    mount: BorrowedFd<'_>,
    recursive: bool,
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
) -> nix::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let attr = libc::mount_attr {
        attr_set,
        attr_clr,
        propagation,
        userns_fd: 0,
    };
    set_attributes(mount, flags, &attr)
}

/// Maps the users of a detached mount to the user namespace `users`: what
/// belongs to 0 on the disk belongs to root of that namespace, and what that
/// root makes belongs to 0 on the disk (mount_setattr(2), “ID-mapped mounts”).
/// The map is permanent. Since Linux 5.12.
///
/// # Errors
/// `EINVAL` if the file system does not support it, `EPERM` without
/// `CAP_SYS_ADMIN` over the file system, or if the mount has been attached or
/// has a map already.
pub fn map_ids(mount: BorrowedFd<'_>, users: BorrowedFd<'_>) -> nix::Result<()> {
    map(mount, users, 0)
}

/// The same for the mounts below it too.
pub fn map_ids_below(mount: BorrowedFd<'_>, users: BorrowedFd<'_>) -> nix::Result<()> {
    map(mount, users, libc::AT_RECURSIVE)
}

fn map(mount: BorrowedFd<'_>, users: BorrowedFd<'_>, below: i32) -> nix::Result<()> {
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: users.as_raw_fd() as u64,
    };
    set_attributes(mount, libc::AT_EMPTY_PATH | below, &attr)
}

fn set_attributes(mount: BorrowedFd<'_>, flags: i32, attr: &libc::mount_attr) -> nix::Result<()> {
    // SAFETY: the path is a string with its NUL, and `attr` a structure of the
    // size given; the kernel only reads both.
    let set = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            attr,
            size_of_val(attr),
        )
    };
    Errno::result(set).map(drop)
}
