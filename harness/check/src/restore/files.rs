//! Removes our directories.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use super::Broom;
use crate::guard::CHECK_DIR;
use crate::{host, workspace};

/// Run-time state of root's containers.
pub const RUN: &str = "/run/drydock";

/// State that outlives root's containers.
const LIB: &str = "/var/lib/drydock";

/// Prefixes of the harness's temporary directories.
const TEMPORARY: [&str; 8] = [
    "drydock-bench-",
    CHECK_DIR,
    "drydock-hostile-",
    "drydock-inject-",
    "drydock-learner-",
    "drydock-machine-",
    "drydock-plan-",
    "drydock-record-",
];

/// The directories below which every mount, and the file of every loop device,
/// is ours.
pub fn places() -> Vec<PathBuf> {
    let mut all = passing();
    all.extend(lasting());
    all.push(workspace::cache().join("rootfs"));
    all
}

/// Whether this is a temporary directory of a check or a benchmark, by its
/// name.
pub fn is_temporary(dir: &Path) -> bool {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    TEMPORARY.iter().any(|prefix| name.starts_with(prefix))
}

/// Removes the directories of runs. Keeps images, layers and volumes unless
/// `all`.
pub fn sweep(broom: &mut Broom, all: bool) -> Result<()> {
    for dir in passing() {
        if dir.exists() {
            broom.take(&dir.display().to_string(), || remove(&dir));
        }
    }
    for dir in lasting() {
        let is_empty = fs::read_dir(&dir).map_or(true, |mut entries| entries.next().is_none());
        if all && dir.exists() {
            broom.take(&dir.display().to_string(), || remove(&dir));
        } else if !is_empty {
            println!(
                "kept {}: images, layers and volumes are not leftovers; --all removes them",
                dir.display()
            );
        }
    }
    Ok(())
}

/// Directories that last as long as a run.
fn passing() -> Vec<PathBuf> {
    let mut all: BTreeSet<PathBuf> = BTreeSet::from([PathBuf::from(RUN)]);
    if let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR") {
        all.insert(Path::new(&dir).join("drydock"));
    }
    let temporary = [std::env::temp_dir(), "/tmp".into(), "/var/tmp".into()];
    for dir in temporary {
        let own = format!("drydock-{}", geteuid());
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let named = name == own || is_temporary(&entry.path());
            // Anyone can make a directory of that name in /tmp.
            let owned = entry
                .metadata()
                .is_ok_and(|meta| meta.is_dir() && meta.uid() == geteuid().as_raw());
            if named && owned {
                all.insert(entry.path());
            }
        }
    }
    all.into_iter().collect()
}

/// Directories that outlive a run.
fn lasting() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share"));
    let data = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or(home);
    [PathBuf::from(LIB)]
        .into_iter()
        .chain(data.map(|dir| dir.join("drydock")))
        .collect()
}

/// Removes a directory if nothing is mounted in it: the files in a mount belong
/// to somebody else.
fn remove(dir: &Path) -> Result<()> {
    let mounts = host::mounts("self")?;
    if let Some(mount) = mounts
        .iter()
        .find(|mount| Path::new(&mount.mount_point).starts_with(dir))
    {
        bail!("{} is mounted there", mount.mount_point);
    }
    fs::remove_dir_all(dir).with_context(|| format!("remove {}", dir.display()))
}
