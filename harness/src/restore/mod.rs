//! What an interrupted run left on this host, found by its name or place, and
//! removed. The same names are the only ones that the steps and the checks use.
//!
//! | module | what |
//! |---|---|
//! | [`running`] | programs of ours that are alive |
//! | [`cgroups`] | cgroups named `drydock`, `drydock-…`, `drydock.…`, and what runs in them |
//! | [`network`] | the bridge, its links, the nft table: step 06 knows them |
//! | [`mounts`] | mounts below the directories of [`files`] |
//! | [`devices`] | loop devices over files there, device-mapper devices `drydock-…` |
//! | [`files`] | state directories, and temporary directories of checks |

pub mod cgroups;
pub mod devices;
pub mod files;
pub mod mounts;
pub mod network;
pub mod running;

use anyhow::Result;

/// Removes things and says so.
pub struct Broom {
    dry_run: bool,
    removed: usize,
    failed: usize,
}

impl Broom {
    /// One that only says what it would do, if `dry_run`.
    pub fn new(dry_run: bool) -> Self {
        Broom {
            dry_run,
            removed: 0,
            failed: 0,
        }
    }

    /// Removes `what` by calling `remove`.
    pub fn take(&mut self, what: &str, remove: impl FnOnce() -> Result<()>) {
        if self.dry_run {
            self.removed += 1;
            println!("would remove {what}");
            return;
        }
        match remove() {
            Ok(()) => self.took(what),
            Err(error) => {
                self.failed += 1;
                println!("could not remove {what}: {error:#}");
            }
        }
    }

    /// Says that `what` has been removed.
    pub fn took(&mut self, what: &str) {
        self.removed += 1;
        println!("removed {what}");
    }

    /// Whether this one removes nothing.
    pub fn is_dry(&self) -> bool {
        self.dry_run
    }

    /// Says so if there was nothing, and returns how much could not be removed.
    pub fn end(self) -> usize {
        if self.removed + self.failed == 0 {
            println!("Nothing to restore: no run of ours has left anything on this host.");
        }
        self.failed
    }
}
