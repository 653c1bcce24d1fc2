//! Two processes to move about in hierarchies.

use std::fs::File;
use std::io::{Read, Write};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, pause, pipe2};
use process::sys;

/// A process that does nothing but have a child when it is told to, which does
/// nothing either.
pub(crate) struct Family {
    pub(crate) parent: Pid,
    order: File,
    answer: File,
}

impl Family {
    /// Starts it.
    ///
    /// # Errors
    /// Those of pipe(2) and fork(2).
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
                let (mut heard, mut answered) = (File::from(heard), File::from(answered));
                let told = heard.read(&mut [0]).is_ok_and(|n| n == 1);
                if told && let Ok(ForkResult::Parent { child }) = sys::fork() {
                    if answered.write_all(child.to_string().as_bytes()).is_err() {
                        sys::exit(1);
                    }
                    drop(answered);
                }
                // The command's end closes the pipe, and that ends the family.
                loop {
                    if heard.read(&mut [0]).is_ok_and(|n| n == 0) {
                        sys::exit(0);
                    }
                    pause();
                }
            }
        }
    }

    /// Has it fork, and returns the child's PID.
    ///
    /// # Errors
    /// Where it could not.
    pub(crate) fn have_child(&self) -> Result<Pid> {
        (&self.order).write_all(&[1]).context("write to the pipe")?;
        let mut bytes = [0; 16];
        let length = (&self.answer)
            .read(&mut bytes)
            .context("read from the pipe")?;
        let text = String::from_utf8_lossy(&bytes[..length]);
        Ok(Pid::from_raw(text.parse().context("fork")?))
    }

    /// Ends both.
    ///
    /// # Errors
    /// Those of kill(2) and waitpid(2).
    pub(crate) fn end(self) -> Result<()> {
        let Family {
            parent,
            order,
            answer,
        } = self;
        drop((order, answer));
        match kill(parent, Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno).context("kill"),
        }
        waitpid(parent, None).context("waitpid")?;
        Ok(())
    }
}
