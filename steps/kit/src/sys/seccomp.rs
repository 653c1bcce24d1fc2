//! seccomp(2): a program in classic BPF that decides on every system call of
//! this process and of its descendants.

use anyhow::{Context, Result};
use nix::errno::Errno;

/// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`: without it, a filter before Linux 5.16
/// also makes the processor slower, as a defence that the engine does not
/// request.
const SPEC_ALLOW: u32 = 1 << 2;

/// Installs a permanent filter for the system calls of this process:
/// seccomp(2), `SECCOMP_SET_MODE_FILTER`. The process must have set
/// `PR_SET_NO_NEW_PRIVS`, or have `CAP_SYS_ADMIN`.
///
/// # Errors
/// Those of [`install`].
pub fn set_filter(program: &mut [libc::sock_filter]) -> Result<()> {
    install(program, SPEC_ALLOW)
}

/// Installs a filter with `flags` (`SECCOMP_FILTER_FLAG_*`), none of which may
/// ask for a descriptor. Allocates no memory unless it fails: a filter of
/// before may forbid that.
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
