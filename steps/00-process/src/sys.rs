//! System calls for which no safe wrapper exists: the only `unsafe` of the
//! engine.
//!
//! Each function here is safe to call: it checks what the kernel or the
//! language would otherwise have to take on trust.
#![allow(unsafe_code)]

pub mod bpf;
pub mod btrfs;
pub mod loop_device;
pub mod seccomp;
pub mod signals;
pub mod sysvipc;

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sched::CloneFlags;
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
// ANCHOR: clone3
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
        Err(errno) => Err(errno).with_context(|| format!("clone3({})", names(namespaces))),
    }
}
// ANCHOR_END: clone3

fn clone(namespaces: CloneFlags, cgroup: Option<BorrowedFd<'_>>) -> Result<ForkResult> {
    let flags = namespaces.bits() as libc::c_long | libc::SIGCHLD as libc::c_long;
    // SAFETY: as in `clone3`; a stack of null means a copy of the caller's.
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

/// The flags by their names in clone(2), with `|` between them.
pub(crate) fn names(flags: CloneFlags) -> String {
    let names: Vec<&str> = flags.iter_names().map(|(name, _)| name).collect();
    names.join("|")
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

/// Closes every file descriptor but `keep`, the standard streams too:
/// close_range(2), or one by one before Linux 5.9. For a forked child that
/// must hold nobody's pipe, terminal or file open.
///
/// The caller's other owners of descriptors, such as `OwnedFd`, are left with
/// closed ones: it must be a process that neither uses nor drops them, and
/// ends with [`exit`].
///
/// # Errors
/// Those of `/proc/self/fd`, where it is needed.
pub fn close_all_but(keep: BorrowedFd<'_>) -> Result<()> {
    let keep = keep.as_raw_fd() as libc::c_uint;
    let below = keep.checked_sub(1).map(|last| (0, last));
    for (first, last) in below.into_iter().chain([(keep + 1, libc::c_uint::MAX)]) {
        // SAFETY: see above: this process owns nothing any more.
        let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        match Errno::result(done) {
            Ok(_) => {}
            Err(Errno::ENOSYS | Errno::EPERM) => return close_one_by_one(keep),
            Err(errno) => return Err(errno).context("close_range"),
        }
    }
    Ok(())
}

fn close_one_by_one(keep: libc::c_uint) -> Result<()> {
    let fds = fs::read_dir("/proc/self/fd")
        .context("read /proc/self/fd")?
        .filter_map(|e| e.ok()?.file_name().to_str()?.parse::<libc::c_uint>().ok())
        .filter(|fd| *fd != keep)
        .collect::<Vec<_>>();
    for fd in fds {
        // SAFETY: as above. EBADF is the listing's own descriptor.
        unsafe { libc::close(fd as i32) };
    }
    Ok(())
}

/// Sets attributes of a mount, attached or not: mount_setattr(2) with
/// `AT_EMPTY_PATH`, and with `AT_RECURSIVE` for the mounts below it too. No
/// attribute is taken away, so what a mount of a user namespace has locked
/// stays. Since Linux 5.12.
///
/// # Errors
/// `ENOSYS` before Linux 5.12, `EPERM` without `CAP_SYS_ADMIN` over the mount
/// namespace, `EINVAL` for an unknown attribute. Bare, so that callers can fall
/// back to mount(2).
pub fn mount_setattr(mount: BorrowedFd<'_>, recursive: bool, attr_set: u64) -> nix::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let attr = libc::mount_attr {
        attr_set,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    set_attributes(mount, flags, &attr)
}

/// Has a mount that is attached nowhere show its files as those of the users of
/// the user namespace `users`: what belongs to 0 on the disk is root's of that
/// namespace, and what that root makes belongs to 0 on the disk
/// (mount_setattr(2), “ID-mapped mounts”). For good. Since Linux 5.12.
///
/// # Errors
/// `EINVAL` where the file system cannot, `EPERM` without `CAP_SYS_ADMIN` over
/// the file system, or where the mount has been attached or has a map already.
pub fn map_ids(mount: BorrowedFd<'_>, users: BorrowedFd<'_>) -> nix::Result<()> {
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: users.as_raw_fd() as u64,
    };
    set_attributes(mount, libc::AT_EMPTY_PATH, &attr)
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

/// Closes every file descriptor but standard input, output, error and those in
/// `keep`: for a forked process that goes on as a server and must not hold
/// anybody's pipe open. As with [`close_all_but`], owners of what is closed must
/// not be used or dropped afterwards.
///
/// # Errors
/// Those of close_range(2).
pub fn close_except(keep: &[BorrowedFd<'_>]) -> Result<()> {
    let mut keep: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd() as u32).collect();
    keep.sort_unstable();
    let mut first = 3;
    for last in keep.into_iter().chain([u32::MAX]) {
        if first < last {
            let last = if last == u32::MAX { last } else { last - 1 };
            close_range(first, last)?;
        }
        first = last.saturating_add(1).max(first);
    }
    Ok(())
}

/// The descriptors that are open, from 3 on: poll(2) says of every other one
/// that it is invalid. Of those beyond 256 it tells nothing: the kernel gives the
/// lowest number that is free, so only a process with as many comes there.
///
/// # Errors
/// Those of getrlimit(2) and poll(2).
pub fn open_descriptors() -> Result<Vec<i32>> {
    const FIRST: i32 = 3;
    const END: libc::rlim_t = 256;
    // SAFETY: a plain C structure for which all zeroes is valid.
    let mut limit: libc::rlimit = unsafe { std::mem::zeroed() };
    // SAFETY: a valid structure, which the kernel overwrites.
    Errno::result(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })
        .context("getrlimit(RLIMIT_NOFILE)")?;
    // More of them poll(2) refuses. No descriptor is above the limit.
    let end = limit.rlim_cur.min(END) as i32;
    let mut asked: Vec<libc::pollfd> = (FIRST..end)
        .map(|fd| libc::pollfd {
            fd,
            events: 0,
            revents: 0,
        })
        .collect();
    // SAFETY: as many valid structures as are said, which the kernel changes.
    let told = unsafe { libc::poll(asked.as_mut_ptr(), asked.len() as libc::nfds_t, 0) };
    Errno::result(told).context("poll")?;
    let open = asked.iter().filter(|fd| fd.revents & libc::POLLNVAL == 0);
    Ok(open.map(|fd| fd.fd).collect())
}

fn close_range(first: u32, last: u32) -> Result<()> {
    // SAFETY: see `close_except`: what is closed is never used again.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    match Errno::result(done) {
        Ok(_) => Ok(()),
        // Before Linux 5.9, or under an old filter, one by one.
        Err(Errno::ENOSYS | Errno::EPERM) => {
            let fds = fs::read_dir("/proc/self/fd")
                .context("read /proc/self/fd")?
                .filter_map(|e| e.ok()?.file_name().to_str()?.parse::<i32>().ok())
                .filter(|fd| (first..=last).contains(&(*fd as u32)))
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
    related_namespace(namespace, libc::NS_GET_USERNS).context("ioctl(NS_GET_USERNS)")
}

/// The namespace in which a PID or user namespace was made: ioctl_ns(2),
/// `NS_GET_PARENT`.
///
/// # Errors
/// `EPERM` where it is not the caller's own or below it, and for the first of
/// all; `EINVAL` for namespaces of other kinds, which have no parents.
pub fn parent_namespace(namespace: BorrowedFd<'_>) -> Result<OwnedFd> {
    related_namespace(namespace, libc::NS_GET_PARENT).context("ioctl(NS_GET_PARENT)")
}

fn related_namespace(namespace: BorrowedFd<'_>, request: libc::Ioctl) -> Result<OwnedFd, Errno> {
    // SAFETY: these requests take no argument and change nothing.
    let fd = Errno::result(unsafe { libc::ioctl(namespace.as_raw_fd(), request) })?;
    // SAFETY: the kernel has just opened this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Asks the kernel to advance its clock by `microseconds` a tick: adjtimex(2)
/// with `ADJ_TICK`. Rights are checked before the value, so a value that is
/// always out of range, such as 0, tells whether the clock might be set and
/// leaves it alone.
///
/// # Errors
/// `EPERM` without `CAP_SYS_TIME` in the first user namespace, then `EINVAL`
/// for what differs from the nominal tick by more than a tenth.
pub fn adjust_tick(microseconds: libc::c_long) -> nix::Result<()> {
    // SAFETY: `timex` is a plain C structure for which all zeroes is valid.
    let mut request: libc::timex = unsafe { std::mem::zeroed() };
    request.modes = libc::ADJ_TICK;
    request.tick = microseconds;
    // SAFETY: a valid structure, which the kernel reads and overwrites.
    Errno::result(unsafe { libc::adjtimex(&mut request) }).map(drop)
}

/// Gives this process a session keyring of its own, anonymous and empty:
/// keyctl(2), `KEYCTL_JOIN_SESSION_KEYRING`. Where the kernel has no keys
/// (`ENOSYS`) there is nothing to part from.
///
/// # Errors
/// `EDQUOT` where the user has too many keys (`/proc/sys/kernel/keys`), `EPERM`
/// where another engine's filter forbids the call.
pub fn new_session_keyring() -> Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring; nothing is read.
    let joined = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0usize) };
    match Errno::result(joined) {
        Ok(_) | Err(Errno::ENOSYS) => Ok(()),
        Err(errno) => Err(errno).context("keyctl(KEYCTL_JOIN_SESSION_KEYRING)"),
    }
}

/// Sets the execution domain back to Linux's own, with nothing switched off:
/// personality(2). A caller's (setarch(8), a debugger) may switch the
/// randomisation of addresses off.
///
/// # Errors
/// None that the kernel documents.
pub fn default_personality() -> Result<()> {
    // SAFETY: only the layout of programs that are executed later changes.
    let before = unsafe { libc::personality(0) };
    Errno::result(before).map(drop).context("personality(0)")
}

/// Turns a string into what the kernel takes: without a NUL inside.
///
/// # Errors
/// Names the string that holds a NUL byte.
pub fn c_string(s: &std::ffi::OsStr) -> Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(s.as_bytes()).with_context(|| format!("{s:?} holds a NUL byte"))
}
