//! `kill`, `delete`, `pause` and `resume`.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kit::sys::signals::{kill, pidfd_send_signal};
use kit::{SignalNumber, say, warn};
use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::cli::args::{Delete, Globals, Kill};
use crate::cli::ended::{end_first, ends_within, pidfd, poststop};
use crate::state::{Container, Status, Store, UNKNOWN};

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

/// `kill ID 0`: sends nothing, and says whether a process would get it.
fn is_there(globals: &Globals, args: &Kill) -> Result<()> {
    let container = Store::new(globals.root.clone())?.look(&args.id)?;
    // To all, however many there are.
    ensure!(
        args.all || container.process().is_some(),
        "container not running"
    );
    Ok(())
}

/// `kill`.
pub(crate) fn kill_container(globals: &Globals, args: &Kill) -> Result<()> {
    if args.signal == "0" {
        return is_there(globals, args);
    }
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

/// The container of an ID, to remove, unless somebody is creating it: that may
/// take as long as its hooks do.
fn not_created(store: &Store, id: &str) -> Result<Container> {
    match store.look(id) {
        Ok(container) if container.status()? == Status::Creating => {
            bail!("cannot delete container {id} that is not stopped: creating")
        }
        _ => store.change(id),
    }
}

/// How long a launch may take to end by itself.
const SOON: Duration = Duration::from_secs(2);

/// The container of an ID, to remove: whoever is creating or starting it, and
/// may hang in a hook, is ended first.
fn seize(store: &Store, id: &str) -> Result<Container> {
    if let Some(container) = store.change_within(id, Duration::ZERO)? {
        return Ok(container);
    }
    // Its record may be about to be written.
    if let Ok(container) = store.look(id) {
        // A launch ends when its child does, and cleans up after itself.
        end_first(&container)?;
        if container.record.process.is_none()
            && let Some(creator) = container.record.creator
            && let Some(pidfd) = pidfd(creator)?
        {
            say!("end process {}, which creates {id}", creator.pid);
            send(pidfd.as_fd(), Signal::SIGTERM)?;
            if !ends_within(pidfd.as_fd(), SOON)? {
                // What it leaves is recorded, and its child dies with it.
                send(pidfd.as_fd(), Signal::SIGKILL)?;
            }
        }
    }
    store.change(id)
}

fn send(pidfd: BorrowedFd<'_>, signal: Signal) -> Result<()> {
    match pidfd_send_signal(pidfd, signal.into()) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("pidfd_send_signal({signal})")),
    }
}

/// `delete`.
pub(crate) fn delete(globals: &Globals, args: &Delete) -> Result<()> {
    let store = Store::new(globals.root.clone())?;
    let found = match args.force {
        true => seize(&store, &args.id),
        false => not_created(&store, &args.id),
    };
    let container = match found {
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
    // The specification: a warning, and the rest goes on.
    if let Some(config) = container.config_if_left()?
        && let Err(error) = poststop(&container, &config)
    {
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
