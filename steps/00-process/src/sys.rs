//! System calls for which no safe wrapper exists: the only `unsafe` of the
//! engine.
//!
//! Each function here is safe to call: it checks what the kernel or the
//! language would otherwise have to take on trust.
#![allow(unsafe_code)]

pub mod bpf;
pub mod sysvipc;

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::{ForkResult, Pid};

/// `CLONE_INTO_CGROUP` of clone(2): the child is born in the cgroup whose
/// directory `clone_args.cgroup` names. Since Linux 5.7.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Creates a child process in new namespaces: clone3(2), without sharing any
/// memory, so it returns twice like fork(2). With `CLONE_PARENT` among the
/// flags the new process is the caller's sibling instead of its child.
///
/// Falls back to clone(2) where clone3 is missing (`ENOSYS`: before Linux 5.3,
/// or filtered by seccomp) or forbidden by an old filter (`EPERM`). clone(2)
/// cannot place the child in a cgroup; the PID is then written into
/// `cgroup.procs` by the parent, while the child still waits to be released.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` for the namespaces asked for, `ENOSPC` or
/// `EUSERS` beyond the limits in `/proc/sys/user`, `EAGAIN` beyond the limits
/// on processes. An error of its own where the caller has threads: the child
/// would hold their locks for ever.
pub fn clone3(namespaces: CloneFlags, cgroup: Option<BorrowedFd<'_>>) -> Result<ForkResult> {
    require_single_thread()?;
    let mut flags = namespaces.bits() as u32 as u64;
    // SAFETY: `clone_args` is a plain C structure for which all zeroes is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    // A sibling dies with the signal of its sibling; EINVAL if one is named.
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
        Err(Errno::ENOSYS | Errno::EPERM) => clone(namespaces, cgroup),
        Err(errno) => Err(errno).with_context(|| format!("clone3({namespaces:?})")),
    }
}

fn clone(namespaces: CloneFlags, cgroup: Option<BorrowedFd<'_>>) -> Result<ForkResult> {
    let flags = namespaces.bits() as libc::c_long | libc::SIGCHLD as libc::c_long;
    // SAFETY: as in `clone3`; a stack of null means a copy of the caller's.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, 0usize, 0usize, 0usize) };
    match Errno::result(pid).with_context(|| format!("clone({namespaces:?})"))? {
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

/// Creates a child process without anything new around it: fork(2).
///
/// # Errors
/// As [`clone3`], except for those about namespaces.
pub fn fork() -> Result<ForkResult> {
    require_single_thread()?;
    // SAFETY: one thread, so the child's copy of the memory is consistent.
    unsafe { nix::unistd::fork() }.context("fork")
}

/// One directory entry a thread, so the link count of `/proc/self/task` is
/// their number plus two: one stat(2) tells, where reading `status` would have
/// to parse. Without /proc there is nothing to ask.
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

/// Sets a signal back to its default action: sigaction(2) with `SIG_DFL`.
///
/// # Errors
/// `EINVAL` for SIGKILL and SIGSTOP.
pub fn default_action(signal: Signal) -> Result<()> {
    let action = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of ours.
    unsafe { sigaction(signal, &action) }
        .with_context(|| format!("sigaction({signal}, SIG_DFL)"))?;
    Ok(())
}

/// The signals that have been sent to this process and are held back by its
/// mask: sigpending(2).
///
/// # Errors
/// None that the kernel documents for a valid pointer.
pub fn pending_signals() -> Result<SigSet> {
    let mut set = SigSet::empty().as_ref().to_owned();
    // SAFETY: `set` is a valid signal set, which the kernel overwrites with one.
    Errno::result(unsafe { libc::sigpending(&mut set) }).context("sigpending")?;
    // SAFETY: the set comes from the kernel and was initialised before.
    Ok(unsafe { SigSet::from_sigset_t_unchecked(set) })
}

/// Marks every file descriptor from `first` up as close-on-exec:
/// close_range(2) with `CLOSE_RANGE_CLOEXEC`, or one by one from
/// `/proc/self/fd` before Linux 5.11.
///
/// # Errors
/// Those of `/proc/self/fd`, where it is needed.
pub fn close_on_exec_from(first: i32) -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: changes a flag of descriptors, and no descriptor becomes invalid.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            libc::c_uint::MAX,
            CLOSE_RANGE_CLOEXEC,
        )
    };
    match Errno::result(done) {
        Ok(_) => return Ok(()),
        Err(Errno::ENOSYS | Errno::EINVAL | Errno::EPERM) => {}
        Err(errno) => return Err(errno).context("close_range(CLOSE_RANGE_CLOEXEC)"),
    }
    for entry in fs::read_dir("/proc/self/fd").context("read /proc/self/fd")? {
        let name = entry.context("read /proc/self/fd")?.file_name();
        let Some(fd) = name.to_str().and_then(|n| n.parse::<i32>().ok()) else {
            continue;
        };
        if fd >= first {
            // SAFETY: as above. The descriptor of the listing itself is among
            // them, and is closed when the loop ends.
            let set = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
            Errno::result(set).with_context(|| format!("fcntl({fd}, F_SETFD, FD_CLOEXEC)"))?;
        }
    }
    Ok(())
}

/// Closes every file descriptor from `first` up: close_range(2), or one by one
/// before Linux 5.9. For a forked child that must hold nobody's pipe open.
///
/// # Errors
/// Those of `/proc/self/fd`, where it is needed.
///
/// # Safety of the caller's own descriptors
/// Owners such as `OwnedFd` in this process are left with closed descriptors,
/// so the caller must be one that never uses or drops them: it ends with
/// [`exit`] or execve(2).
pub fn close_from(first: i32) -> Result<()> {
    // SAFETY: see above: the callers are processes that own nothing any more.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
    match Errno::result(done) {
        Ok(_) => Ok(()),
        Err(Errno::ENOSYS | Errno::EPERM) => {
            let fds = fs::read_dir("/proc/self/fd")
                .context("read /proc/self/fd")?
                .filter_map(|e| e.ok()?.file_name().to_str()?.parse::<i32>().ok())
                .filter(|fd| *fd >= first)
                .collect::<Vec<_>>();
            for fd in fds {
                // SAFETY: as above. EBADF is the listing's own descriptor.
                unsafe { libc::close(fd) };
            }
            Ok(())
        }
        Err(errno) => Err(errno).context("close_range"),
    }
}

/// The user namespace that owns a namespace: ioctl_ns(2), `NS_GET_USERNS`.
///
/// # Errors
/// `EPERM` where that user namespace is not the caller's own or below it;
/// `ENOTTY` for a descriptor that is no namespace.
pub fn owning_user_namespace(namespace: BorrowedFd<'_>) -> Result<OwnedFd> {
    // SAFETY: this request takes no argument and changes nothing.
    let fd = unsafe { libc::ioctl(namespace.as_raw_fd(), libc::NS_GET_USERNS) };
    let fd = Errno::result(fd).context("ioctl(NS_GET_USERNS)")?;
    // SAFETY: the kernel has just opened this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Turns a string into what the kernel takes: without a NUL inside.
///
/// # Errors
/// Names the string that holds a NUL byte.
pub fn c_string(s: &std::ffi::OsStr) -> Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(s.as_bytes()).with_context(|| format!("{s:?} holds a NUL byte"))
}
