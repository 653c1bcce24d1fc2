//! clone(2), for kernels before 5.3 and for old seccomp filters.

use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::{ForkResult, Pid};

use super::names;

/// Creates a child process as [`clone3`](super::clone3) does. clone(2) cannot
/// place the child in a cgroup: the parent writes the PID into `cgroup.procs`,
/// while the child still waits to be released. The caller is single-threaded.
pub(super) fn clone(namespaces: CloneFlags, cgroup: Option<BorrowedFd<'_>>) -> Result<ForkResult> {
    let flags = namespaces.bits() as libc::c_long | libc::SIGCHLD as libc::c_long;
    // SAFETY: as in `clone3`, which has seen that there is one thread; a stack
    // of null means a copy of the caller's.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, 0usize, 0usize, 0usize) };
    match Errno::result(pid).with_context(|| format!("clone({})", names(namespaces)))? {
        0 => Ok(ForkResult::Child),
        pid => {
            let child = Pid::from_raw(pid as i32);
            if let Some(fd) = cgroup {
                let procs = format!("/proc/self/fd/{}/cgroup.procs", fd.as_raw_fd());
                fs::write(&procs, child.to_string())
                    .with_context(|| format!("write {child} to cgroup.procs"))?;
            }
            Ok(ForkResult::Parent { child })
        }
    }
}
