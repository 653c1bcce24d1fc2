//! Streams without a terminal in the container.

use std::io::{IsTerminal, PipeReader, PipeWriter, pipe, stderr, stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use anyhow::{Context, Result};
use nix::unistd::Pid;
use process::Isolation;
use rustix::fs::{Mode, OFlags, open};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::relay::{self, Relay};
use super::{Owner, give};

/// A pipe of which the child has one end and the launcher the other.
type Pipe = Option<(PipeReader, PipeWriter)>;

/// The streams, of which those that are terminals on the host are relayed.
pub struct Pipes {
    interactive: bool,
    owner: Owner,
    input: Pipe,
    output: Pipe,
    error: Pipe,
    relays: Vec<Relay>,
}

impl Pipes {
    pub(super) fn new(interactive: bool, owner: Owner) -> Self {
        Pipes {
            interactive,
            owner,
            input: None,
            output: None,
            error: None,
            relays: Vec::new(),
        }
    }
}

fn pipe_if(needed: bool) -> Result<Pipe> {
    needed.then(pipe).transpose().context("pipe")
}

/// One more descriptor of a stream, for a thread of its own.
pub(super) fn duplicate(stream: impl AsFd) -> Result<OwnedFd> {
    stream.as_fd().try_clone_to_owned().context("dup")
}

impl Isolation for Pipes {
    fn name(&self) -> &'static str {
        "pipes"
    }

    fn prepare(&mut self) -> Result<()> {
        self.input = pipe_if(self.interactive && stdin().is_terminal())?;
        self.output = pipe_if(stdout().is_terminal())?;
        self.error = pipe_if(stderr().is_terminal())?;
        Ok(())
    }

    fn on_host(&mut self, _: Pid) -> Result<()> {
        if let Some((reader, writer)) = self.input.take() {
            drop(reader);
            relay::input(duplicate(stdin())?, Arc::new(writer.into()))?;
        }
        let outputs = [
            (self.output.take(), duplicate(stdout())),
            (self.error.take(), duplicate(stderr())),
        ];
        for (pipe, to) in outputs {
            if let Some((reader, writer)) = pipe {
                drop(writer);
                self.relays
                    .push(Relay::output(Arc::new(reader.into()), to?)?);
            }
        }
        Ok(())
    }

    fn before_exec(&mut self) -> Result<()> {
        if !self.interactive {
            // The container's own: a descriptor of the host's would be a way there.
            let null = open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .context("open(/dev/null)")?;
            dup2_stdin(&null).context("dup2(0)")?;
        }
        if let Some((reader, _)) = &self.input {
            give(reader, &self.owner)?;
            dup2_stdin(reader).context("dup2(0)")?;
        }
        if let Some((_, writer)) = &self.output {
            give(writer, &self.owner)?;
            dup2_stdout(writer).context("dup2(1)")?;
        }
        if let Some((_, writer)) = &self.error {
            give(writer, &self.owner)?;
            dup2_stderr(writer).context("dup2(2)")?;
        }
        Ok(())
    }

    fn cleanup(&mut self) -> Result<()> {
        for relay in self.relays.drain(..) {
            relay.finish();
        }
        Ok(())
    }
}
