//! A minimal init: PID 1 of the container, with the command as its child.
//!
//! Its duties are those that the kernel gives to PID 1 of a PID namespace
//! (pid_namespaces(7)): it must wait(2) for every orphan, or zombies stay; it
//! must ask for the signals it wants, because PID 1 gets none of the others;
//! and its end is the end of the namespace, so it ends when the command does.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{ForkResult, Pid, chdir, getpgid};
use process::sys::signals::{self, kill, read_signal, signalfd};
use process::{LAUNCHER_FAILED, SignalSet, say, sys};
use rustix::process::{WaitOptions, wait};

/// Signals that init leaves alone: two that nobody can hold back, and those by
/// which the kernel tells a process of its own faults.
const NOT_TAKEN: [Signal; 9] = [
    Signal::SIGKILL,
    Signal::SIGSTOP,
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGSEGV,
    Signal::SIGSYS,
    Signal::SIGTRAP,
];

// ANCHOR: fork
/// Splits the caller in two. The parent, PID 1, becomes init and never
/// returns. The child returns, to become the command.
///
/// Init takes every signal but those above, the real-time ones too. They stay
/// blocked in it for good: a blocked signal is kept also for a PID 1 without a
/// handler, and is read from a descriptor. The child has the same mask when it
/// returns; the launcher empties it, as it does without init.
///
/// # Errors
/// Those of signalfd(2), prctl(2) and fork(2), before anything is split.
pub fn fork() -> Result<()> {
    let taken = SignalSet::ALL.without(NOT_TAKEN.into_iter().collect());
    signals::block(taken)?;
    let signals = signalfd(taken)?;
    // Once more, because a change of credentials clears it; and before the
    // fork, because the child then looks whether the launcher still lives.
    prctl::set_pdeathsig(Signal::SIGKILL).context("prctl(PR_SET_PDEATHSIG)")?;
    match sys::fork()? {
        ForkResult::Child => Ok(()),
        ForkResult::Parent { child: command } => {
            say!("init: the command is process {command} of the container");
            // Nobody is left to be told of an error: the streams are closed.
            sys::exit(serve(command, &signals).unwrap_or(LAUNCHER_FAILED))
        }
    }
}
// ANCHOR_END: fork

// ANCHOR: serve
/// Reaps and passes on until the command ends, and returns its status.
fn serve(command: Pid, signals: &OwnedFd) -> Result<u8> {
    // ANCHOR: exercise_serve
    // Whoever reads from the command's pipes waits for the last writer to
    // close them, and the launcher for the last end of its report pipe: init
    // must not be it.
    sys::close_all_but(signals.as_fd())?;
    // Nor shall the directory in which it was started stay in use.
    chdir("/").context("chdir(/)")?;
    prctl::set_name(c"init").context("prctl(PR_SET_NAME)")?;
    loop {
        if let Some(status) = reap(command)? {
            return Ok(status);
        }
        let (signal, code) = read_signal(signals)?;
        match signal.named() {
            Some(Signal::SIGCHLD) => {}
            // From the kernel: what a terminal tells its foreground process
            // group (si_code of sigaction(2)), the command has been told too.
            _ if code > 0 => {}
            _ => kill(command, signal).with_context(|| format!("kill({command})"))?,
        }
    }
    // ANCHOR_END: exercise_serve
}
// ANCHOR_END: serve

// ANCHOR: reap
/// Waits for all children that have ended: the command, and the orphans, which
/// nobody else can wait for. The status of the command, once it has ended.
fn reap(command: Pid) -> Result<Option<u8>> {
    // ANCHOR: exercise_reap
    loop {
        // rustix's wait, because nix's knows no real-time signals, and a child
        // may end by one.
        let found = match wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
            Err(rustix::io::Errno::CHILD) => None,
            found => found.context("waitpid(-1)")?,
        };
        let Some((pid, status)) = found else {
            return Ok(None);
        };
        if pid.as_raw_pid() != command.as_raw() {
            continue;
        }
        if let Some(code) = status.exit_status() {
            return Ok(Some(code as u8));
        }
        if let Some(signal) = status.terminating_signal() {
            return Ok(Some(128 + signal as u8));
        }
        if status.stopping_signal() == Some(Signal::SIGTSTP as i32) {
            resume(command)?;
        }
    }
    // ANCHOR_END: exercise_reap
}
// ANCHOR_END: reap

/// Undoes Ctrl-Z. The shell outside waits for its own child, the launcher, and
/// that for PID 1; but PID 1 cannot be stopped from inside, so that nobody
/// outside would hear of it and the terminal would hang. Without init the
/// kernel's rule has the same effect: the command is PID 1, and does not stop.
/// A shell inside stops its own jobs, which are not concerned.
fn resume(command: Pid) -> Result<()> {
    // 0, its own group, if the command's is not of this PID namespace.
    let group = getpgid(Some(command)).with_context(|| format!("getpgid({command})"))?;
    match killpg(group, Signal::SIGCONT) {
        Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("killpg({group}, SIGCONT)")),
    }
}
