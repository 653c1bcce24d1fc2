//! Work in the network namespace of another process (setns(2)).
//!
//! A launcher never moves: a process of its own enters the namespace, works, and
//! sends back the descriptors that it has opened there. A socket belongs to the
//! network namespace in which it was made, whoever uses it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, anyhow};
use kit::sys::{exit, fork};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid};
use process::handover;

/// The longest message of an error, in bytes.
const LONGEST: u64 = 4096;

/// Runs `work` in the network namespace of the process `pid`, and returns the
/// descriptors that it has opened.
///
/// # Errors
/// `ESRCH` or `ENOENT` if the process has ended; `EPERM` without
/// `CAP_SYS_ADMIN` over the namespace; what `work` reports.
pub(crate) fn within(
    pid: Pid,
    work: &mut dyn FnMut() -> Result<Vec<OwnedFd>>,
) -> Result<Vec<OwnedFd>> {
    let path = format!("/proc/{pid}/ns/net");
    let namespace = File::open(&path).with_context(|| format!("open {path}"))?;
    let (ours, theirs) = UnixStream::pair().context("socketpair")?;
    let child = match fork()? {
        ForkResult::Child => {
            drop(ours);
            let done = setns(&namespace, CloneFlags::CLONE_NEWNET)
                .context("setns(CLONE_NEWNET)")
                .and_then(|()| work())
                .and_then(|opened| give(&theirs, &opened));
            let status = match done {
                Ok(()) => 0,
                Err(error) => {
                    let text = format!("{error:#}");
                    // Whoever does not hear it sees the status.
                    match (&theirs).write_all(text.as_bytes()) {
                        Ok(()) | Err(_) => 1,
                    }
                }
            };
            exit(status)
        }
        ForkResult::Parent { child } => child,
    };
    drop(theirs);
    let taken = take(&ours);
    loop {
        match waitpid(child, None) {
            Err(Errno::EINTR) => {}
            Ok(_) => break,
            Err(errno) => return Err(errno).context("waitpid"),
        }
    }
    taken.with_context(|| format!("in the network of process {pid}"))
}

/// The first byte says how many descriptors follow; an error begins with a
/// letter.
fn give(socket: &UnixStream, opened: &[OwnedFd]) -> Result<()> {
    let mut socket = socket;
    socket.write_all(&[opened.len() as u8]).context("write")?;
    for fd in opened {
        handover::send(socket, fd.as_fd())?;
    }
    Ok(())
}

fn take(socket: &UnixStream) -> Result<Vec<OwnedFd>> {
    let mut socket = socket;
    let mut first = [0];
    let length = socket.read(&mut first).context("read")?;
    if length == 0 {
        return Err(anyhow!("the process that entered it has died"));
    }
    if first[0] < b' ' {
        return (0..first[0]).map(|_| handover::receive(socket)).collect();
    }
    let mut text = first.to_vec();
    socket
        .take(LONGEST)
        .read_to_end(&mut text)
        .context("read")?;
    Err(anyhow!("{}", String::from_utf8_lossy(&text)))
}
