//! A process that decides on calls of a container (`SCMP_ACT_NOTIFY`): a thread
//! of the check, which listens on a socket for the filter's descriptor.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::Value;

use crate::sys::notify;

/// How long a container may take to connect.
const PATIENCE: PollTimeout = PollTimeout::MAX;

/// What an agent has heard.
#[derive(Debug, Default)]
pub struct Heard {
    /// What it was told of the container.
    pub message: Value,
    /// The numbers of the calls on which it has decided.
    pub calls: Vec<u32>,
}

/// An agent that serves one container.
pub struct Agent {
    thread: JoinHandle<Result<Heard>>,
}

impl Agent {
    /// Listens on `path`, and answers each call of the first container that
    /// connects with `errno`.
    pub fn start(path: &Path, errno: Errno) -> Result<Agent> {
        Agent::with(path, move |socket| serve(&socket, errno))
    }

    /// Listens on `path`, and answers the calls of the first `count` processes that
    /// connect, each by an agent of its own.
    pub fn several(path: &Path, errno: Errno, count: usize) -> Result<Vec<Agent>> {
        let listener = UnixListener::bind(path).with_context(|| format!("bind {path:?}"))?;
        let one = |_| {
            let listener = listener.try_clone().context("dup")?;
            Agent::on(listener, move |socket| serve(&socket, errno))
        };
        (0..count).map(one).collect()
    }

    /// Listens on `path`, and closes the first connection at once.
    pub fn deaf(path: &Path) -> Result<Agent> {
        Agent::with(path, |_| Ok(Heard::default()))
    }

    fn with(
        path: &Path,
        serve: impl FnOnce(UnixStream) -> Result<Heard> + Send + 'static,
    ) -> Result<Agent> {
        let listener = UnixListener::bind(path).with_context(|| format!("bind {path:?}"))?;
        Agent::on(listener, serve)
    }

    fn on(
        listener: UnixListener,
        serve: impl FnOnce(UnixStream) -> Result<Heard> + Send + 'static,
    ) -> Result<Agent> {
        let thread = thread::Builder::new().name("agent".into());
        let thread = thread.spawn(move || {
            let (socket, _) = listener.accept().context("accept")?;
            drop(listener);
            serve(socket)
        });
        Ok(Agent {
            thread: thread.context("start a thread")?,
        })
    }

    /// What it has heard, when the last process with the filter has ended.
    pub fn end(self) -> Result<Heard> {
        let ended = self.thread.join();
        ended.map_err(|_| anyhow!("the agent panicked"))?
    }
}

fn serve(socket: &UnixStream, errno: Errno) -> Result<Heard> {
    let (text, descriptor) = receive(socket)?;
    let mut heard = Heard {
        message: serde_json::from_slice(&text).context("parse the message")?,
        calls: Vec::new(),
    };
    let Some(descriptor) = descriptor else {
        bail!("a message without a descriptor: {}", heard.message);
    };
    while wait(descriptor.as_fd())? {
        heard
            .calls
            .extend(notify::answer(descriptor.as_fd(), errno)?);
    }
    Ok(heard)
}

/// Waits for a call; `false` if no process has the filter any more.
fn wait(descriptor: BorrowedFd<'_>) -> Result<bool> {
    loop {
        let mut fds = [PollFd::new(descriptor, PollFlags::POLLIN)];
        match poll(&mut fds, PATIENCE) {
            Err(Errno::EINTR) => continue,
            polled => polled.context("poll")?,
        };
        let events = fds[0].revents().unwrap_or(PollFlags::empty());
        return Ok(events.contains(PollFlags::POLLIN));
    }
}

/// Reads up to the end of the connection.
fn receive(socket: &UnixStream) -> Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut text = Vec::new();
    let mut descriptor = None;
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; 4096];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got = recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            flags,
        )
        .context("recvmsg")?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                descriptor = descriptors.into_iter().next().or(descriptor);
            }
        }
        if got.bytes == 0 {
            return Ok((text, descriptor));
        }
        text.extend_from_slice(&bytes[..got.bytes]);
    }
}
