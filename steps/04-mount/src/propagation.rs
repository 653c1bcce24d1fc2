//! The propagation of mounts between container and host: mount_namespaces(7),
//! “Shared subtrees”; mount(2), `MS_PRIVATE` and the other types.

use anyhow::{Context, Result};
use clap::ValueEnum;
use nix::mount::{MsFlags, mount};
use serde::{Deserialize, Serialize};

/// The propagation type of the container's mounts.
///
/// A new mount namespace is a copy of the mounts, and not isolated by that: the
/// copy of a shared mount joins the same peer group, and what is mounted on one
/// appears on the other. systemd makes all mounts of the host shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// No propagation in either direction
    #[default]
    Private,
    /// The host's mounts propagate into the container, not the reverse
    Slave,
    /// Both directions, for mounts that the host shares; /proc is then the
    /// host's. With --rootfs only between namespaces created inside
    Shared,
    /// Like private, and no mount can be bind mounted
    Unbindable,
}

impl Propagation {
    // ANCHOR: cut
    /// Takes the mounts of the namespace out of the host's peer groups, before
    /// anything is mounted.
    ///
    /// `own_root` says whether the container gets a root of its own. If it does
    /// not, `shared` changes nothing. If it does, even `shared` begins as
    /// private: pivot_root fails on a shared parent (`EINVAL`), and the host
    /// must not see the container's mounts appear. [`settle`](Self::settle)
    /// sets the final type.
    ///
    /// `unbindable` begins as private too: an unbindable rootfs could not be
    /// bound on itself.
    pub(crate) fn cut(self, own_root: bool) -> Result<()> {
        // ANCHOR: exercise_cut_propagation
        match self {
            Propagation::Shared if !own_root => Ok(()),
            Propagation::Slave => change("/", MsFlags::MS_SLAVE),
            _ => change("/", MsFlags::MS_PRIVATE),
        }
        // ANCHOR_END: exercise_cut_propagation
    }
    // ANCHOR_END: cut

    /// Sets the final propagation type, after the last mount, in the root that
    /// the command will see.
    ///
    /// With a root of its own and `shared`, the container's mounts become peer
    /// groups without a member on the host: they share with the mount
    /// namespaces that are made inside.
    pub(crate) fn settle(self) -> Result<()> {
        // ANCHOR: exercise_settle_propagation
        match self {
            // A mount attached to a private or a slave mount is private: there
            // is nothing to change.
            Propagation::Private | Propagation::Slave => Ok(()),
            Propagation::Shared => change("/", MsFlags::MS_SHARED),
            Propagation::Unbindable => change("/", MsFlags::MS_UNBINDABLE),
        }
        // ANCHOR_END: exercise_settle_propagation
    }
}

// ANCHOR: change
/// Sets the propagation type of the mount at `target` and of all below it.
pub fn change(target: &str, kind: MsFlags) -> Result<()> {
    // MS_REC: a mount namespace has many mounts, and each has a propagation
    // type of its own.
    mount(
        None::<&str>,
        target,
        None::<&str>,
        MsFlags::MS_REC | kind,
        None::<&str>,
    )
    .with_context(|| format!("mount({target:?}, MS_REC | {kind:?})"))
}
// ANCHOR_END: change
