//! seccomp(2): a program in classic BPF that decides on every system call of
//! this process and of its descendants.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;

/// Installs a permanent filter for the system calls of this process with
/// `flags` (`SECCOMP_FILTER_FLAG_*`), none of which may ask for a descriptor:
/// seccomp(2), `SECCOMP_SET_MODE_FILTER`. Allocates no memory unless it fails: a
/// filter of before may forbid that.
///
/// # Errors
/// `EINVAL` if the kernel rejects the program or a flag, or has no seccomp;
/// `EACCES` with neither `PR_SET_NO_NEW_PRIVS` nor `CAP_SYS_ADMIN`.
pub fn install(program: &[libc::sock_filter], flags: u32) -> Result<()> {
    let program = libc::sock_fprog {
        len: program.len() as u16,
        // The kernel reads it only.
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `program` describes a slice that outlives the call; the kernel
    // checks the program and copies it.
    let set = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::c_ulong::from(flags),
            &program,
        )
    };
    Errno::result(set)
        .map(drop)
        .context("seccomp(SECCOMP_SET_MODE_FILTER)")
}

/// Installs a filter with `flags`, as [`install`] does, and returns the
/// descriptor by which another process decides on `SECCOMP_RET_USER_NOTIF`
/// (seccomp_unotify(2)). It is close-on-exec.
///
/// # Errors
/// `EBUSY` if a filter of before has such a descriptor; those of [`install`].
pub fn install_listener(program: &[libc::sock_filter], flags: u32) -> Result<OwnedFd> {
    const NEW_LISTENER: libc::c_ulong = 1 << 3;
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: as in `install`.
    let set = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            NEW_LISTENER | libc::c_ulong::from(flags),
            &program,
        )
    };
    let fd = Errno::result(set).context("seccomp(SECCOMP_FILTER_FLAG_NEW_LISTENER)")?;
    // SAFETY: the kernel has just opened this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Sends a message with a descriptor: sendmsg(2), `SCM_RIGHTS` of unix(7). The
/// call has two more arguments, which the kernel ignores, and a filter may not.
/// Allocates no memory.
pub fn hand_over(
    socket: BorrowedFd<'_>,
    message: &[u8],
    descriptor: BorrowedFd<'_>,
    more: [u64; 2],
) -> nix::Result<()> {
    #[repr(C)]
    struct Control {
        head: libc::cmsghdr,
        descriptor: libc::c_int,
    }
    let mut control = Control {
        head: libc::cmsghdr {
            cmsg_len: size_of::<libc::cmsghdr>() + size_of::<libc::c_int>(),
            cmsg_level: libc::SOL_SOCKET,
            cmsg_type: libc::SCM_RIGHTS,
        },
        descriptor: descriptor.as_raw_fd(),
    };
    let mut sent = 0;
    while sent < message.len() {
        let rest = &message[sent..];
        let mut part = libc::iovec {
            // The kernel reads it only.
            iov_base: rest.as_ptr().cast_mut().cast(),
            iov_len: rest.len(),
        };
        // SAFETY: a structure of integers and pointers, all of which may be zero.
        let mut head: libc::msghdr = unsafe { std::mem::zeroed() };
        head.msg_iov = &mut part;
        head.msg_iovlen = 1;
        // The descriptor goes with the first byte.
        if sent == 0 {
            head.msg_control = (&raw mut control).cast();
            head.msg_controllen = size_of::<Control>();
        }
        // SAFETY: all that the head points to outlives the call.
        let length = unsafe {
            libc::syscall(
                libc::SYS_sendmsg,
                socket.as_raw_fd(),
                &head,
                libc::MSG_NOSIGNAL,
                0usize,
                more[0],
                more[1],
            )
        };
        match Errno::result(length) {
            Ok(length) => sent += length as usize,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// A call that waits for another process to decide.
#[derive(Clone, Copy, Debug)]
pub struct Notified {
    /// Names the call in the answer.
    pub id: u64,
    /// `AUDIT_ARCH_*`.
    pub arch: u32,
    /// The number of the call.
    pub number: u32,
}

const MAGIC: u8 = b'!';
mod request {
    nix::ioctl_readwrite!(notif_recv, super::MAGIC, 0, libc::seccomp_notif);
    nix::ioctl_readwrite!(notif_send, super::MAGIC, 1, libc::seccomp_notif_resp);
}

/// Waits for the next call (`SECCOMP_IOCTL_NOTIF_RECV`). `None` if its process
/// was killed meanwhile.
pub fn notified(listener: BorrowedFd<'_>) -> Result<Option<Notified>> {
    // SAFETY: a structure of integers; the kernel requires all zeroes.
    let mut notification: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: a valid structure of the size that the request names.
    match unsafe { request::notif_recv(listener.as_raw_fd(), &mut notification) } {
        Ok(_) => Ok(Some(Notified {
            id: notification.id,
            arch: notification.data.arch,
            number: notification.data.nr as u32,
        })),
        Err(Errno::ENOENT | Errno::EINTR) => Ok(None),
        Err(errno) => Err(errno).context("ioctl(SECCOMP_IOCTL_NOTIF_RECV)"),
    }
}

/// Lets the kernel make the call (`SECCOMP_USER_NOTIF_FLAG_CONTINUE`). No
/// decision about safety may rest on it: the process can change what its
/// arguments point to after they were looked at.
pub fn let_continue(listener: BorrowedFd<'_>, id: u64) -> Result<()> {
    let mut answer = libc::seccomp_notif_resp {
        id,
        val: 0,
        error: 0,
        flags: libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
    };
    // SAFETY: a valid structure of the size that the request names.
    match unsafe { request::notif_send(listener.as_raw_fd(), &mut answer) } {
        // Its process was killed meanwhile.
        Ok(_) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno).context("ioctl(SECCOMP_IOCTL_NOTIF_SEND)"),
    }
}
