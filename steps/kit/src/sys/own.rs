//! The session keyring, the execution domain and the scheduling of a process,
//! and the system clock.

use anyhow::{Context, Result};
use nix::errno::Errno;

/// Sets the tick of the system clock to `microseconds`: adjtimex(2) with
/// `ADJ_TICK`. The kernel checks rights before the value: a value that is
/// always out of range, such as 0, tells whether the caller may set the clock,
/// without setting it.
///
/// # Errors
/// `EPERM` without `CAP_SYS_TIME` in the initial user namespace, then `EINVAL`
/// for a value that differs from the nominal tick by more than a tenth.
pub fn adjust_tick(microseconds: libc::c_long) -> nix::Result<()> {
    // SAFETY: `timex` is a plain C structure for which all zeroes is valid.
    let mut request: libc::timex = unsafe { std::mem::zeroed() };
    request.modes = libc::ADJ_TICK;
    request.tick = microseconds;
    // SAFETY: a valid structure, which the kernel reads and overwrites.
    Errno::result(unsafe { libc::adjtimex(&mut request) }).map(drop)
}

/// Gives this process a session keyring of its own, anonymous and empty:
/// keyctl(2), `KEYCTL_JOIN_SESSION_KEYRING`. Succeeds without a keyring if the
/// kernel has no keys (`ENOSYS`).
///
/// # Errors
/// `EDQUOT` if the user has too many keys (`/proc/sys/kernel/keys`), `EPERM` if
/// another engine's seccomp filter forbids the call.
pub fn new_session_keyring() -> Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring; nothing is read.
    let joined = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0usize) };
    match Errno::result(joined) {
        Ok(_) | Err(Errno::ENOSYS) => Ok(()),
        Err(errno) => Err(errno).context("keyctl(KEYCTL_JOIN_SESSION_KEYRING)"),
    }
}

/// Resets the execution domain to Linux's own, with all features on:
/// personality(2). The caller's may have address space randomisation switched
/// off (setarch(8), a debugger).
pub fn default_personality() -> Result<()> {
    // SAFETY: only the layout of programs that are executed later changes.
    let before = unsafe { libc::personality(0) };
    Errno::result(before).map(drop).context("personality(0)")
}

/// Sets the execution domain: personality(2).
pub fn personality(domain: u32) -> Result<()> {
    // SAFETY: only the layout of programs that are executed later changes.
    let before = unsafe { libc::personality(libc::c_ulong::from(domain)) };
    Errno::result(before)
        .map(drop)
        .with_context(|| format!("personality({domain:#x})"))
}

/// Sets the class and the level of this process's I/O: ioprio_set(2).
pub fn set_io_priority(class: u8, level: u8) -> Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    let value = libc::c_int::from(class) << 13 | libc::c_int::from(level);
    // SAFETY: three numbers; 0 is the caller.
    let set = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) };
    Errno::result(set)
        .map(drop)
        .with_context(|| format!("ioprio_set(class {class}, level {level})"))
}

/// Leaves the real-time policies, the deadline policy, and the real-time class
/// of I/O: this process and its children are scheduled like any others, with
/// the same nice value (sched(7), ioprio_set(2)). Each of them is a right, which
/// only `CAP_SYS_NICE` or a limit gives.
pub fn leave_real_time() -> Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    const IOPRIO_CLASS_RT: libc::c_long = 1;
    // SAFETY: two calls that are told numbers only; 0 is the caller.
    let (policy, io) = unsafe {
        (
            libc::syscall(libc::SYS_sched_getscheduler, 0),
            libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0),
        )
    };
    // A call that fails, such as in a kernel without it, returns -1, which is
    // neither a policy nor a class to leave.
    let kept = libc::c_long::from(libc::SCHED_RESET_ON_FORK);
    let real_time = [libc::SCHED_FIFO, libc::SCHED_RR, libc::SCHED_DEADLINE];
    if policy >= 0 && real_time.contains(&((policy & !kept) as libc::c_int)) {
        // Clearing the flag would need `CAP_SYS_NICE`.
        let normal = libc::c_long::from(libc::SCHED_OTHER) | policy & kept;
        let priority: libc::c_int = 0;
        // SAFETY: `struct sched_param` is one int, which is only read.
        let set = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, normal, &priority) };
        Errno::result(set).context("sched_setscheduler(SCHED_OTHER)")?;
    }
    match io >= 0 && io >> 13 == IOPRIO_CLASS_RT {
        true => set_io_priority(0, 0),
        false => Ok(()),
    }
}

/// A policy for the memory of a process (set_mempolicy(2)): `MPOL_*`, with flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPolicy {
    /// The mode, or-ed with the flags.
    pub mode: u32,
    /// The nodes.
    pub nodes: Vec<u32>,
}

/// Sets the policy of this process's memory, which execve(2) keeps:
/// set_mempolicy(2).
pub fn set_memory_policy(policy: &MemoryPolicy) -> Result<()> {
    let words = policy.nodes.iter().max().map_or(0, |most| most / 64 + 1);
    let mut mask = vec![0u64; words as usize];
    for node in &policy.nodes {
        mask[(node / 64) as usize] |= 1 << (node % 64);
    }
    let (pointer, bits) = match words {
        0 => (std::ptr::null(), 0),
        // The kernel reads one bit less than it is told.
        words => (mask.as_ptr(), u64::from(words) * 64 + 1),
    };
    // SAFETY: the mask has as many bits as are read, and is only read.
    let set = unsafe { libc::syscall(libc::SYS_set_mempolicy, policy.mode, pointer, bits) };
    Errno::result(set)
        .map(drop)
        .with_context(|| format!("set_mempolicy({:#x}, {:?})", policy.mode, policy.nodes))
}

/// The scheduling of a process: `struct sched_attr` (sched_setattr(2)).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)] // The manual page has them.
pub struct SchedAttr {
    size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// Sets the scheduling of this process: sched_setattr(2).
pub fn set_scheduler(attr: SchedAttr) -> Result<()> {
    let attr = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        ..attr
    };
    // SAFETY: the structure has the size that it names, and is only read.
    let set = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &attr, 0) };
    Errno::result(set)
        .map(drop)
        .with_context(|| format!("sched_setattr({attr:?})"))
}
