//! `kill`, `delete`, `pause` and `resume`.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, bail};
use kit::sys::signals::{kill, pidfd_send_signal};
use kit::{ProcessIdentity, SignalNumber, warn};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::Signal;
use rustix::process::{PidfdFlags, pidfd_open};

use crate::cli::args::{Delete, Globals, Kill};
use crate::cli::create::poststop;
use crate::state::{Container, Status, Store, UNKNOWN};

/// A descriptor of the process; `None` if it has ended. The descriptor refers to
/// that process even after its PID is reused.
fn pidfd(process: ProcessIdentity) -> Result<Option<OwnedFd>> {
    let pid = rustix::process::Pid::from_raw(process.pid).context("0 is no PID")?;
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(errno) => return Err(errno).with_context(|| format!("pidfd_open({pid:?})")),
    };
    // Asked after the descriptor exists: from here on it is the right one.
    Ok(process.is_alive().then_some(pidfd))
}

/// Sends a signal to the first process; `false` if it has ended.
fn signal_first(container: &Container, signal: SignalNumber) -> Result<bool> {
    let Some(process) = container.record.process else {
        return Ok(false);
    };
    let Some(pidfd) = pidfd(process)? else {
        return Ok(false);
    };
    match pidfd_send_signal(pidfd.as_fd(), signal) {
        Ok(()) => Ok(true),
        Err(Errno::ESRCH) => Ok(false),
        Err(errno) => Err(errno).with_context(|| format!("kill({}, {signal})", process.pid)),
    }
}

/// `kill`.
pub(crate) fn kill_container(globals: &Globals, args: &Kill) -> Result<()> {
    let signal: SignalNumber = args.signal.parse()?;
    let is_kill = signal.named() == Some(Signal::SIGKILL);
    let container = Store::new(globals.root.clone())?.look(&args.id)?;
    let status = container.status()?;
    // Without a PID namespace the others do not end with the first.
    let all = args.all || is_kill && !container.record.own_pids;
    if all {
        if is_kill {
            return container.record.cgroup.kill();
        }
        for pid in container.record.cgroup.processes()? {
            match kill(pid, signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno).with_context(|| format!("kill({pid}, {signal})")),
            }
        }
        return Ok(());
    }
    if !signal_first(&container, signal)? {
        bail!("container not running");
    }
    // A frozen process of v1 does not die.
    if is_kill && status == Status::Paused {
        container.record.cgroup.freeze(false)?;
    }
    Ok(())
}

/// The time limit for the end of a process after SIGKILL, in milliseconds: the
/// first process of a PID namespace ends after all others, and these when their
/// parents have noticed.
const PATIENCE: u16 = 10_000;

/// Kills the first process, and waits for its end.
///
/// # Errors
/// If it lives after ten seconds.
pub(crate) fn end_first(container: &Container) -> Result<()> {
    let Some(process) = container.record.process else {
        return Ok(());
    };
    let Some(pidfd) = pidfd(process)? else {
        return Ok(());
    };
    match pidfd_send_signal(pidfd.as_fd(), Signal::SIGKILL.into()) {
        Ok(()) => {}
        Err(Errno::ESRCH) => return Ok(()),
        Err(errno) => return Err(errno).with_context(|| format!("kill({}, 9)", process.pid)),
    }
    // A frozen process of v1 does not die.
    if container.record.cgroup.is_frozen()? {
        container.record.cgroup.freeze(false)?;
    }
    loop {
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PATIENCE) {
            Ok(0) => bail!("process {} survives SIGKILL", process.pid),
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("poll"),
        }
    }
}

/// `delete`.
pub(crate) fn delete(globals: &Globals, args: &Delete) -> Result<()> {
    let store = Store::new(globals.root.clone())?;
    let container = match store.change(&args.id) {
        Ok(container) => container,
        Err(error) if error.to_string().starts_with(UNKNOWN) => {
            store.remove_remains(&args.id)?;
            return match args.force {
                true => Ok(()),
                false => Err(error),
            };
        }
        Err(error) => return Err(error),
    };
    match container.status()? {
        Status::Stopped | Status::Creating => {}
        // It has never run.
        Status::Created => end_first(&container)?,
        _ if args.force => end_first(&container)?,
        status => bail!(
            "cannot delete container {} that is not stopped: {}",
            args.id,
            status.name()
        ),
    }
    container.record.cgroup.end()?;
    let config = container.config()?;
    // The specification: a warning, and the rest goes on.
    if let Err(error) = poststop(&container, &config) {
        warn!("{error:#}");
    }
    container.remove()
}

/// `pause` and `resume`.
pub(crate) fn pause(globals: &Globals, id: &str, pause: bool) -> Result<()> {
    let container = Store::new(globals.root.clone())?.change(id)?;
    match (container.status()?, pause) {
        (Status::Running | Status::Created, true) | (Status::Paused, false) => {
            container.record.cgroup.freeze(pause)
        }
        (status, true) => bail!("container not running: it is {}", status.name()),
        (status, false) => bail!("container not paused: it is {}", status.name()),
    }
}
