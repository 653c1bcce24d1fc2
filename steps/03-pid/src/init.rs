//! A minimal init: PID 1 of the container, with the command as its child.
//!
//! Its duties are those that the kernel gives to PID 1 of a PID namespace
//! (pid_namespaces(7)). It must wait(2) for every orphan, or zombies remain. It
//! must request the signals that it wants, because PID 1 gets no others. Its
//! end is the end of the namespace, so it ends when the command does.
//!
//! Init is executed as a program of its own: a forked launcher would show the
//! container its environment, its command line with every `-e`, and its memory.
//! The engine has no second file to execute, so it executes a copy of itself
//! that nobody can change: a sealed memfd (memfd_create(2), fcntl(2)
//! `F_ADD_SEALS`), made before the container. `argv[0]` tells the program that
//! it is init.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use kit::sys::Arguments;
use kit::sys::signals::{self, kill, read_signal, signalfd};
use kit::{SignalSet, say, sys};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::prctl;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{ForkResult, Pid, chdir, getpgid, pipe2};
use process::LAUNCHER_FAILED;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::process::{WaitOptions, wait};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

/// The `argv[0]` that makes the program an init, and the name of its memfd.
const NAME: &CStr = c"drydock-init";

/// Signals that stay unblocked: SIGKILL and SIGSTOP, which cannot be blocked,
/// and the signals for faults of the process itself.
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

/// Makes a sealed copy of this program in memory: nobody can write to it, not
/// even through `/proc/1/exe`.
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
    io::copy(&mut program, &mut copy)
        .context("copy_file_range or sendfile(memfd, /proc/self/exe)")?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    fcntl_add_seals(&copy, seals).context("fcntl(memfd, F_ADD_SEALS)")?;
    Ok(copy.into())
}
// ANCHOR_END: seal

/// The signals that init handles: all except [`NOT_TAKEN`], including real-time
/// signals.
fn taken() -> SignalSet {
    SignalSet::ALL.without(NOT_TAKEN.into_iter().collect())
}

// ANCHOR: fork
/// Forks the caller. The parent, PID 1, executes `program` and never returns.
/// The child returns, to execute the command.
///
/// The signals for init stay blocked from here on, across execve(2) too. A
/// blocked signal is kept even for a PID 1 without a handler, and init reads it
/// from a signalfd(2). The child returns with the same mask, which is emptied
/// before execve(2), as it is without init.
///
/// PID 1 calls `seal` when nothing but its own execve(2) is left. The child
/// waits until that has happened.
pub fn fork(program: OwnedFd, seal: impl FnOnce() -> Result<()>) -> Result<()> {
    signals::block(taken())?;
    // Again, because a change of credentials clears the request. Before the
    // fork, because the child checks afterwards whether the launcher still
    // lives.
    prctl::set_pdeathsig(Signal::SIGKILL).context("prctl(PR_SET_PDEATHSIG)")?;
    let (executed, executing) = pipe2(OFlag::O_CLOEXEC).context("pipe2")?;
    match sys::fork()? {
        ForkResult::Child => wait_for_init(executed, executing),
        ForkResult::Parent { child: command } => {
            say!("init: the command is process {command} of the container");
            // Close-on-exec: needed only if execveat(2) fails.
            let complaints = rustix::io::fcntl_dupfd_cloexec(io::stderr(), 3);
            let Err(error) = execute(&program, command, seal);
            if let Ok(complaints) = complaints {
                let text = format!("init: {error:#}\n");
                // There is nobody left to report a failed write to.
                let _unheard = rustix::io::write(complaints, text.as_bytes());
            }
            sys::exit(LAUNCHER_FAILED)
        }
    }
}
// ANCHOR_END: fork

/// Waits until init executes its program: end of file, since the other end is
/// close-on-exec. Before that it has all the rights of the set-up, and the
/// command must not meet it.
fn wait_for_init(executed: OwnedFd, executing: OwnedFd) -> Result<()> {
    drop(executing);
    File::from(executed)
        .read_to_end(&mut Vec::new())
        .map(drop)
        .context("wait for the init")
}

/// Executes init, with an empty environment and without any open file of the
/// caller: a reader of the command's pipes waits until the last writer closes
/// them, and that must not be init. A program expects three standard streams,
/// so init gets its own program for each.
fn execute(
    program: &OwnedFd,
    command: Pid,
    seal: impl FnOnce() -> Result<()>,
) -> Result<std::convert::Infallible> {
    dup2_stdin(program).context("dup2(memfd, 0)")?;
    dup2_stdout(program).context("dup2(memfd, 1)")?;
    dup2_stderr(program).context("dup2(memfd, 2)")?;
    let name = NAME.to_string_lossy().into_owned();
    let arguments = Arguments::new(&[name.into(), command.to_string().into()], &[])?;
    seal()?;
    Err(arguments.execve_open(program.as_fd())).context("execveat(the sealed copy of this program)")
}

/// Runs init if the program was executed as such, and returns its exit status.
/// Returns `None` otherwise.
pub fn asked_for() -> Option<u8> {
    let mut words = std::env::args_os();
    if words.next()?.as_encoded_bytes() != NAME.to_bytes() {
        return None;
    }
    let command = words.next()?.to_str()?.parse().ok()?;
    let served = || -> Result<u8> {
        // The signals are blocked already: those that have arrived are pending.
        let signals = signalfd(taken())?;
        serve(Pid::from_raw(command), &signals)
    };
    // The streams are closed, so only the status can report an error.
    Some(served().unwrap_or(LAUNCHER_FAILED))
}

// ANCHOR: serve
/// Reaps processes and forwards signals until the command ends, and returns its
/// exit status.
fn serve(command: Pid, signals: &OwnedFd) -> Result<u8> {
    // ANCHOR: exercise_serve
    // Close the standard streams, which are this program itself.
    sys::close_all_but(signals.as_fd())?;
    // Release the directory in which the launcher was started.
    chdir("/").context("chdir(/)")?;
    prctl::set_name(c"init").context("prctl(PR_SET_NAME)")?;
    loop {
        if let Some(status) = reap(command)? {
            return Ok(status);
        }
        let (signal, code) = read_signal(signals)?;
        match signal.named() {
            Some(Signal::SIGCHLD) => {}
            // Sent by the kernel (si_code of sigaction(2)), for example for a
            // terminal: the whole foreground process group, and so the command,
            // has got it too.
            _ if code > 0 => {}
            _ => kill(command, signal).with_context(|| format!("kill({command})"))?,
        }
    }
    // ANCHOR_END: exercise_serve
}
// ANCHOR_END: serve

// ANCHOR: reap
/// Reaps all children that have ended: the command, and the orphans, which only
/// PID 1 can wait for. Returns the status of the command once it has ended.
fn reap(command: Pid) -> Result<Option<u8>> {
    // ANCHOR: exercise_reap
    loop {
        // rustix's wait, because nix's fails for a child that was killed by a
        // real-time signal.
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

/// Continues the command after Ctrl-Z. The shell outside waits for its own
/// child, the launcher, which waits for PID 1. PID 1 cannot be stopped from
/// inside, so nobody outside would notice the stop, and the terminal would
/// hang. Without init the kernel's rule has the same effect: the command is PID
/// 1, and does not stop. The jobs of a shell inside are not affected.
fn resume(command: Pid) -> Result<()> {
    // 0, init's own group, if the command's group is outside this PID
    // namespace.
    let group = getpgid(Some(command)).with_context(|| format!("getpgid({command})"))?;
    match killpg(group, Signal::SIGCONT) {
        Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("killpg({group}, SIGCONT)")),
    }
}
