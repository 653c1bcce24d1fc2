//! What a process has of its own: its session keyring, its execution domain; and
//! the clock, which it shares.

use anyhow::{Context, Result};
use nix::errno::Errno;

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
