//! Unmounts what is mounted below our directories: umount(2).

use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};

use super::Broom;
use super::files;
use crate::host;

/// Unmounts our mounts, latest first.
pub fn sweep(broom: &mut Broom) -> Result<()> {
    let places = files::places();
    for mount in host::mounts("self")?.iter().rev() {
        let point = Path::new(&mount.mount_point);
        if !places.iter().any(|place| is_ours(point, place)) {
            continue;
        }
        broom.take(&format!("mount {}", point.display()), || {
            umount2(point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
                .with_context(|| format!("umount2({})", point.display()))
        });
    }
    Ok(())
}

/// Whether a mount at `point` is ours, according to our directory `place`.
fn is_ours(point: &Path, place: &Path) -> bool {
    if point == place {
        // The host may mount a disk at a lasting directory.
        return files::is_temporary(place);
    }
    point.starts_with(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_of_the_hosts_is_not_ours() {
        let ours = |point, place| is_ours(Path::new(point), Path::new(place));
        assert!(ours("/var/lib/drydock/btrfs", "/var/lib/drydock"));
        assert!(!ours("/var/lib/drydock", "/var/lib/drydock"));
        assert!(!ours("/var/lib/drydock-2/x", "/var/lib/drydock"));
        assert!(ours("/tmp/drydock-check-a", "/tmp/drydock-check-a"));
        assert!(!ours("/", "/run/drydock"));
    }
}
