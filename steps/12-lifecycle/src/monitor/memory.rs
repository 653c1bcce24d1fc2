//! What the OOM killer does in a container while it runs: an event for each
//! process, and a word in the record.

use std::time::Instant;

use anyhow::Result;
use cgroups::{OomKills, OomWatch};
use engine::cli::places::Places;
use engine::container::{Record, Records};
use rustix::event::PollFd;

use crate::events::tell_of_container;
use crate::settings::put_oom_killed;

/// What tells of the OOM killer in one run of a container.
pub(super) struct OutOfMemory {
    places: Places,
    record: Record,
    kills: OomKills,
    watch: OomWatch,
    /// Whether the record says so already: a container may have its processes
    /// killed a thousand times.
    noted: bool,
}

impl OutOfMemory {
    /// Begins to watch. `None` for a container without a memory group, and where
    /// the kernel does not tell: the end tells then.
    pub(super) fn new(places: &Places, record: &Record, kills: &OomKills) -> Option<Self> {
        match kills.watch() {
            Ok(watch) => Some(OutOfMemory {
                places: places.clone(),
                record: record.clone(),
                kills: kills.clone(),
                watch: watch?,
                noted: false,
            }),
            Err(error) => {
                kit::say!("nobody tells of the OOM killer: {error:#}");
                None
            }
        }
    }

    /// What to wait for.
    pub(super) fn polled(&self) -> PollFd<'_> {
        let (fd, events) = self.watch.polled();
        PollFd::from_borrowed_fd(fd, events)
    }

    /// When there is something to do even if nothing happens.
    pub(super) fn due(&self) -> Option<Instant> {
        self.watch.due()
    }

    /// Looks, and tells of what has happened.
    ///
    /// # Errors
    /// There is nothing to watch any more.
    pub(super) fn turn(&mut self) -> Result<()> {
        self.watch.look()?;
        let count = self.kills.take_untold();
        if count > 0 && !self.noted {
            // First the record: who hears of the event may look there.
            let records = Records::new(&self.places);
            match records.change(&self.record.spec.id, &mut put_oom_killed) {
                Ok(_) => self.noted = true,
                // A full disk is no reason to end the container.
                Err(error) => kit::say!("the OOM killer is not in the record: {error:#}"),
            }
        }
        for _ in 0..count {
            tell_of_container(&self.places, &self.record, "oom", &[]);
        }
        Ok(())
    }
}
