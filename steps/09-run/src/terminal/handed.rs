//! Streams of a container whose launcher stays in the background: it keeps their
//! other ends, for a log and for those who attach.

use std::cell::RefCell;
use std::io::{PipeReader, PipeWriter, pipe};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use anyhow::{Context, Result};
use nix::unistd::Pid;
use process::Isolation;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::terminal::pipes::{READ, WRITE, null, share};

/// The launcher's ends of a container's streams.
#[derive(Debug)]
pub enum Kept {
    /// Without a terminal.
    Pipes {
        /// The command's input; `None` if it is empty.
        input: Option<PipeWriter>,
        /// The command's output.
        output: PipeReader,
        /// The command's error output.
        error: PipeReader,
    },
    /// With a terminal: a socket on which the child sends its master
    /// ([`process::handover::receive`]).
    Terminal {
        /// The socket. It is at its end if the child dies before.
        socket: OwnedFd,
    },
}

/// A place for the launcher's ends, shared by the isolation that makes them and
/// the launcher that uses them.
#[derive(Clone, Debug, Default)]
pub struct Ends(Rc<RefCell<Option<Kept>>>);

impl Ends {
    pub(super) fn put(&self, kept: Kept) {
        self.0.replace(Some(kept));
    }

    /// The ends; `None` before the child exists, and once they have been taken.
    pub fn take(&self) -> Option<Kept> {
        self.0.take()
    }
}

/// Three pipes, or two if the command has no input.
#[derive(Debug)]
pub struct HandedOver {
    interactive: bool,
    ends: Ends,
    input: Option<(PipeReader, PipeWriter)>,
    outputs: Option<[(PipeReader, PipeWriter); 2]>,
    /// In the child: whether its ends are the standard streams.
    connected: bool,
}

impl HandedOver {
    pub(super) fn new(interactive: bool, ends: Ends) -> Self {
        HandedOver {
            interactive,
            ends,
            input: None,
            outputs: None,
            connected: false,
        }
    }
}

impl Isolation for HandedOver {
    fn name(&self) -> &'static str {
        "pipes"
    }

    fn prepare(&mut self) -> Result<()> {
        if self.interactive {
            let made = pipe().context("pipe")?;
            share(&made.0, READ)?;
            self.input = Some(made);
        }
        let made = [pipe().context("pipe")?, pipe().context("pipe")?];
        for (_, writer) in &made {
            share(writer, WRITE)?;
        }
        self.outputs = Some(made);
        Ok(())
    }

    fn on_host(&mut self, _: Pid) -> Result<()> {
        let input = self.input.take().map(|(_, writer)| writer);
        if let Some([(output, _), (error, _)]) = self.outputs.take() {
            self.ends.put(Kept::Pipes {
                input,
                output,
                error,
            });
        }
        Ok(())
    }

    fn keeps(&self) -> Vec<BorrowedFd<'_>> {
        if self.connected {
            return Vec::new();
        }
        let input = self.input.iter().map(|(reader, _)| reader.as_fd());
        let outputs = self.outputs.iter().flatten();
        input
            .chain(outputs.map(|(_, writer)| writer.as_fd()))
            .collect()
    }

    fn before_exec(&mut self) -> Result<()> {
        match &self.input {
            Some((reader, _)) => dup2_stdin(reader).context("dup2(0)")?,
            None => dup2_stdin(null()?).context("dup2(/dev/null, 0)")?,
        }
        if let Some([(_, output), (_, error)]) = &self.outputs {
            dup2_stdout(output).context("dup2(1)")?;
            dup2_stderr(error).context("dup2(2)")?;
        }
        self.connected = true;
        Ok(())
    }

    fn cleanup(&mut self) -> Result<()> {
        // After a launch that was broken off.
        self.input = None;
        self.outputs = None;
        Ok(())
    }
}
