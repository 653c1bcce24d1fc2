//! Streams without a terminal in the container.

use std::io::{IsTerminal, PipeReader, PipeWriter, pipe, stderr, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use nix::fcntl::OFlag;
use nix::unistd::Pid;
use process::{Isolation, inside};
use rustix::fs::{FileType, OFlags, fcntl_setfl, fstat, makedev};
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
    /// In the child: its ends are the standard streams.
    connected: bool,
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
            connected: false,
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

/// The container's own null device. What its image has mounted on `/dev` may
/// have anything by that name.
fn null() -> Result<OwnedFd> {
    const NULL: &str = "/dev/null";
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let null = inside::open(Path::new(NULL), flags).with_context(|| format!("open({NULL})"))?;
    ensure!(
        is_null(&null)?,
        "{NULL} of the container is not the null device: what is mounted on /dev?"
    );
    fcntl_setfl(&null, OFlags::empty()).context("fcntl(F_SETFL)")?;
    Ok(null)
}

fn is_null(stream: impl AsFd) -> Result<bool> {
    let found = fstat(stream).context("fstat")?;
    let kind = FileType::from_raw_mode(found.st_mode);
    Ok(kind == FileType::CharacterDevice && found.st_rdev == makedev(1, 3))
}

/// Refuses a directory for a stream: it would be a way to the host's root.
fn refuse_directory(stream: impl AsFd) -> Result<()> {
    let found = fstat(stream).context("fstat")?;
    ensure!(
        FileType::from_raw_mode(found.st_mode) != FileType::Directory,
        "a standard stream is a directory: the container would reach the host by it"
    );
    Ok(())
}

impl Isolation for Pipes {
    fn name(&self) -> &'static str {
        "pipes"
    }

    fn prepare(&mut self) -> Result<()> {
        if self.interactive {
            refuse_directory(stdin())?;
        }
        refuse_directory(stdout())?;
        refuse_directory(stderr())?;
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

    /// The child's ends, until they are the standard streams.
    fn keeps(&self) -> Vec<BorrowedFd<'_>> {
        if self.connected {
            return Vec::new();
        }
        let input = self.input.iter().map(|(reader, _)| reader.as_fd());
        let outputs = self.output.iter().chain(&self.error);
        input
            .chain(outputs.map(|(_, writer)| writer.as_fd()))
            .collect()
    }

    fn before_exec(&mut self) -> Result<()> {
        // The host's null device too is replaced by the container's: root inside
        // could change its mode through the stream.
        if !self.interactive || is_null(stdin())? {
            dup2_stdin(null()?).context("dup2(0)")?;
        }
        if is_null(stdout())? {
            dup2_stdout(null()?).context("dup2(1)")?;
        }
        if is_null(stderr())? {
            dup2_stderr(null()?).context("dup2(2)")?;
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
        self.connected = true;
        Ok(())
    }

    fn cleanup(&mut self) -> Result<()> {
        for relay in self.relays.drain(..) {
            relay.finish();
        }
        Ok(())
    }
}
