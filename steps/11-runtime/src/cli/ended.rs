//! The end of a container: its first process, and the hooks after it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kit::ProcessIdentity;
use kit::sys::signals::pidfd_send_signal;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use rustix::process::{PidfdFlags, pidfd_open};

use crate::config::Config;
use crate::launch::hooks::run_all;
use crate::state::{Container, Status};

/// A descriptor of the process; `None` if it has ended. The descriptor refers to
/// that process even after its PID is reused.
pub(crate) fn pidfd(process: ProcessIdentity) -> Result<Option<OwnedFd>> {
    let pid = rustix::process::Pid::from_raw(process.pid).context("0 is no PID")?;
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(errno) => return Err(errno).with_context(|| format!("pidfd_open({pid:?})")),
    };
    // Asked after the descriptor exists: from here on it is the right one.
    Ok(process.is_alive().then_some(pidfd))
}

/// The time limit for the end of a process after SIGKILL: the first process of a
/// PID namespace ends after all others, and these when their parents have
/// noticed.
const PATIENCE: Duration = Duration::from_secs(10);

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
    match ends_within(pidfd.as_fd(), PATIENCE)? {
        true => Ok(()),
        false => bail!("process {} survives SIGKILL", process.pid),
    }
}

/// Waits for the end of a process; `false` if it lives longer than `patience`.
pub(crate) fn ends_within(pidfd: BorrowedFd<'_>, patience: Duration) -> Result<bool> {
    let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    loop {
        let mut fds = [PollFd::new(pidfd, PollFlags::POLLIN)];
        match poll(&mut fds, patience) {
            Ok(n) => return Ok(n > 0),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("poll"),
        }
    }
}

/// Runs the hooks after the end of a container.
pub(crate) fn poststop(container: &Container, config: &Config) -> Result<()> {
    let state = container.state(Status::Stopped)?;
    run_all("poststop", &config.hooks.poststop, &state)
}
