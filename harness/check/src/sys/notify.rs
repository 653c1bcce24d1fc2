//! seccomp_unotify(2): the calls of another process, on which this one decides.

use std::os::fd::{AsRawFd, BorrowedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;

mod request {
    nix::ioctl_readwrite!(receive, b'!', 0, libc::seccomp_notif);
    nix::ioctl_readwrite!(send, b'!', 1, libc::seccomp_notif_resp);
}

/// Waits for the next call that the filter asks about, and has it fail with
/// `errno`. Returns its number; `None` if its process was killed meanwhile.
pub fn answer(listener: BorrowedFd<'_>, errno: Errno) -> Result<Option<u32>> {
    // SAFETY: a structure of integers; the kernel requires all zeroes.
    let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: a valid structure of the size that the request names.
    match unsafe { request::receive(listener.as_raw_fd(), &mut asked) } {
        Ok(_) => {}
        Err(Errno::ENOENT | Errno::EINTR) => return Ok(None),
        Err(errno) => return Err(errno).context("ioctl(SECCOMP_IOCTL_NOTIF_RECV)"),
    }
    let mut answer = libc::seccomp_notif_resp {
        id: asked.id,
        val: 0,
        error: -(errno as i32),
        flags: 0,
    };
    // SAFETY: a valid structure of the size that the request names.
    match unsafe { request::send(listener.as_raw_fd(), &mut answer) } {
        Ok(_) | Err(Errno::ENOENT) => Ok(Some(asked.data.nr as u32)),
        Err(errno) => Err(errno).context("ioctl(SECCOMP_IOCTL_NOTIF_SEND)"),
    }
}
