//! Tracing: what ptrace(2) needs beyond the safe wrappers of nix.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::unistd::{Pid, getpid, read, write};

/// Makes the process of `command` write its PID, as four bytes, into `tell`,
/// and wait for a byte from `go` before its execve(2).
pub fn wait_before_exec(command: &mut Command, tell: OwnedFd, go: OwnedFd) {
    let wait = move || {
        write(&tell, &getpid().as_raw().to_ne_bytes())?;
        match read(&go, &mut [0])? {
            0 => Err(Errno::ECANCELED.into()),
            _ => Ok(()),
        }
    };
    // SAFETY: the closure only makes system calls, and allocates nothing.
    unsafe { command.pre_exec(wait) };
}

/// Makes a tracee that is stopped at the entry of a system call skip it: the
/// kernel gets the number of no call. [`set_result`] at the exit sets the
/// result for the tracee.
///
/// # Errors
/// `ESRCH` if the tracee is gone.
#[cfg(target_arch = "x86_64")]
pub fn skip_call(tracee: Pid) -> nix::Result<()> {
    let mut registers = ptrace::getregs(tracee)?;
    registers.orig_rax = u64::MAX;
    ptrace::setregs(tracee, registers)
}

/// Makes a call fail with `errno`, at whose exit a tracee is stopped.
///
/// # Errors
/// `ESRCH` if the tracee is gone.
#[cfg(target_arch = "x86_64")]
pub fn set_result(tracee: Pid, errno: Errno) -> nix::Result<()> {
    let mut registers = ptrace::getregs(tracee)?;
    registers.rax = i64::from(-(errno as i32)) as u64;
    ptrace::setregs(tracee, registers)
}

/// Makes a tracee that is stopped at the entry of a system call skip it: the
/// kernel gets the number of no call. [`set_result`] at the exit sets the
/// result for the tracee.
///
/// # Errors
/// `ESRCH` if the tracee is gone.
#[cfg(target_arch = "aarch64")]
pub fn skip_call(tracee: Pid) -> nix::Result<()> {
    /// The register set that consists of the call's number (elf.h).
    const NT_ARM_SYSTEM_CALL: usize = 0x404;
    let mut none: libc::c_int = -1;
    let mut set = libc::iovec {
        iov_base: (&raw mut none).cast(),
        iov_len: size_of_val(&none),
    };
    // SAFETY: `set` describes `none`, and the kernel only reads both.
    let done = unsafe {
        libc::ptrace(
            libc::PTRACE_SETREGSET,
            tracee.as_raw(),
            NT_ARM_SYSTEM_CALL,
            &raw mut set,
        )
    };
    Errno::result(done).map(drop)
}

/// Makes a call fail with `errno`, at whose exit a tracee is stopped.
///
/// # Errors
/// `ESRCH` if the tracee is gone.
#[cfg(target_arch = "aarch64")]
pub fn set_result(tracee: Pid, errno: Errno) -> nix::Result<()> {
    use nix::sys::ptrace::regset::NT_PRSTATUS;
    let mut registers = ptrace::getregset::<NT_PRSTATUS>(tracee)?;
    registers.regs[0] = i64::from(-(errno as i32)) as u64;
    ptrace::setregset::<NT_PRSTATUS>(tracee, registers)
}

/// A stop of a tracee at a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Before the call: its number and its arguments.
    Entry(u64, [u64; 6]),
    /// After the call: its result; an errno is negative.
    Exit(i64),
}

/// The system call at which a tracee is stopped: `PTRACE_GET_SYSCALL_INFO`,
/// since Linux 5.3. `None` if it is stopped elsewhere.
///
/// # Errors
/// `ESRCH` if the tracee is gone.
pub fn call_of(tracee: Pid) -> nix::Result<Option<At>> {
    // SAFETY: a plain C structure for which all zeroes is valid.
    let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most as many bytes as it is told.
    let written = unsafe {
        libc::ptrace(
            libc::PTRACE_GET_SYSCALL_INFO,
            tracee.as_raw(),
            size_of_val(&info),
            &raw mut info,
        )
    };
    Errno::result(written)?;
    Ok(match info.op {
        // SAFETY: `op` says which of the union was written.
        libc::PTRACE_SYSCALL_INFO_ENTRY => unsafe {
            Some(At::Entry(info.u.entry.nr, info.u.entry.args))
        },
        // SAFETY: as above.
        libc::PTRACE_SYSCALL_INFO_EXIT => unsafe { Some(At::Exit(info.u.exit.sval)) },
        _ => None,
    })
}

/// Leaves a tracee stopped that a signal has stopped, as if it were not traced:
/// `PTRACE_LISTEN`.
///
/// # Errors
/// `ESRCH` if the tracee is gone.
pub fn listen(tracee: Pid) -> nix::Result<()> {
    // SAFETY: the request takes neither an address nor data.
    Errno::result(unsafe { libc::ptrace(libc::PTRACE_LISTEN, tracee.as_raw(), 0, 0) }).map(drop)
}
