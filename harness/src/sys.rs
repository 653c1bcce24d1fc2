//! The only `unsafe` of the harness.
#![allow(unsafe_code)]

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid, pipe, read, write};

/// Forks a child that forks a grandchild and ends: the grandchild is an
/// orphan, and whoever adopts orphans becomes its parent. It ends at once, or
/// never if `stay`. Returns its PID, as this process's namespace numbers it.
///
/// # Errors
/// Those of pipe(2) and fork(2), and for a caller with threads.
pub fn orphan(stay: bool) -> Result<Pid> {
    let (from_grandchild, to_parent) = pipe().context("pipe")?;
    let exit = |status| -> ! {
        // SAFETY: _exit(2) only ends the process.
        unsafe { libc::_exit(status) }
    };
    // SAFETY: the probe has one thread, so the child's copy of the memory is
    // consistent.
    if let ForkResult::Child = unsafe { fork() }.context("fork")? {
        // SAFETY: as above.
        match unsafe { fork() } {
            Ok(ForkResult::Parent { .. }) => exit(0),
            Ok(ForkResult::Child) => {
                let told = write(&to_parent, &getpid().as_raw().to_ne_bytes());
                if told.is_err() {
                    exit(1);
                }
                drop((from_grandchild, to_parent));
                if stay {
                    loop {
                        nix::unistd::pause();
                    }
                }
                exit(0)
            }
            Err(_) => exit(1),
        }
    }
    drop(to_parent);
    nix::sys::wait::wait().context("wait")?;
    let mut bytes = [0; 4];
    if read(&from_grandchild, &mut bytes).context("read from the orphan")? != bytes.len() {
        bail!("the orphan did not say its PID");
    }
    Ok(Pid::from_raw(i32::from_ne_bytes(bytes)))
}

/// Makes the process of `command` keep the descriptors `keep`, under the
/// numbers that they have here, and get `signal` when this process ends,
/// however that happens: `PR_SET_PDEATHSIG` of prctl(2).
///
/// The signal also comes when the thread that starts the command ends, so that
/// has to be one that waits for it.
pub fn bind_child(command: &mut Command, keep: Vec<OwnedFd>, signal: Signal) {
    let parent = getpid();
    let prepare = move || {
        set_pdeathsig(signal)?;
        if getppid() != parent {
            return Err(Errno::ESRCH.into());
        }
        for fd in &keep {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(())
    };
    // SAFETY: the closure only makes system calls that are async-signal-safe,
    // and allocates nothing.
    unsafe { command.pre_exec(prepare) };
}
