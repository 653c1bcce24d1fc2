//! The OOM killer's work in a container's group, as it happens.
//!
//! v2 wakes whoever polls `memory.events` for each change of a count. v1 counts
//! up an eventfd that was registered for `memory.oom_control`, *before* it kills
//! (mem_cgroup_oom() in mm/memcontrol-v1.c): its count is looked at again.

use std::cell::{Cell, OnceCell};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{EventfdFlags, PollFlags, eventfd};
use rustix::io::Errno;

use crate::group::{Group, file};
use crate::host::hierarchy::Version;

/// The first wait for a kill that was announced; each further one is twice as
/// long.
const FIRST_LOOK: Duration = Duration::from_millis(5);
/// How often to look for a kill that was announced. A process that ends by
/// itself makes room as well.
const LOOKS: u32 = 10;

/// How many processes of a container were killed for want of memory, and how
/// many of them somebody has told of. All clones are the same.
#[derive(Clone, Debug, Default)]
pub struct OomKills(Rc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    place: OnceCell<(PathBuf, Version)>,
    total: Cell<u64>,
    told: Cell<u64>,
}

impl OomKills {
    /// Notes where the group is. Does nothing without the memory controller.
    pub(crate) fn found(&self, group: &Group) {
        if let Some(member) = group.controller("memory") {
            let place = || (member.dir.clone(), member.version);
            self.0.place.get_or_init(place);
        }
    }

    /// Notes how many there were, as the group's files say.
    pub(crate) fn set_total(&self, total: u64) {
        self.0.total.set(total);
    }

    /// How many there were, as far as somebody has looked.
    pub fn total(&self) -> u64 {
        self.0.total.get()
    }

    /// Takes the number of those that nobody has told of: whoever asks tells.
    pub fn take_untold(&self) -> u64 {
        let total = self.total();
        total.saturating_sub(self.0.told.replace(total))
    }

    /// Begins to watch. `None` for a container without a memory group.
    ///
    /// # Errors
    /// A kernel that does not tell.
    pub fn watch(&self) -> Result<Option<OomWatch>> {
        let Some((directory, version)) = self.0.place.get() else {
            return Ok(None);
        };
        let path = |name| directory.join(name);
        let (counts, bell) = match version {
            Version::V2 => (open(&path("memory.events"))?, None),
            Version::V1 => {
                let counts = open(&path("memory.oom_control"))?;
                let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
                let bell = eventfd(0, flags).context("eventfd")?;
                let both = format!("{} {}", bell.as_raw_fd(), counts.as_raw_fd());
                file::write(&path("cgroup.event_control"), &both)?;
                (counts, Some(bell))
            }
        };
        Ok(Some(OomWatch {
            kills: self.clone(),
            counts,
            bell,
            looks: 0,
            look_at: None,
        }))
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("open {}", path.display()))
}

/// Tells when the OOM killer has ended a process of a container.
#[derive(Debug)]
pub struct OomWatch {
    kills: OomKills,
    counts: File,
    /// v1's eventfd.
    bell: Option<OwnedFd>,
    /// How often the announced kill will be looked for once more.
    looks: u32,
    look_at: Option<Instant>,
}

impl OomWatch {
    /// What to wait for with poll(2).
    pub fn polled(&self) -> (BorrowedFd<'_>, PollFlags) {
        match &self.bell {
            Some(bell) => (bell.as_fd(), PollFlags::IN),
            // An open file of a group is always readable.
            None => (self.counts.as_fd(), PollFlags::PRI),
        }
    }

    /// When to look even if nothing happens.
    pub fn due(&self) -> Option<Instant> {
        self.look_at
    }

    /// Looks after poll(2) has shown something, or the time has come. The kills
    /// are those that [`OomKills::take_untold`] returns then.
    ///
    /// # Errors
    /// The group is gone.
    pub fn look(&mut self) -> Result<()> {
        // ANCHOR: look
        if let Some(bell) = &self.bell {
            match rustix::io::read(bell, &mut [0; 8]) {
                Ok(_) => self.looks = LOOKS,
                Err(Errno::AGAIN) => {}
                Err(errno) => return Err(errno).context("read from an eventfd"),
            }
        }
        let before = self.kills.total();
        // From the beginning: v2 tells of changes since this read.
        let mut bytes = [0; 512];
        let length = self.counts.read_at(&mut bytes, 0);
        let length = length.context("read the OOM killer's count")?;
        let text = String::from_utf8_lossy(&bytes[..length]);
        if let Some(killed) = file::value_of(&text, "oom_kill") {
            self.kills.set_total(killed);
            if killed > before {
                self.looks = 0;
            }
        }
        self.look_at = (self.looks > 0).then(|| {
            let wait = FIRST_LOOK * (1 << (LOOKS - self.looks));
            self.looks -= 1;
            Instant::now() + wait
        });
        // ANCHOR_END: look
        Ok(())
    }
}
