//! Relations of namespaces: ioctl_ns(2).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sched::CloneFlags;

/// The user namespace that owns a namespace: ioctl_ns(2), `NS_GET_USERNS`.
///
/// # Errors
/// `EPERM` if that user namespace is neither the caller's own nor below it;
/// `ENOTTY` for a descriptor that is not a namespace.
pub fn owning_user_namespace(namespace: BorrowedFd<'_>) -> Result<OwnedFd> {
    related_namespace(namespace, libc::NS_GET_USERNS).context("ioctl(NS_GET_USERNS)")
}

/// The namespace in which a PID or user namespace was made: ioctl_ns(2),
/// `NS_GET_PARENT`.
///
/// # Errors
/// `EPERM` if it is neither the caller's own nor below it, and for the initial
/// namespace; `EINVAL` for namespaces of other kinds, which have no parents.
pub fn parent_namespace(namespace: BorrowedFd<'_>) -> Result<OwnedFd> {
    related_namespace(namespace, libc::NS_GET_PARENT).context("ioctl(NS_GET_PARENT)")
}

/// The kind of a namespace, as a flag of clone(2): ioctl_ns(2),
/// `NS_GET_NSTYPE`. Also for a file on which a namespace is mounted, whose link
/// in /proc/self/fd has that file's name.
///
/// # Errors
/// `ENOTTY` for a descriptor that is not a namespace.
pub fn namespace_kind(namespace: BorrowedFd<'_>) -> Result<CloneFlags, Errno> {
    // SAFETY: this request takes no argument and changes nothing.
    let kind = unsafe { libc::ioctl(namespace.as_raw_fd(), libc::NS_GET_NSTYPE) };
    Ok(CloneFlags::from_bits_retain(Errno::result(kind)?))
}

fn related_namespace(namespace: BorrowedFd<'_>, request: libc::Ioctl) -> Result<OwnedFd, Errno> {
    // SAFETY: these requests take no argument and change nothing.
    let fd = Errno::result(unsafe { libc::ioctl(namespace.as_raw_fd(), request) })?;
    // SAFETY: the kernel has just opened this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
