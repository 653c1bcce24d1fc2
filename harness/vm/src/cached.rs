//! Directories of the cache that are complete or absent.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result};
use nix::unistd::syncfs;

/// Does the same as [`publish`], without a message while another run does it:
/// for short work only.
pub fn publish_quietly(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    publish_under(path, false, fill)
}

/// Makes the directory `path` from what `fill` puts into an empty one, unless
/// it exists. It gets its name when it is complete and on the disk, so that
/// neither an interruption nor a simultaneous second run leaves a partial
/// directory that a later run trusts.
pub fn publish(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    publish_under(path, true, fill)
}

fn publish_under(path: &Path, tells: bool, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let parent = path.parent().context("a directory of the cache")?;
    fs::create_dir_all(parent).with_context(|| {
        format!(
            "mkdir {}: set DRYDOCK_CACHE to a directory of yours",
            parent.display()
        )
    })?;
    let lock = File::create(parent.join(".lock"))
        .with_context(|| format!("create {}/.lock", parent.display()))?;
    if lock.try_lock().is_err() {
        // A command prepares two machines at once: it is no other run.
        let own = FILLED_HERE.lock().is_ok_and(|here| here.contains(parent));
        if tells && !own {
            eprintln!("Waiting for another run that fills {} …", parent.display());
        }
        lock.lock()
            .with_context(|| format!("flock {}/.lock", parent.display()))?;
    }
    if path.exists() {
        return Ok(());
    }
    let _here = FilledHere::note(parent);
    remove_unfinished(parent)?;
    let unfinished = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .tempdir_in(parent)
        .with_context(|| format!("mkdir {}/{UNFINISHED}…", parent.display()))?;
    fill(unfinished.path())?;
    let dir = File::open(unfinished.path()).context("open the new directory")?;
    syncfs(dir).context("syncfs")?;
    fs::rename(unfinished.path(), path).with_context(|| format!("rename to {}", path.display()))?;
    // The rename has ended its life as a temporary directory.
    let _renamed = unfinished.keep();
    Ok(())
}

/// The directories in which this process fills one.
static FILLED_HERE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// An entry in [`FILLED_HERE`], until it is dropped.
struct FilledHere(PathBuf);

impl FilledHere {
    fn note(parent: &Path) -> Self {
        if let Ok(mut here) = FILLED_HERE.lock() {
            here.insert(parent.to_owned());
        }
        FilledHere(parent.to_owned())
    }
}

impl Drop for FilledHere {
    fn drop(&mut self) {
        if let Ok(mut here) = FILLED_HERE.lock() {
            here.remove(&self.0);
        }
    }
}

const UNFINISHED: &str = ".unfinished-";

/// Only the holder of the lock fills directories: any other was interrupted.
fn remove_unfinished(parent: &Path) -> Result<()> {
    for entry in fs::read_dir(parent).with_context(|| format!("read {}", parent.display()))? {
        let entry = entry.with_context(|| format!("read {}", parent.display()))?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            fs::remove_dir_all(entry.path())
                .with_context(|| format!("remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    #[test]
    fn what_was_interrupted_is_not_trusted() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("thing");
        fs::create_dir(parent.path().join(".unfinished-1")).unwrap();
        let failed = publish(&path, |dir| {
            fs::write(dir.join("half"), "").unwrap();
            bail!("no network")
        });
        assert!(failed.is_err());
        let left: Vec<_> = fs::read_dir(parent.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "only the lock: {left:?}");
        publish(&path, |dir| Ok(fs::write(dir.join("whole"), "")?)).unwrap();
        assert!(path.join("whole").exists());
        publish(&path, |_| bail!("it is there")).unwrap();
    }
}
