//! The file mode creation mask (umask(2)) of the set-up.

use nix::sys::stat::{Mode, umask};

/// The mask during set-up, in the launcher and in the child: files and
/// directories of a container get the modes that the code names, whatever the
/// caller's mask is. Dropping it restores the caller's mask.
pub(crate) struct Umask {
    before: Mode,
}

impl Umask {
    /// Sets the mask to 022: only the owner may write.
    pub(crate) fn of_set_up() -> Self {
        Umask {
            before: umask(Mode::S_IWGRP | Mode::S_IWOTH),
        }
    }

    /// Restores the caller's mask: for the command in the child, unless an
    /// isolation sets another mask.
    pub(crate) fn restore(&self) {
        umask(self.before);
    }
}

impl Drop for Umask {
    fn drop(&mut self) {
        self.restore();
    }
}
