//! Threads that copy from one descriptor to another. They are started after the
//! child has been cloned, never before.

use std::io::{PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use kit::{say, warn};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read, write};

/// A thread that copies the container's output to the host's.
#[derive(Debug)]
pub struct Relay {
    thread: JoinHandle<()>,
    stop: PipeWriter,
}

/// What the thread does with output that cannot be written any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unheard {
    /// Goes on reading it: the command need not know that nobody listens.
    Read,
    /// Closes its end of the pipe: the command gets SIGPIPE, as in `yes | head`.
    HangUp,
}

impl Relay {
    /// Starts a thread that copies from `from` to `to`.
    pub fn output(from: Arc<OwnedFd>, to: OwnedFd, unheard: Unheard) -> Result<Self> {
        let (stopped, stop) = std::io::pipe().context("pipe")?;
        let thread = thread::Builder::new()
            .name("output".into())
            .spawn(move || carry(from.as_fd(), to.as_fd(), Some(&stopped), unheard))
            .context("start a thread")?;
        Ok(Relay { thread, stop })
    }

    /// Copies what is left, and ends, even if a process that outlives the
    /// command holds the other end open.
    pub fn finish(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            say!("the thread that carried the output panicked");
        }
    }
}

/// Starts a thread that copies the caller's input to the container until either
/// ends. Nobody waits for it: it may still be reading when the container is
/// gone.
pub fn input(from: OwnedFd, to: Arc<OwnedFd>) -> Result<()> {
    thread::Builder::new()
        .name("input".into())
        .spawn(move || carry(from.as_fd(), to.as_fd(), None, Unheard::HangUp))
        .context("start a thread")
        .map(drop)
}

/// Copies until the end of `from`, or until `stop` has ended and nothing more
/// can be read, or as `unheard` says.
fn carry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, stop: Option<&PipeReader>, unheard: Unheard) {
    let mut buffer = [0; 32 * 1024];
    let mut deaf = false;
    loop {
        let mut fds = vec![PollFd::from_borrowed_fd(from, PollFlags::IN)];
        fds.extend(stop.map(|stop| PollFd::new(stop, PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_) => return,
        }
        if fds[0].revents().is_empty() {
            return;
        }
        let length = match read(from, &mut buffer) {
            // EIO: a terminal whose other side is closed.
            Ok(0) | Err(Errno::IO) => return,
            Ok(length) => length,
            Err(Errno::INTR | Errno::AGAIN) => continue,
            Err(errno) => {
                say!("read from a stream: {errno}");
                return;
            }
        };
        if !deaf && let Err(errno) = write_all(to, &buffer[..length]) {
            // Of a reader that has gone nobody need be told.
            match errno {
                Errno::PIPE => say!("write to a stream: {errno}"),
                _ => warn!("the rest of a stream is lost: write: {errno}"),
            }
            if unheard == Unheard::HangUp {
                return;
            }
            deaf = true;
        }
    }
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match write(to, bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::INTR) => {}
            // The host's terminal may be non-blocking: others share it.
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::from_borrowed_fd(to, PollFlags::OUT)], None)?;
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn what_was_written_before_the_end_arrives_though_the_pipe_stays_open() {
        let (from, mut writer) = std::io::pipe().unwrap();
        let (mut reader, to) = std::io::pipe().unwrap();
        let relay = Relay::output(Arc::new(from.into()), to.into(), Unheard::Read).unwrap();
        writer.write_all(b"all of it").unwrap();
        relay.finish();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "all of it");
    }
}
