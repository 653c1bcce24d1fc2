//! Confines a program before its start: forbidden calls, unreachable files.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::stat::Mode;
use nix::unistd::{ForkResult, Pid, chdir, fork, pivot_root, write};

/// Makes these calls of `command` and of all that it starts fail with `errno`,
/// and gives it no descriptors except the standard streams.
pub fn forbid_child(command: &mut Command, calls: &[libc::c_long], errno: Errno) {
    let mut filter = filter(calls, errno);
    let forbid = move || {
        // SAFETY: the flag closes them at execve(2); nothing uses them until
        // then.
        let closed = unsafe {
            let flag = libc::CLOSE_RANGE_CLOEXEC;
            libc::syscall(libc::SYS_close_range, 3, u32::MAX, flag)
        };
        if closed != 0 {
            // Before Linux 5.11: one by one, up to the default limit of a
            // process.
            for fd in 3..1024 {
                // SAFETY: as above; the descriptor may not exist.
                unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
            }
        }
        Ok(set_filter(&mut filter)?)
    };
    // SAFETY: the closure only makes system calls, and allocates nothing.
    unsafe { command.pre_exec(forbid) };
}

/// The instructions of seccomp(2) that refuse `calls`, and all calls of other
/// architectures.
fn filter(calls: &[libc::c_long], errno: Errno) -> Vec<libc::sock_filter> {
    let instruction = |code: u32, jt, jf, k| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let load = |at| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at);
    let equal = |jt, jf, k| instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, jt, jf, k);
    let give = |what| instruction(libc::BPF_RET | libc::BPF_K, 0, 0, what);
    // The architecture is at offset 4 of struct seccomp_data, the call at 0.
    // Jumps count the instructions that they skip.
    let to_refusal = calls.len() as u8 + 3;
    let mut filter = vec![load(4), equal(0, to_refusal, ARCHITECTURE), load(0)];
    // On x86_64, numbers from here on are those of x32.
    const X32: u32 = 0x4000_0000;
    let at_least = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
    filter.push(instruction(at_least, to_refusal - 2, 0, X32));
    for (place, call) in calls.iter().enumerate() {
        filter.push(equal((calls.len() - place) as u8, 0, *call as u32));
    }
    filter.extend([
        give(libc::SECCOMP_RET_ALLOW),
        give(libc::SECCOMP_RET_ERRNO | errno as u32),
    ]);
    filter
}

/// `AUDIT_ARCH_…` of linux/audit.h: the ELF machine, 64 bits, little endian.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = libc::EM_X86_64 as u32 | 0xc000_0000;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = libc::EM_AARCH64 as u32 | 0xc000_0000;

/// Installs a filter in this process; allocates nothing.
fn set_filter(filter: &mut [libc::sock_filter]) -> nix::Result<()> {
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    prctl::set_no_new_privs()?;
    // SAFETY: `program` describes `filter`, and both outlive the call.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) };
    Errno::result(set).map(drop)
}

/// Puts `command` and all that it starts under a ruleset of landlock(7).
pub fn landlock_child(command: &mut Command, ruleset: OwnedFd) {
    let restrict = move || {
        prctl::set_no_new_privs()?;
        // SAFETY: it takes an open descriptor and a number.
        let restricted =
            unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) };
        Ok(Errno::result(restricted).map(drop)?)
    };
    // SAFETY: the closure only makes system calls, and allocates nothing.
    unsafe { command.pre_exec(restrict) };
}

/// A root file system of bind mounts, for [`enter_root`].
#[derive(Debug)]
pub struct Root {
    /// Directory that becomes the root. It contains a mount point for each
    /// bind.
    pub dir: CString,
    /// Bind mounts: source, target below [`dir`](Self::dir), and flags besides
    /// `MS_BIND | MS_REMOUNT`.
    pub binds: Vec<(CString, CString, MsFlags)>,
    /// Mount point of /proc below [`dir`](Self::dir). Programs find themselves
    /// there.
    pub proc: CString,
    /// Working directory, as a path inside.
    pub cwd: CString,
    /// The lines of uid_map and of gid_map, for the case that it takes a user
    /// namespace: see user_namespaces(7).
    pub maps: [String; 2],
}

/// Starts `command` with another root, without a network, and in IPC and PID
/// namespaces of its own: mount_namespaces(7). A caller without the privilege
/// makes a user namespace first.
pub fn enter_root(command: &mut Command, root: Root) {
    let apart = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWPID;
    let enter = move || {
        prctl::set_no_new_privs()?;
        if unshare(apart).is_err() {
            unshare(apart | CloneFlags::CLONE_NEWUSER)?;
            put(c"/proc/self/setgroups", b"deny")?;
            put(c"/proc/self/uid_map", root.maps[0].as_bytes())?;
            put(c"/proc/self/gid_map", root.maps[1].as_bytes())?;
        }
        // Only a child is in the new PID namespace.
        // SAFETY: this is the only thread, and both processes go on with system
        // calls.
        if let ForkResult::Parent { child } = unsafe { fork() }? {
            end_as(child);
        }
        let none = None::<&CStr>;
        mount(
            none,
            c"/",
            none,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            none,
        )?;
        let dir = root.dir.as_c_str();
        mount(Some(dir), dir, none, MsFlags::MS_BIND, none)?;
        for (from, to, flags) in &root.binds {
            let to = to.as_c_str();
            // With the mounts below it: a user namespace may not separate them.
            let whole = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(from.as_c_str()), to, none, whole, none)?;
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | *flags;
            mount(none, to, none, flags, none)?;
        }
        let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(
            Some(c"proc"),
            root.proc.as_c_str(),
            Some(c"proc"),
            safe,
            none,
        )?;
        // pivot_root stacks the old root on the new one, where it can be
        // unmounted.
        chdir(dir)?;
        pivot_root(c".", c".")?;
        umount2(c".", MntFlags::MNT_DETACH)?;
        chdir(c"/")?;
        Ok(chdir(root.cwd.as_c_str())?)
    };
    // SAFETY: the closure only makes system calls, and allocates nothing: every
    // path is a C string already.
    unsafe { command.pre_exec(enter) };
}

/// Waits for `child` and ends with its status; allocates nothing.
fn end_as(child: Pid) -> ! {
    let mut status = 0;
    // SAFETY: whoever has started this process waits until its descriptors are
    // closed, which are the child's now; `status` outlives the calls.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0);
        while libc::waitpid(child.as_raw(), &mut status, 0) == -1 {
            if Errno::last() != Errno::EINTR {
                libc::_exit(1);
            }
        }
        libc::_exit(match libc::WIFSIGNALED(status) {
            true => 128 + libc::WTERMSIG(status),
            false => libc::WEXITSTATUS(status),
        })
    }
}

fn put(file: &CStr, text: &[u8]) -> nix::Result<()> {
    let file = open(file, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    write(&file, text).map(drop)
}
