//! The file mode creation mask (umask(2)) of the set-up.

use nix::sys::stat::{Mode, umask};

/// The mask of the set-up, on both sides: directories and files that are made
/// for a container have the modes that their makers name, whatever the caller's
/// mask is. Dropped, it puts the caller's back.
pub(crate) struct Umask {
    before: Mode,
}

impl Umask {
    /// Sets the mask to 022: nobody but the owner may write.
    pub(crate) fn of_set_up() -> Self {
        Umask {
            before: umask(Mode::S_IWGRP | Mode::S_IWOTH),
        }
    }

    /// Puts the caller's mask back: for the child, whose command shall start
    /// with it unless an isolation sets another.
    pub(crate) fn restore(&self) {
        umask(self.before);
    }
}

impl Drop for Umask {
    fn drop(&mut self) {
        self.restore();
    }
}
