//! The verdict of a filter on a system call: seccomp(2), “Return values”.

use std::fmt;

use libc::{
    SECCOMP_RET_ALLOW, SECCOMP_RET_DATA, SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS,
    SECCOMP_RET_KILL_THREAD, SECCOMP_RET_LOG, SECCOMP_RET_TRACE, SECCOMP_RET_TRAP,
    SECCOMP_RET_USER_NOTIF,
};
use nix::errno::Errno;

/// What happens to a system call. The order is the kernel's precedence, the
/// strictest first: of several actions for one call, the smallest applies.
// ANCHOR: action
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// The process ends, as by SIGSYS.
    KillProcess,
    /// The thread ends, as by SIGSYS; with its last thread the process.
    KillThread,
    /// The thread gets SIGSYS, for which it may have a handler.
    Trap,
    /// The call is not made; it returns this errno.
    Errno(u16),
    /// Another process decides, through a descriptor (seccomp_unotify(2)).
    Notify,
    /// A tracer decides, and reads this number (ptrace(2)); `ENOSYS` without
    /// one.
    Trace(u16),
    /// The call is made, and logged.
    Log,
    /// The call is made.
    Allow,
}
// ANCHOR_END: action

/// The highest errno that a filter can return: the kernel caps larger ones.
pub const HIGHEST_ERRNO: u16 = 4095;

impl Action {
    /// The value that a program returns for this action.
    pub fn value(self) -> u32 {
        match self {
            Action::KillProcess => SECCOMP_RET_KILL_PROCESS,
            Action::KillThread => SECCOMP_RET_KILL_THREAD,
            Action::Trap => SECCOMP_RET_TRAP,
            Action::Errno(errno) => SECCOMP_RET_ERRNO | u32::from(errno),
            Action::Notify => SECCOMP_RET_USER_NOTIF,
            Action::Trace(message) => SECCOMP_RET_TRACE | u32::from(message),
            Action::Log => SECCOMP_RET_LOG,
            Action::Allow => SECCOMP_RET_ALLOW,
        }
    }

    /// The action of a program's return value. The kernel takes a value that it
    /// does not know for `KillProcess`.
    pub fn of(value: u32) -> Action {
        let data = (value & SECCOMP_RET_DATA) as u16;
        match value & !SECCOMP_RET_DATA {
            SECCOMP_RET_KILL_THREAD => Action::KillThread,
            SECCOMP_RET_TRAP => Action::Trap,
            SECCOMP_RET_ERRNO => Action::Errno(data.min(HIGHEST_ERRNO)),
            SECCOMP_RET_USER_NOTIF => Action::Notify,
            SECCOMP_RET_TRACE => Action::Trace(data),
            SECCOMP_RET_LOG => Action::Log,
            SECCOMP_RET_ALLOW => Action::Allow,
            _ => Action::KillProcess,
        }
    }

    /// Whether the kernel makes the call, unless somebody else objects.
    pub fn lets_pass(self) -> bool {
        self >= Action::Notify
    }
}

impl fmt::Display for Action {
    /// The verdict, in words: `refused with EPERM`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::KillProcess => f.write_str("kills the process"),
            Action::KillThread => f.write_str("kills the thread"),
            Action::Trap => f.write_str("answered with SIGSYS"),
            Action::Errno(errno) => write!(f, "refused with {}", errno_name(*errno)),
            Action::Notify => f.write_str("decided by another process"),
            Action::Trace(message) => write!(f, "decided by a tracer ({message})"),
            Action::Log => f.write_str("allowed, and logged"),
            Action::Allow => f.write_str("allowed"),
        }
    }
}

/// The name of an errno, or its number if it has none.
pub fn errno_name(number: u16) -> String {
    match Errno::from_raw(i32::from(number)) {
        Errno::UnknownErrno => format!("errno {number}"),
        errno => format!("{errno:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_the_kernels_and_the_strictest_is_the_smallest() {
        let all = [
            Action::KillProcess,
            Action::KillThread,
            Action::Trap,
            Action::Errno(1),
            Action::Notify,
            Action::Trace(7),
            Action::Log,
            Action::Allow,
        ];
        assert!(all.is_sorted());
        // The kernel compares the values as signed numbers.
        assert!(all.map(|action| action.value() as i32).is_sorted());
        assert_eq!(all.map(|action| Action::of(action.value())), all);
        assert_eq!(Action::of(0x1234_0000), Action::KillProcess);
        assert_eq!(Action::of(0x0005_ffff), Action::Errno(4095));
        assert_eq!(Action::Errno(1).to_string(), "refused with EPERM");
        assert_eq!(Action::Errno(4000).to_string(), "refused with errno 4000");
    }
}
