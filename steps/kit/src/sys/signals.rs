//! The calls about signals, with the sets and numbers of the kernel. The
//! functions of the C library refuse the signals that it reserves (32 and 33),
//! and those of nix do not support real-time signals.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::signal_number::{SignalNumber, SignalSet};

/// The size of the kernel's signal set, in bytes.
const SET: usize = size_of::<u64>();

/// Adds `set` to the blocked signals of this thread, and returns the previous
/// set: rt_sigprocmask(2).
pub fn block(set: SignalSet) -> Result<SignalSet> {
    change_mask(libc::SIG_BLOCK, set).context("rt_sigprocmask(SIG_BLOCK)")
}

/// Blocks exactly the signals in `set`: rt_sigprocmask(2).
pub fn set_mask(set: SignalSet) -> Result<()> {
    change_mask(libc::SIG_SETMASK, set)
        .map(drop)
        .context("rt_sigprocmask(SIG_SETMASK)")
}

fn change_mask(how: libc::c_int, set: SignalSet) -> nix::Result<SignalSet> {
    let mut before = 0u64;
    // SAFETY: both sets are valid for `SET` bytes.
    let done =
        unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, &set.0, &raw mut before, SET) };
    Errno::result(done).map(|_| SignalSet(before))
}

/// Returns a descriptor from which to read the signals in `set` while they are
/// blocked: signalfd(2), close-on-exec.
pub fn signalfd(set: SignalSet) -> Result<OwnedFd> {
    // SAFETY: the set is valid for `SET` bytes; -1 asks for a new descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_signalfd4, -1, &set.0, SET, libc::SFD_CLOEXEC) };
    let fd = Errno::result(fd).context("signalfd4")?;
    // SAFETY: the kernel has just opened this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Waits for the next signal, and returns it with its `si_code`.
pub fn read_signal(signalfd: impl AsFd) -> Result<(SignalNumber, i32)> {
    // SAFETY: the structure is made of integers, for which all zeroes is valid.
    let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
    let size = size_of_val(&info);
    let length = loop {
        let fd = signalfd.as_fd().as_raw_fd();
        // SAFETY: the kernel writes at most `size` bytes, any of which are valid.
        let read = unsafe { libc::read(fd, (&raw mut info).cast(), size) };
        match Errno::result(read) {
            Err(Errno::EINTR) => {}
            other => break other.context("read signalfd")?,
        }
    };
    match SignalNumber::new(info.ssi_signo as i32) {
        Some(signal) if length as usize == size => Ok((signal, info.ssi_code)),
        _ => bail!("read signalfd: {length} bytes, signal {}", info.ssi_signo),
    }
}

/// The kernel's `struct sigaction`, of which only the handler matters here. It
/// comes first, and all others are zero, in whichever order they follow.
type Action = [usize; 8];
const SIG_DFL: Action = [libc::SIG_DFL; 8];

/// The signals that this process ignores: rt_sigaction(2).
pub fn ignored() -> Result<SignalSet> {
    let mut set = SignalSet::EMPTY;
    for signal in all() {
        let mut action = SIG_DFL;
        // SAFETY: nothing is changed, and the structure is larger than the kernel's.
        let asked = unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal.raw(),
                std::ptr::null::<Action>(),
                &raw mut action,
                SET,
            )
        };
        Errno::result(asked).with_context(|| format!("rt_sigaction({signal})"))?;
        if action[0] == libc::SIG_IGN {
            set = set.with(signal);
        }
    }
    Ok(set)
}

/// Resets a signal to its default action: rt_sigaction(2) with `SIG_DFL`.
///
/// # Errors
/// `EINVAL` for SIGKILL and SIGSTOP.
pub fn default_action(signal: impl Into<SignalNumber>) -> Result<()> {
    let signal = signal.into();
    // SAFETY: the default action runs no code of ours.
    let set = unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal.raw(),
            &SIG_DFL,
            std::ptr::null::<Action>(),
            SET,
        )
    };
    Errno::result(set)
        .map(drop)
        .with_context(|| format!("rt_sigaction({signal}, SIG_DFL)"))
}

/// Resets every signal to its default action.
pub fn default_actions() -> Result<()> {
    // The action of these two cannot be changed, so it is the default.
    let fixed = |signal: &SignalNumber| {
        [Some(Signal::SIGKILL), Some(Signal::SIGSTOP)].contains(&signal.named())
    };
    all()
        .filter(|signal| !fixed(signal))
        .try_for_each(default_action)
}

fn all() -> impl Iterator<Item = SignalNumber> {
    (1..=i32::MAX).map_while(SignalNumber::new)
}

/// Sends a signal to a process, or to a process group by its negative number:
/// kill(2).
///
/// # Errors
/// `ESRCH` if there is no such process, `EPERM` if the caller may not signal
/// it.
pub fn kill(pid: Pid, signal: SignalNumber) -> nix::Result<()> {
    // SAFETY: kill(2) takes two numbers.
    Errno::result(unsafe { libc::kill(pid.as_raw(), signal.raw()) }).map(drop)
}

/// Sends a signal to the process that a pidfd refers to: pidfd_send_signal(2).
///
/// # Errors
/// `ESRCH` if it has ended, `EPERM` if the caller may not signal it.
pub fn pidfd_send_signal(process: BorrowedFd<'_>, signal: SignalNumber) -> nix::Result<()> {
    // SAFETY: null stands for the information that kill(2) would send.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            signal.raw(),
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    Errno::result(sent).map(drop)
}
