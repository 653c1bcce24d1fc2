//! seccomp(2): a program in classic BPF that decides on every system call of
//! this process and of its descendants.

use anyhow::{Context, Result};
use nix::errno::Errno;

/// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`: without it, a filter before Linux 5.16
/// also makes the processor slower, as a defence that the engine does not
/// request.
const SPEC_ALLOW: libc::c_ulong = 1 << 2;

/// Installs a permanent filter for the system calls of this process:
/// seccomp(2), `SECCOMP_SET_MODE_FILTER`. The process must have set
/// `PR_SET_NO_NEW_PRIVS`.
///
/// # Errors
/// `EINVAL` if the kernel rejects the program or has no seccomp; `EACCES`
/// without `PR_SET_NO_NEW_PRIVS`.
pub fn set_filter(program: &mut [libc::sock_filter]) -> Result<()> {
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: `program` describes a slice that outlives the call; the kernel
    // checks the program and copies it.
    let set = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            SPEC_ALLOW,
            &program,
        )
    };
    Errno::result(set)
        .map(drop)
        .context("seccomp(SECCOMP_SET_MODE_FILTER)")
}
