//! The errors that calls are made to fail with, and the calls that are spared.

use nix::errno::Errno;

/// The plausible errors of each call: its man page in section 2 names them, and
/// a full, slow, forbidding or broken machine causes them.
const ERRORS: &[(&[&str], &[Errno])] = {
    use Errno::*;
    &[
        (
            &["open", "openat", "openat2"],
            &[ENOENT, EACCES, EMFILE, ENFILE, ENOSPC, EIO],
        ),
        (
            &["mkdir", "mkdirat", "mknodat", "symlink", "symlinkat"],
            &[ENOSPC, EEXIST],
        ),
        (&["mount", "fsopen", "fsconfig"], &[EPERM, EINVAL, ENODEV]),
        (
            &[
                "fsmount",
                "open_tree",
                "move_mount",
                "mount_setattr",
                "pivot_root",
            ],
            &[EPERM, EINVAL],
        ),
        (&["umount2"], &[EPERM, EBUSY]),
        (&["clone", "clone3"], &[EAGAIN, EPERM, ENOSPC, ENOSYS]),
        (&["fork", "vfork"], &[EAGAIN]),
        (&["unshare", "setns"], &[EPERM, ENOSPC]),
        (&["write"], &[ENOSPC, EIO, EINTR]),
        (&["read"], &[EIO, EINTR]),
        (&["copy_file_range", "sendfile"], &[ENOSPC, EIO]),
        (&["getdents64", "ftruncate", "fsync"], &[EIO]),
        // Security calls: a missing protection must be an error.
        (
            &[
                "prctl",
                "capget",
                "capset",
                "setgid",
                "setgroups",
                "setresgid",
                "setresuid",
                "setuid",
                "keyctl",
                "seccomp",
                "bpf",
            ],
            &[EPERM],
        ),
        (
            &[
                "prlimit64",
                "setrlimit",
                "setsid",
                "sethostname",
                "setdomainname",
            ],
            &[EPERM],
        ),
        (
            &[
                "rename",
                "renameat",
                "renameat2",
                "link",
                "linkat",
                "unlink",
                "unlinkat",
            ],
            &[ENOENT, EIO],
        ),
        (&["rmdir"], &[EBUSY, EIO]),
        (&["flock"], &[EAGAIN, EINTR, ENOLCK]),
        (
            &["sendto", "sendmsg", "recvfrom", "recvmsg"],
            &[ENOBUFS, EINTR],
        ),
        (&["socket"], &[EMFILE, EPERM, EAFNOSUPPORT]),
        (&["bind", "connect"], &[EADDRINUSE, ENOBUFS]),
        (&["getsockname", "setsockopt"], &[ENOBUFS]),
        (
            &[
                "access",
                "faccessat",
                "faccessat2",
                "newfstatat",
                "stat",
                "fstat",
                "lstat",
                "statx",
            ],
            &[EACCES, EIO],
        ),
        (
            &["readlink", "readlinkat", "statfs", "getcwd"],
            &[EACCES, EIO],
        ),
        (&["chdir", "fchdir", "chroot"], &[EACCES, EIO]),
        (&["chmod", "fchmod", "fchmodat", "fchmodat2"], &[EPERM, EIO]),
        (
            &["chown", "fchown", "fchownat", "lchown", "utimensat"],
            &[EPERM, EIO],
        ),
        (
            &[
                "getxattr",
                "lgetxattr",
                "fgetxattr",
                "listxattr",
                "llistxattr",
                "flistxattr",
            ],
            &[EIO],
        ),
        (&["setxattr", "lsetxattr", "fsetxattr"], &[ENOSPC, EPERM]),
        (&["fcntl", "dup", "dup2", "dup3"], &[EMFILE]),
        (
            &[
                "pipe2",
                "signalfd4",
                "pidfd_open",
                "memfd_create",
                "eventfd2",
            ],
            &[EMFILE, ENFILE],
        ),
        (&["execve", "execveat"], &[ENOENT, EACCES, ENOMEM]),
        (&["kill", "pidfd_send_signal"], &[EPERM]),
        (&["poll", "ppoll", "wait4", "waitid"], &[EINTR]),
        (&["close_range"], &[ENOSYS, EPERM]),
        (&["ioctl"], &[EIO]),
    ]
};

/// Calls at which no fault is injected, and why.
const LEFT_ALONE: &[(&[&str], &str)] = &[
    (
        &["brk", "mmap", "mprotect", "mremap", "munmap", "madvise"],
        "memory of the allocator's: without any, a Rust program aborts, by design",
    ),
    (
        &[
            "exit",
            "exit_group",
            "rt_sigreturn",
            "restart_syscall",
            "arch_prctl",
            "rseq",
            "set_robust_list",
            "set_tid_address",
            "futex",
            "sigaltstack",
            "membarrier",
        ],
        "the C library's and the Rust runtime's own, as is all that comes before main",
    ),
    (
        &[
            "getegid",
            "geteuid",
            "getgid",
            "getgroups",
            "getpgrp",
            "getpid",
            "getppid",
            "getresgid",
            "getresuid",
            "gettid",
            "getuid",
            "umask",
            "uname",
            "sched_getaffinity",
            "clock_gettime",
            "gettimeofday",
            "getrandom",
        ],
        "they do not fail (getrandom: not with the flags and lengths used)",
    ),
    (
        &["rt_sigaction", "rt_sigpending", "rt_sigprocmask", "lseek"],
        "they fail for wrong arguments only",
    ),
    (
        &["close"],
        "the descriptor is closed whatever it answers (close(2)), so nobody asks",
    ),
];

/// Calls that change nothing beyond the process. A kill there leaves the same
/// as a kill after the last call that did change something.
const CHANGE_NOTHING: &[&str] = &[
    "access",
    "bind",
    "capget",
    "chdir",
    "close_range",
    "connect",
    "dup",
    "dup2",
    "dup3",
    "eventfd2",
    "faccessat",
    "faccessat2",
    "fchdir",
    "fcntl",
    "fgetxattr",
    "flistxattr",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fstat",
    "getcwd",
    "getdents64",
    "getsockname",
    "getxattr",
    "ioctl",
    "keyctl",
    "lgetxattr",
    "listxattr",
    "llistxattr",
    "lstat",
    "memfd_create",
    "newfstatat",
    "open_tree",
    "pidfd_open",
    "pipe2",
    "poll",
    "ppoll",
    "prctl",
    "prlimit64",
    "read",
    "readlink",
    "readlinkat",
    "recvfrom",
    "recvmsg",
    "setsockopt",
    "signalfd4",
    "socket",
    "stat",
    "statfs",
    "statx",
];

/// The errors that a call is made to fail with; empty for a call that is
/// spared.
pub fn of(call: &str) -> &'static [Errno] {
    ERRORS
        .iter()
        .find(|(calls, _)| calls.contains(&call))
        .map_or(&[], |(_, errors)| errors)
}

/// Why a call is spared; `None` for all others.
pub fn left_alone(call: &str) -> Option<&'static str> {
    LEFT_ALONE
        .iter()
        .find(|(calls, _)| calls.contains(&call))
        .map(|(_, why)| *why)
}

/// Whether a kill before the call leaves something else than a kill after it.
pub fn changes(call: &str) -> bool {
    left_alone(call).is_none() && !CHANGE_NOTHING.contains(&call)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_in_one_place() {
        let failed: Vec<&str> = ERRORS
            .iter()
            .flat_map(|(calls, _)| *calls)
            .copied()
            .collect();
        for (place, call) in failed.iter().enumerate() {
            assert!(
                left_alone(call).is_none(),
                "{call} fails, and is left alone"
            );
            assert!(!failed[..place].contains(call), "{call} twice");
        }
        for call in CHANGE_NOTHING {
            assert!(left_alone(call).is_none(), "{call} is left alone anyway");
        }
    }
}
