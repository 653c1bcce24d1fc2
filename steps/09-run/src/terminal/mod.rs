//! The command's standard streams: credentials(7) “Sessions”, tty_ioctl(4),
//! pty(7).
//!
//! A container never gets the caller's terminal itself. A process may put input
//! into its controlling terminal as if it had been typed (`TIOCSTI`), and the
//! caller's shell would execute it. So the command runs in a session of its own
//! (setsid(2)), and a terminal of the host reaches it through a pipe, or with
//! `--tty` through a pseudo-terminal of the container's own.
//!
//! The same holds for a file of the host, and for a socket: by `/proc/self/fd/0`
//! root inside could write to a file that was given to be read, and nobody can
//! open a socket by the name `/dev/stdout`. They are relayed through a pipe. Only
//! an unnamed pipe is passed on as it is, and nothing is copied: so root inside
//! can read what other programs of the same pipeline write into it.
//!
//! | module | what |
//! |---|---|
//! | this | the choice between the two |
//! | [`pipes`] | the streams without `--tty` |
//! | [`pty`] | the streams with `--tty` |
//! | [`handed`] | streams whose other ends a launcher keeps that stays |
//! | [`relay`] | copying from one descriptor to another |
//! | [`raw`] | raw mode of the host's terminal |

pub mod handed;
pub mod pipes;
pub mod pty;
pub mod raw;
pub mod relay;

use std::cell::OnceCell;
use std::io::{IsTerminal, stdin};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use kit::SignalNumber;
use nix::unistd::{Pid, setsid};
use process::Isolation;
use rustix::fs::{Gid, Uid, fchown};
use rustix::io::Errno;

use handed::{Ends, HandedOver};
use pipes::Pipes;
use pty::Pty;

/// The UID and GID of the command, known once the container's `/etc/passwd` has
/// been read.
pub type Owner = Rc<OnceCell<(u32, u32)>>;

/// The standard streams of a container.
pub enum Streams {
    /// Without `--tty`.
    Pipes(Pipes),
    /// With `--tty`.
    Pty(Pty),
    /// Without `--tty`, for a launcher that keeps the other ends.
    HandedOver(HandedOver),
}

impl Streams {
    /// The streams that `--interactive` and `--tty` ask for. A pseudo-terminal
    /// is given to `owner`, who otherwise could not open `/dev/stdout`.
    ///
    /// # Errors
    /// If both options are given and standard input is not a terminal.
    pub fn new(interactive: bool, tty: bool, owner: Owner) -> Result<Self> {
        if tty && interactive && !stdin().is_terminal() {
            bail!("-i with -t needs a terminal on standard input: omit -t");
        }
        Ok(match tty {
            true => Streams::Pty(Pty::new(interactive, owner)),
            false => Streams::Pipes(Pipes::new(interactive)),
        })
    }

    /// The streams of a further process in a container. Its terminal is another
    /// one than the container's `/dev/console`.
    ///
    /// # Errors
    /// If both options are given and standard input is not a terminal.
    pub fn further(interactive: bool, tty: bool, owner: Owner) -> Result<Self> {
        Ok(match Streams::new(interactive, tty, owner)? {
            Streams::Pty(pty) => Streams::Pty(pty.of_further_process()),
            other => other,
        })
    }

    /// Streams of the container's own, whose other ends go to `ends` as soon as
    /// the child exists. Nothing of the caller's streams is used.
    pub fn handed_over(interactive: bool, tty: bool, owner: Owner, ends: Ends) -> Self {
        match tty {
            true => Streams::Pty(Pty::handed_over(owner, ends)),
            false => Streams::HandedOver(HandedOver::new(interactive, ends)),
        }
    }

    fn inner(&mut self) -> &mut dyn Isolation {
        match self {
            Streams::Pipes(pipes) => pipes,
            Streams::Pty(pty) => pty,
            Streams::HandedOver(pipes) => pipes,
        }
    }
}

impl Isolation for Streams {
    fn name(&self) -> &'static str {
        "terminal"
    }

    fn prepare(&mut self) -> Result<()> {
        self.inner().prepare()
    }

    fn keeps(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Streams::Pipes(pipes) => pipes.keeps(),
            Streams::Pty(pty) => pty.keeps(),
            Streams::HandedOver(pipes) => pipes.keeps(),
        }
    }

    fn on_host(&mut self, child: Pid) -> Result<()> {
        self.inner().on_host(child)
    }

    fn in_container(&mut self) -> Result<()> {
        self.inner().in_container()
    }

    fn before_exec(&mut self) -> Result<()> {
        setsid().context("setsid")?;
        self.inner().before_exec()
    }

    fn signal(&mut self, signal: SignalNumber) -> Result<bool> {
        self.inner().signal(signal)
    }

    fn cleanup(&mut self) -> Result<()> {
        self.inner().cleanup()
    }
}

/// Gives the pseudo-terminal to the command's user.
fn give(stream: impl AsFd, owner: &Owner) -> Result<()> {
    let Some(&(uid, gid)) = owner.get() else {
        return Ok(());
    };
    if uid == 0 {
        return Ok(());
    }
    match fchown(stream, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))) {
        // EINVAL: the user is not mapped, which setting the user will report.
        Ok(()) | Err(Errno::INVAL | Errno::PERM) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("fchown(stream, {uid})")),
    }
}
