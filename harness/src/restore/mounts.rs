//! Mounts below the directories that are ours: umount(2).

use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};

use super::Broom;
use super::files;
use crate::host;

/// Unmounts them, the latest first.
///
/// # Errors
/// Those of reading mountinfo.
pub fn sweep(broom: &mut Broom) -> Result<()> {
    let places = files::places();
    for mount in host::mounts("self")?.iter().rev() {
        let point = Path::new(&mount.mount_point);
        // Below, not at: the directory itself may be a disk of the host's.
        if !places
            .iter()
            .any(|place| point != place && point.starts_with(place))
        {
            continue;
        }
        broom.take(&format!("mount {}", point.display()), || {
            umount2(point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
                .with_context(|| format!("umount2({})", point.display()))
        });
    }
    Ok(())
}
