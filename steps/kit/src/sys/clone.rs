//! Processes: clone3(2), fork(2), _exit(2).

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::{ForkResult, Pid};

use super::clone_legacy;

/// `CLONE_INTO_CGROUP` of clone(2): the child is created in the cgroup whose
/// directory `clone_args.cgroup` names. Since Linux 5.7.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Creates a child process in new namespaces: clone3(2), without sharing any
/// memory, so it returns twice like fork(2). With `CLONE_PARENT` among the
/// flags the new process is the caller's sibling instead of its child.
///
/// Falls back to clone(2) if clone3 is missing (`ENOSYS`: before Linux 5.3, or
/// filtered by seccomp) or forbidden by an old filter (`EPERM`).
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` for the requested namespaces, `ENOSPC` or
/// `EUSERS` beyond the limits in `/proc/sys/user`, `EAGAIN` beyond the limits
/// on processes. Refuses a caller that has threads: the child would hold their
/// locks for ever.
// ANCHOR: clone3
pub fn clone3(namespaces: CloneFlags, cgroup: Option<BorrowedFd<'_>>) -> Result<ForkResult> {
    require_single_thread()?;
    let mut flags = namespaces.bits() as u32 as u64;
    // SAFETY: `clone_args` is a plain C structure for which all zeroes is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    // A sibling has the exit signal of its sibling; EINVAL if one is named.
    if !namespaces.contains(CloneFlags::CLONE_PARENT) {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(fd) = cgroup {
        flags |= CLONE_INTO_CGROUP;
        args.cgroup = fd.as_raw_fd() as u64;
    }
    args.flags = flags;
    // SAFETY: neither CLONE_VM nor a stack is asked for, so the child goes on
    // with a copy of this memory, and this process has one thread only, so
    // nothing in that copy is half-way through another thread's change.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &args, size_of_val(&args)) };
    match Errno::result(pid) {
        Ok(0) => Ok(ForkResult::Child),
        Ok(pid) => Ok(ForkResult::Parent {
            child: Pid::from_raw(pid as i32),
        }),
        Err(Errno::ENOSYS | Errno::EPERM) => clone_legacy::clone(namespaces, cgroup),
        Err(errno) => Err(errno).with_context(|| format!("clone3({})", names(namespaces))),
    }
}
// ANCHOR_END: clone3

/// The names of the flags in clone(2), separated by `|`.
pub fn names(flags: CloneFlags) -> String {
    let names: Vec<&str> = flags.iter_names().map(|(name, _)| name).collect();
    names.join("|")
}

/// Creates a child process in the caller's namespaces: fork(2). Refuses a
/// caller that has threads, like [`clone3`].
pub fn fork() -> Result<ForkResult> {
    require_single_thread()?;
    // SAFETY: one thread, so the child's copy of the memory is consistent.
    unsafe { nix::unistd::fork() }.context("fork")
}

/// Refuses a process that has threads. `/proc/self/task` has one directory
/// entry per thread, so its link count is their number plus two: one stat(2)
/// suffices, without parsing `status`. Without /proc nothing is checked.
fn require_single_thread() -> Result<()> {
    match fs::metadata("/proc/self/task") {
        Ok(task) if task.nlink() > 3 => bail!(
            "clone from a process with {} threads: the child would inherit their locks",
            task.nlink() - 2
        ),
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e).context("stat /proc/self/task"),
    }
}

/// Ends this process at once: no destructors, no atexit(3) handlers, no
/// flushing of buffers that are copies of the parent's. For forked children.
pub fn exit(status: u8) -> ! {
    // SAFETY: _exit(2) only ends the process.
    unsafe { libc::_exit(i32::from(status)) }
}
