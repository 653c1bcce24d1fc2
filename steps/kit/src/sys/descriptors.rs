//! File descriptors: listing and closing them (close_range(2)).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;

use super::close_legacy;

/// Closes every file descriptor except `keep`, including the standard streams:
/// for a forked child that must not keep another process's pipe, terminal or
/// file open.
///
/// Other owners of descriptors in the caller, such as `OwnedFd`, then own
/// closed ones: the caller must neither use nor drop them, and must end with
/// [`exit`](super::exit).
pub fn close_all_but(keep: BorrowedFd<'_>) -> Result<()> {
    close_gaps(0, vec![keep.as_raw_fd() as u32])
}

/// Closes every file descriptor except the standard streams and those in
/// `keep`: for a forked process that continues, and must not keep another
/// process's pipe open. As with [`close_all_but`], owners of closed descriptors
/// must not be used or dropped afterwards.
pub fn close_except(keep: &[BorrowedFd<'_>]) -> Result<()> {
    close_gaps(3, keep.iter().map(|fd| fd.as_raw_fd() as u32).collect())
}

/// Closes all descriptors from `first` on, except `keep`.
fn close_gaps(mut first: u32, mut keep: Vec<u32>) -> Result<()> {
    keep.sort_unstable();
    for kept in keep {
        if first < kept {
            close_range(first, kept - 1)?;
        }
        first = first.max(kept.saturating_add(1));
    }
    close_range(first, u32::MAX)
}

/// Makes all descriptors except the standard streams close-on-exec: those that
/// the caller has left open are for no program that is executed here. Kernels
/// before 5.11 cannot do it at once, and nothing is changed.
pub fn close_others_on_exec() -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: nothing is closed.
    let done = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, CLOSE_RANGE_CLOEXEC) };
    match Errno::result(done) {
        Ok(_) | Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL) => Ok(()),
        Err(errno) => Err(errno).context("close_range(CLOSE_RANGE_CLOEXEC)"),
    }
}

/// Takes possession of an inherited descriptor.
///
/// # Errors
/// `EBADF` if it is not open. Call it once for each, before anything is opened.
pub fn inherited(number: i32) -> Result<OwnedFd> {
    // SAFETY: asks about a number only.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    Errno::result(flags).with_context(|| format!("the descriptor {number} is not open"))?;
    // SAFETY: it is open, and by the contract above nobody owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The open descriptors from 3 to 255: poll(2) reports all others as invalid.
/// Higher ones are not checked: the kernel assigns the lowest free number, so
/// only a process with as many open files reaches them.
pub fn open_descriptors() -> Result<Vec<i32>> {
    open_descriptors_below(256)
}

/// The open descriptors from 3 on that are below `end`. The fewer are asked
/// about, the sooner the kernel answers: 250 take 6 µs, and 50 take 1.5.
pub fn open_descriptors_below(end: i32) -> Result<Vec<i32>> {
    const FIRST: i32 = 3;
    // SAFETY: a plain C structure for which all zeroes is valid.
    let mut limit: libc::rlimit = unsafe { std::mem::zeroed() };
    // SAFETY: a valid structure, which the kernel overwrites.
    Errno::result(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })
        .context("getrlimit(RLIMIT_NOFILE)")?;
    // poll(2) refuses more entries than the limit. No descriptor is above it.
    let end = limit.rlim_cur.min(end.max(0) as libc::rlim_t) as i32;
    let mut asked: Vec<libc::pollfd> = (FIRST..end)
        .map(|fd| libc::pollfd {
            fd,
            events: 0,
            revents: 0,
        })
        .collect();
    // SAFETY: the kernel changes `asked.len()` structures, all of them valid.
    let told = unsafe { libc::poll(asked.as_mut_ptr(), asked.len() as libc::nfds_t, 0) };
    Errno::result(told).context("poll")?;
    let open = asked.iter().filter(|fd| fd.revents & libc::POLLNVAL == 0);
    Ok(open.map(|fd| fd.fd).collect())
}

fn close_range(first: u32, last: u32) -> Result<()> {
    // SAFETY: see `close_all_but`: what is closed is never used again.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    match Errno::result(done) {
        Ok(_) => Ok(()),
        Err(Errno::ENOSYS | Errno::EPERM) => close_legacy::close_each(first..=last),
        Err(errno) => Err(errno).context("close_range"),
    }
}
