//! A gate: the wait of a child that outlives its launcher, until another process
//! lets it go.
//!
//! A pipe ends with the process that made it. Two FIFOs (fifo(7)) in a
//! directory are found by a later process: the child waits for a byte in one,
//! and reports in the other whether it could execute the command. The launcher
//! opens both before the child exists, so the child needs no path to them in
//! the container's root.
//!
//! What the directory shows is always true: the child waits exactly as long as
//! it holds the FIFO open. It closes it in execve(2) or in its death, so
//! opening it without a reader fails (`ENXIO`). No file has to be removed at
//! the right moment.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use kit::own::remove_file;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::mkfifo;

use crate::failure::Report;

/// The FIFO in which the child waits for its start.
const START: &str = "start.fifo";
/// The FIFO of the child's last report.
const REPORT: &str = "report.fifo";

/// How long a container may live.
#[derive(Debug)]
pub(crate) enum Life {
    /// At most as long as its launcher.
    Launchers,
    /// Longer, once its command runs.
    Own,
    /// Longer, from the moment at which it waits at the gate.
    Gated(Gate),
}

/// Both FIFOs, open for reading and writing.
#[derive(Debug)]
pub struct Gate {
    start: File,
    report: File,
}

impl Gate {
    /// Makes the FIFOs in `directory`, which must belong to the caller alone.
    /// What an earlier launcher has left there is replaced.
    pub fn make(directory: &Path) -> Result<Self> {
        let make = |name: &str| {
            let path = directory.join(name);
            remove_file(&path)?;
            mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)
                .with_context(|| format!("mkfifo({path:?})"))?;
            // For both directions: it neither blocks nor ever reports that the
            // other end is gone (fifo(7)).
            opened(&path, OFlag::O_RDWR)
        };
        Ok(Gate {
            start: make(START)?,
            report: make(REPORT)?,
        })
    }

    /// Child: waits for the start.
    pub(crate) fn wait(&self) -> Result<()> {
        let mut byte = [0];
        let mut waiting = [PollFd::new(self.start.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut waiting, PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno).context("poll the start FIFO"),
            }
            match (&self.start).read(&mut byte) {
                Ok(1..) => return Ok(()),
                Ok(0) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("read from the start FIFO"),
            }
        }
    }

    /// Child: the FIFO for its last report.
    pub(crate) fn into_report(self) -> File {
        // The other one is closed, so that nobody starts the child twice.
        self.report
    }

    pub(crate) fn fds(&self) -> [BorrowedFd<'_>; 2] {
        [self.start.as_fd(), self.report.as_fd()]
    }
}

/// Whether a child waits at the gate in `directory`.
pub fn waits(directory: &Path) -> Result<bool> {
    Ok(entrance(directory)?.is_some())
}

/// Lets the child at the gate in `directory` go, and waits until its command
/// runs. Only one process may do so at a time.
///
/// # Errors
/// The child's own error if it cannot execute the command: it has then ended.
/// Says so if no child waits.
pub fn open_gate(directory: &Path) -> Result<()> {
    // Opened first: what the child writes from now on is read here, and once it
    // has closed its end, so is the end of it.
    let path = directory.join(REPORT);
    let reports = match opened(&path, OFlag::O_RDONLY) {
        Err(error) if kit::errno::is(&error, &[Errno::ENOENT]) => {
            bail!("nobody waits to be started")
        }
        opened => opened?,
    };
    let Some(mut start) = entrance(directory)? else {
        bail!("nobody waits to be started");
    };
    start.write_all(&[1]).context("write to the start FIFO")?;
    drop(start);
    let mut bytes = Vec::new();
    let mut waiting = [PollFd::new(reports.as_fd(), PollFlags::POLLIN)];
    loop {
        match poll(&mut waiting, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno).context("poll the report FIFO"),
        }
        let mut some = [0; 4096];
        match (&reports).read(&mut some) {
            Ok(0) => break,
            Ok(length) => bytes.extend_from_slice(&some[..length]),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error).context("read from the report FIFO"),
        }
    }
    match Report::decode(&bytes) {
        None => Ok(()),
        Some(Report::Failed(error)) => Err(error),
        Some(_) => bail!("the child has sent an unknown report"),
    }
}

// ANCHOR: entrance
/// The writing end of the start FIFO; `None` if there is no FIFO, or nobody
/// reads from it.
fn entrance(directory: &Path) -> Result<Option<File>> {
    match opened(&directory.join(START), OFlag::O_WRONLY) {
        Ok(file) => Ok(Some(file)),
        Err(error) if kit::errno::is(&error, &[Errno::ENOENT, Errno::ENXIO]) => Ok(None),
        Err(error) => Err(error),
    }
}
// ANCHOR_END: entrance

/// Opens a FIFO without waiting for its other end.
fn opened(path: &Path, access: OFlag) -> Result<File> {
    let flags = access | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let file: OwnedFd =
        open(path, flags, Mode::empty()).with_context(|| format!("open({path:?})"))?;
    let mode = fstat(&file)
        .with_context(|| format!("fstat({path:?})"))?
        .st_mode;
    if SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits()) != SFlag::S_IFIFO {
        bail!("{path:?} is not a FIFO: remove it");
    }
    Ok(file.into())
}
