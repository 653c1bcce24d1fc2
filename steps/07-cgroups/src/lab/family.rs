//! Two processes to move between hierarchies.

use std::fs::File;
use std::io::{Read, Write};

use anyhow::{Context, Result};
use kit::sys;
use nix::fcntl::OFlag;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, pipe2};

/// A process that forks one idle child on request.
pub(crate) struct Family {
    pub(crate) parent: Pid,
    order: File,
    answer: File,
}

impl Family {
    /// Starts the process.
    pub(crate) fn start() -> Result<Self> {
        let flags = OFlag::O_CLOEXEC;
        let (heard, order) = pipe2(flags).context("pipe2")?;
        let (answer, answered) = pipe2(flags).context("pipe2")?;
        match sys::fork()? {
            ForkResult::Parent { child } => Ok(Family {
                parent: child,
                order: order.into(),
                answer: answer.into(),
            }),
            ForkResult::Child => {
                drop((order, answer));
                sys::exit(u8::from(live(heard.into(), answered.into()).is_err()))
            }
        }
    }

    /// Makes the process fork, and returns the child's PID.
    pub(crate) fn have_child(&self) -> Result<Pid> {
        (&self.order).write_all(&[1]).context("write to the pipe")?;
        let mut bytes = [0; 16];
        let length = (&self.answer)
            .read(&mut bytes)
            .context("read from the pipe")?;
        let text = String::from_utf8_lossy(&bytes[..length]);
        Ok(Pid::from_raw(text.parse().context("fork")?))
    }

    /// Ends both processes, and returns when the second is reaped: a zombie
    /// keeps its groups.
    pub(crate) fn end(self) -> Result<()> {
        let Family {
            parent,
            order,
            answer,
        } = self;
        drop((order, answer));
        waitpid(parent, None).context("waitpid")?;
        Ok(())
    }
}

/// The main function of the first process: it forks on request. Both processes
/// end when the pipe is closed.
fn live(mut heard: File, mut answered: File) -> Result<()> {
    if heard.read(&mut [0])? == 0 {
        return Ok(());
    }
    match sys::fork()? {
        ForkResult::Parent { child } => {
            answered.write_all(child.to_string().as_bytes())?;
            drop(answered);
            heard.read_to_end(&mut Vec::new())?;
            waitpid(child, None)?;
        }
        ForkResult::Child => {
            drop(answered);
            heard.read_to_end(&mut Vec::new())?;
        }
    }
    Ok(())
}
