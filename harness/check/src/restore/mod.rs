//! Removes what an interrupted run left on this host, found by its name or
//! place. The steps and the checks use no other names.
//!
//! | module | what |
//! |---|---|
//! | [`running`] | our running programs |
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

/// Removes things and prints their names, or only prints them.
pub struct Broom {
    dry_run: bool,
    removed: usize,
    failed: usize,
}

impl Broom {
    /// A broom that only prints what it would do, if `dry_run`.
    pub fn new(dry_run: bool) -> Self {
        Broom {
            dry_run,
            removed: 0,
            failed: 0,
        }
    }

    /// Removes `what` by calling `remove`, and prints the result.
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

    /// Prints that `what` has been removed.
    pub fn took(&mut self, what: &str) {
        self.removed += 1;
        println!("removed {what}");
    }

    /// Whether this broom only prints.
    pub fn is_dry(&self) -> bool {
        self.dry_run
    }

    /// Prints whether nothing was found, and returns the number of things that
    /// could not be removed.
    pub fn end(self) -> usize {
        if self.removed + self.failed == 0 {
            println!("Nothing to restore: no run of ours has left anything on this host.");
        }
        self.failed
    }
}
