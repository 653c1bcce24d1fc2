//! Sources of bind mounts that root of a user namespace may not reach, such as
//! those below a directory of mode 700 of the host's root.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, bail};
use kit::say;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use process::handover;

/// Opens files with the caller's rights, in the child's mount namespace: a mount
/// of another one cannot be copied (open_tree(2)). A thread of the launcher
/// enters that namespace, and sends the descriptors over a socket.
#[derive(Debug)]
pub(crate) struct Sources {
    sockets: Option<(UnixStream, UnixStream)>,
    thread: Option<JoinHandle<()>>,
}

impl Sources {
    pub(crate) fn new() -> Result<Self> {
        Ok(Sources {
            sockets: Some(UnixStream::pair().context("socketpair")?),
            thread: None,
        })
    }

    /// The descriptor that the child keeps.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.sockets.as_ref().map(|(_, child)| child.as_fd())
    }

    /// On the host: begins to open these.
    pub(crate) fn open(&mut self, child: Pid, paths: Vec<PathBuf>) -> Result<()> {
        let Some((ours, theirs)) = self.sockets.take() else {
            return Ok(());
        };
        // If the child dies, the socket is at its end.
        drop(theirs);
        let mounts = format!("/proc/{child}/ns/mnt");
        let mounts = File::open(&mounts).with_context(|| format!("open {mounts}"))?;
        let thread = thread::Builder::new()
            .name("sources".into())
            .spawn(move || {
                if let Err(error) = serve(&ours, &mounts, &paths) {
                    // The child then opens them itself, and says what it cannot.
                    say!("open the sources of mounts: {error:#}");
                }
            });
        self.thread = Some(thread.context("start a thread")?);
        Ok(())
    }

    /// In the child: the next of them. `None` if the launcher could not open it.
    pub(crate) fn next(&mut self) -> Option<OwnedFd> {
        let (_, socket) = self.sockets.as_ref()?;
        handover::receive(socket).ok()
    }

    /// In the child: no more of them are needed.
    pub(crate) fn close(&mut self) {
        if let Some((ours, theirs)) = self.sockets.take() {
            drop(theirs);
            // Closed when this process was born: dropping it would close its
            // number again.
            let _closed = std::os::fd::IntoRawFd::into_raw_fd(ours);
        }
    }

    /// On the host: ends the thread.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.sockets = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(_)) => bail!("the thread that opens sources panicked"),
            _ => Ok(()),
        }
    }
}

fn serve(mut socket: &UnixStream, mounts: &File, paths: &[PathBuf]) -> Result<()> {
    // A thread that shares its root with others may not leave them (setns(2)).
    unshare(CloneFlags::CLONE_FS).context("unshare(CLONE_FS)")?;
    setns(mounts, CloneFlags::CLONE_NEWNS).context("setns(CLONE_NEWNS)")?;
    for path in paths {
        match open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(file) => handover::send(socket, file.as_fd())?,
            Err(errno) => {
                say!("open {path:?}: {errno}");
                socket.write_all(b"-").context("write to the child")?;
            }
        }
    }
    Ok(())
}
