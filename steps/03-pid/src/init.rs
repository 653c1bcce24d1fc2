//! A minimal init: PID 1 of the container, with the command as its child.
//!
//! Its duties are those that the kernel gives to PID 1 of a PID namespace
//! (pid_namespaces(7)): it must wait(2) for every orphan, or zombies stay; it
//! must ask for the signals it wants, because PID 1 gets none of the others;
//! and its end is the end of the namespace, so it ends when the command does.

//! It is a program of its own: a forked launcher would show the container its
//! environment, its command line with every `-e`, and its memory. The engine
//! has no second file to execute, so it executes a copy of itself that nobody
//! can change: a memfd, sealed (memfd_create(2), fcntl(2) `F_ADD_SEALS`), made
//! before the container is, and told by its name what it is.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use kit::sys::signals::{self, kill, read_signal, signalfd};
use kit::{SignalSet, say, sys};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::prctl;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{ForkResult, Pid, chdir, execveat, getpgid};
use process::LAUNCHER_FAILED;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::process::{WaitOptions, wait};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

/// The name under which the program is an init.
const NAME: &CStr = c"drydock-init";

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

/// A copy of this program in memory, sealed: nobody can write to it, through
/// `/proc/1/exe` neither.
///
/// # Errors
/// Those of memfd_create(2), of reading the program and of fcntl(2).
// ANCHOR: seal
pub fn seal() -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let made = match memfd_create(NAME, flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 every memfd can be executed.
        Err(rustix::io::Errno::INVAL) => memfd_create(NAME, flags),
        made => made,
    };
    let mut copy = File::from(made.context("memfd_create")?);
    let mut program = File::open("/proc/self/exe").context("open /proc/self/exe")?;
    io::copy(&mut program, &mut copy).context("copy the program into memory")?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    fcntl_add_seals(&copy, seals).context("fcntl(F_ADD_SEALS)")?;
    Ok(copy.into())
}
// ANCHOR_END: seal

/// The signals that init takes: all but those above, the real-time ones too.
fn taken() -> SignalSet {
    SignalSet::ALL.without(NOT_TAKEN.into_iter().collect())
}

// ANCHOR: fork
/// Splits the caller in two. The parent, PID 1, executes `program` and never
/// returns. The child returns, to become the command.
///
/// The signals for init are blocked from here on, across execve(2), and for good:
/// a blocked signal is kept also for a PID 1 without a handler, and is read from
/// a descriptor. The child has the same mask when it returns; the launcher empties
/// it, as it does without init.
///
/// # Errors
/// Those of prctl(2) and fork(2), before anything is split.
pub fn fork(program: OwnedFd) -> Result<()> {
    signals::block(taken())?;
    // Once more, because a change of credentials clears it; and before the
    // fork, because the child then looks whether the launcher still lives.
    prctl::set_pdeathsig(Signal::SIGKILL).context("prctl(PR_SET_PDEATHSIG)")?;
    match sys::fork()? {
        ForkResult::Child => Ok(()),
        ForkResult::Parent { child: command } => {
            say!("init: the command is process {command} of the container");
            // Close-on-exec: if there is something to say, there is no init.
            let complaints = rustix::io::fcntl_dupfd_cloexec(io::stderr(), 3);
            let Err(error) = execute(&program, command);
            if let Ok(complaints) = complaints {
                let text = format!("init: {error:#}\n");
                // Nobody is left to be told that it could not be said.
                let _unheard = rustix::io::write(complaints, text.as_bytes());
            }
            sys::exit(LAUNCHER_FAILED)
        }
    }
}
// ANCHOR_END: fork

/// Becomes init. It gets an empty environment, and nothing of the caller's is
/// open in it: whoever reads from the command's pipes waits for the last writer
/// to close them, and init must not be it. A program wants three streams, so it
/// gets itself for each.
fn execute(program: &OwnedFd, command: Pid) -> Result<std::convert::Infallible> {
    dup2_stdin(program).context("dup2(0)")?;
    dup2_stdout(program).context("dup2(1)")?;
    dup2_stderr(program).context("dup2(2)")?;
    let command = CString::new(command.to_string()).context("a PID")?;
    let env: [&CStr; 0] = [];
    execveat(
        program,
        c"",
        &[NAME, &command],
        &env,
        AtFlags::AT_EMPTY_PATH,
    )
    .context("execveat(the sealed copy of this program)")
}

/// What the program does as an init, if that is what it was executed for: `None`
/// if not.
pub fn asked_for() -> Option<u8> {
    let mut words = std::env::args_os();
    if words.next()?.as_encoded_bytes() != NAME.to_bytes() {
        return None;
    }
    let command = words.next()?.to_str()?.parse().ok()?;
    let served = || -> Result<u8> {
        // It was blocked before; a signal in between is still there.
        let signals = signalfd(taken())?;
        serve(Pid::from_raw(command), &signals)
    };
    // Nobody is left to be told of an error: the streams are closed.
    Some(served().unwrap_or(LAUNCHER_FAILED))
}

// ANCHOR: serve
/// Reaps and passes on until the command ends, and returns its status.
fn serve(command: Pid, signals: &OwnedFd) -> Result<u8> {
    // ANCHOR: exercise_serve
    // The streams, which are this program itself.
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
