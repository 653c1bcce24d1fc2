//! Whether mounts made inside reach the host, and the other way round:
//! mount_namespaces(7), “Shared subtrees”; mount(2), `MS_PRIVATE` and kin.

use anyhow::{Context, Result};
use clap::ValueEnum;
use nix::mount::{MsFlags, mount};
use serde::{Deserialize, Serialize};

/// How the container's mounts propagate.
///
/// A new mount namespace is a copy of the tree of mounts, not a separation of
/// it: where a mount is shared, its copy joins the same peer group, and what
/// is mounted on one appears on the other. systemd makes the whole host shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// Nothing goes out, nothing comes in
    #[default]
    Private,
    /// Nothing goes out; what the host mounts comes in
    Slave,
    /// Both ways, where the host's mounts are shared; /proc then stays the
    /// host's. With --rootfs only between namespaces that are made inside
    Shared,
    /// As private, and no mount can be the source of a bind
    Unbindable,
}

impl Propagation {
    // ANCHOR: cut
    /// Before anything is mounted: cuts the host's tree, or the container's
    /// copy of it, off from its peers.
    ///
    /// `own_root` says whether the container gets a root of its own. If it does
    /// not, `shared` cuts nothing. If it does, even `shared` begins private:
    /// pivot_root refuses a shared parent (`EINVAL`), and the host must not see
    /// the container's mounts come up. The rest is for [`settle`](Self::settle).
    ///
    /// `unbindable` begins private too: an unbindable rootfs could not be bound
    /// on itself.
    ///
    /// # Errors
    /// Those of mount(2).
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

    /// After the last mount, in the root that the command will see.
    ///
    /// With a root of its own and `shared`, the container's mounts become peer
    /// groups without a member on the host: they share with the mount
    /// namespaces that will be made inside.
    ///
    /// # Errors
    /// Those of mount(2).
    pub(crate) fn settle(self) -> Result<()> {
        match self {
            // A mount attached to a private one is private, and to a slave one
            // as well: nothing has to be said again.
            Propagation::Private | Propagation::Slave => Ok(()),
            Propagation::Shared => change("/", MsFlags::MS_SHARED),
            Propagation::Unbindable => change("/", MsFlags::MS_UNBINDABLE),
        }
    }
}

// ANCHOR: change
fn change(target: &str, kind: MsFlags) -> Result<()> {
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
