//! Waiting until something in a directory changes: inotify(7), or a look now and
//! then where the user has no instance left (`fs.inotify.max_user_instances`, 128
//! by default).

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use kit::say;
use kit::time::timeout_at;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

/// How long to wait for the next look, where nobody tells of changes.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Wakes whoever follows files in directories.
#[derive(Debug)]
pub(crate) struct Watch {
    changes: Option<OwnedFd>,
}

impl Watch {
    /// Begins before the first look: what happens after it wakes the caller. A
    /// directory that does not exist is left out.
    // ANCHOR: on
    pub(crate) fn on(directories: &[&Path]) -> Result<Self> {
        let changes = match inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK) {
            Ok(changes) => changes,
            // As many others of this user wait already as may.
            Err(errno @ (Errno::MFILE | Errno::NOMEM)) => {
                say!("inotify_init: {errno}: looks every {LOOK_AGAIN:?} instead");
                return Ok(Watch { changes: None });
            }
            Err(errno) => return Err(errno).context("inotify_init"),
        };
        let flags = WatchFlags::MODIFY
            | WatchFlags::MOVED_TO
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::ONLYDIR;
        for directory in directories {
            match inotify::add_watch(&changes, *directory, flags) {
                Ok(_) | Err(Errno::NOENT) => {}
                // fs.inotify.max_user_watches
                Err(errno @ Errno::NOSPC) => {
                    say!("inotify_add_watch: {errno}: looks every {LOOK_AGAIN:?} instead");
                    return Ok(Watch { changes: None });
                }
                Err(errno) => {
                    return Err(errno).with_context(|| format!("inotify_add_watch({directory:?})"));
                }
            }
        }
        Ok(Watch {
            changes: Some(changes),
        })
    }
    // ANCHOR_END: on

    /// Waits until something changes, or `other` says something, or the time has
    /// come. Returns what `other` says.
    pub(crate) fn wait(
        &self,
        other: impl AsFd,
        events: PollFlags,
        until: Option<SystemTime>,
    ) -> Result<PollFlags> {
        let mut fds = vec![PollFd::new(&other, events)];
        let mut until = until;
        match &self.changes {
            Some(changes) => fds.push(PollFd::new(changes, PollFlags::IN)),
            None => {
                let next = SystemTime::now() + LOOK_AGAIN;
                until = Some(until.map_or(next, |until| until.min(next)));
            }
        }
        match poll(&mut fds, timeout_at(until).as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("poll"),
        }
        let said = fds[0].revents();
        self.read()?;
        Ok(said)
    }

    /// Reads what has changed, which is not looked at.
    fn read(&self) -> Result<()> {
        let Some(changes) = &self.changes else {
            return Ok(());
        };
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(changes, &mut buffer);
        loop {
            match reader.next() {
                Ok(_) => {}
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(errno) => return Err(errno).context("read from inotify"),
            }
        }
    }
}
