//! Streams without a terminal in the container.

use std::io::{PipeReader, PipeWriter, pipe, stderr, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use kit::say;
use nix::fcntl::OFlag;
use nix::unistd::Pid;
use process::{Isolation, inside};
use rustix::fs::{FileType, FsWord, Mode, OFlags, fchmod, fcntl_setfl, fstat, fstatfs, makedev};
use rustix::io::Errno;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::terminal::relay::{self, Relay, Unheard};

/// A pipe between the child and the launcher, each with one end.
type Pipe = Option<(PipeReader, PipeWriter)>;

/// The streams without `--tty`. One that is no unnamed pipe is relayed through
/// one: a file or a terminal of the host is never the container's, and whatever
/// the stream is, the command may open it as `/dev/stdout`.
pub struct Pipes {
    interactive: bool,
    /// Whether both outputs are one file that is relayed. They then share one
    /// pipe, which keeps the order of what is written.
    one_output: bool,
    input: Pipe,
    output: Pipe,
    error: Pipe,
    /// In the child: whether its ends are the standard streams.
    connected: bool,
    relays: Vec<Relay>,
}

impl Pipes {
    pub(super) fn new(interactive: bool) -> Self {
        Pipes {
            interactive,
            one_output: false,
            input: None,
            output: None,
            error: None,
            connected: false,
            relays: Vec::new(),
        }
    }
}

/// Makes a pipe if one is `needed`. Everybody may open the command's end of it.
fn pipe_if(needed: bool, open: Mode) -> Result<Pipe> {
    let made = needed.then(pipe).transpose().context("pipe")?;
    if let Some((reader, _)) = &made {
        share(reader, open)?;
    }
    Ok(made)
}

/// Lets everybody open an unnamed pipe, for instance as `/dev/stdout`: without
/// that, only its owner can do more than use the descriptor. Such a pipe is
/// found only through /proc/PID/fd, by processes that may look there.
///
/// runc gives the pipe to the command's user instead (`fixStdioPermissions`),
/// and then the caller's next command may be unable to open it.
pub(super) fn share(pipe: impl AsFd, open: Mode) -> Result<()> {
    let now = Mode::from_raw_mode(fstat(&pipe).context("fstat(pipe)")?.st_mode);
    match fchmod(&pipe, now | open) {
        // The pipe belongs to another user, who started the caller.
        Err(Errno::PERM) => {
            say!("fchmod(pipe): EPERM: opening /dev/stdout may fail");
            Ok(())
        }
        changed => changed.with_context(|| format!("fchmod(pipe, {:#o})", (now | open).bits())),
    }
}

pub(super) const READ: Mode = Mode::RUSR.union(Mode::RGRP).union(Mode::ROTH);
pub(super) const WRITE: Mode = Mode::WUSR.union(Mode::WGRP).union(Mode::WOTH);

/// The file system of unnamed pipes (linux/magic.h).
const PIPEFS_MAGIC: FsWord = 0x5049_5045;

/// Whether a stream is an unnamed pipe.
fn is_pipe(stream: impl AsFd) -> Result<bool> {
    Ok(fstatfs(stream).context("fstatfs(stream)")?.f_type == PIPEFS_MAGIC)
}

/// Whether a stream is relayed: all but an unnamed pipe, and the null device, for
/// which the container has its own. By a descriptor root inside can open a file
/// anew, for writing as well, and change its owner and mode; a socket nobody can
/// open by a name.
fn is_relayed(stream: impl AsFd) -> Result<bool> {
    Ok(!is_pipe(&stream)? && !is_null(stream)?)
}

/// Whether both are the same file.
fn is_same(one: impl AsFd, other: impl AsFd) -> Result<bool> {
    let (one, other) = (fstat(one), fstat(other));
    let (one, other) = (one.context("fstat(1)")?, other.context("fstat(2)")?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// Another descriptor of a stream, for a thread of its own.
pub(super) fn duplicate(stream: impl AsFd) -> Result<OwnedFd> {
    stream.as_fd().try_clone_to_owned().context("dup")
}

/// Opens the container's own null device. An image's mount on `/dev` may hold
/// anything by that name.
pub(super) fn null() -> Result<OwnedFd> {
    const NULL: &str = "/dev/null";
    let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let null = inside::open(Path::new(NULL), flags).with_context(|| format!("open({NULL})"))?;
    ensure!(
        is_null(&null).with_context(|| format!("open({NULL})"))?,
        "{NULL} of the container is not the null device: what is mounted on /dev?"
    );
    fcntl_setfl(&null, OFlags::empty()).with_context(|| format!("fcntl({NULL}, F_SETFL)"))?;
    Ok(null)
}

fn is_null(stream: impl AsFd) -> Result<bool> {
    let found = fstat(stream).context("fstat")?;
    let kind = FileType::from_raw_mode(found.st_mode);
    Ok(kind == FileType::CharacterDevice && found.st_rdev == makedev(1, 3))
}

/// Refuses a directory as a stream: it would be a way to the host's root.
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
        let (input, output, error) = (stdin(), stdout(), stderr());
        self.input = pipe_if(self.interactive && is_relayed(&input)?, READ)?;
        if self.interactive && is_pipe(&input)? {
            share(&input, READ)?;
        }
        let relayed = is_relayed(&output)?;
        self.one_output = relayed && is_same(&output, &error)?;
        self.output = pipe_if(relayed, WRITE)?;
        self.error = pipe_if(!self.one_output && is_relayed(&error)?, WRITE)?;
        for pipe in [output.as_fd(), error.as_fd()] {
            if is_pipe(pipe)? {
                share(pipe, WRITE)?;
            }
        }
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
                let from = Arc::new(reader.into());
                self.relays.push(Relay::output(from, to?, Unheard::HangUp)?);
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
        // The host's null device is replaced by the container's: through the
        // stream root inside could change its mode.
        if !self.interactive || is_null(stdin())? {
            dup2_stdin(null()?).context("dup2(/dev/null, 0)")?;
        }
        if is_null(stdout())? {
            dup2_stdout(null()?).context("dup2(1)")?;
        }
        if is_null(stderr())? {
            dup2_stderr(null()?).context("dup2(2)")?;
        }
        if let Some((reader, _)) = &self.input {
            dup2_stdin(reader).context("dup2(0)")?;
        }
        if let Some((_, writer)) = &self.output {
            dup2_stdout(writer).context("dup2(1)")?;
            if self.one_output {
                dup2_stderr(writer).context("dup2(2)")?;
            }
        }
        if let Some((_, writer)) = &self.error {
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
