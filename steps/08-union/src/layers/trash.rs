//! Remains of layers, half-made or half-removed: their names begin with a dot,
//! which no id does. The next process that changes the store removes them where
//! they are.
//!
//! Removal may fail: a mount of somebody else keeps a file busy, a file is
//! immutable, the disk fails. This affects one layer only. It is reported once,
//! and the name gets a suffix, `~` and a number. Each change of the store tries
//! again, while other layers come and go.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kit::{say, warn};

use crate::tree::remove::remove;
use kit::lock::HELD;

/// Renames what is at `path` to a name that is no layer's, and then removes it.
/// After the rename it is gone for everybody, even if the caller is killed. The
/// caller holds the store's lock. What cannot be removed is a warning, not an
/// error.
pub fn discard(path: &Path) -> Result<()> {
    if let Some(gone) = set_aside(path)? {
        take(&gone);
    }
    Ok(())
}

/// Renames what is at `path` to a name that is no layer's, and returns the new
/// path; `None` if there was nothing. The first half of [`discard`].
pub fn set_aside(path: &Path) -> Result<Option<PathBuf>> {
    let Some(gone) = free(path, ".", "")? else {
        return Ok(None);
    };
    match fs::rename(path, &gone) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        renamed => renamed
            .map(|()| Some(gone.clone()))
            .with_context(|| format!("rename({path:?}, {gone:?})")),
    }
}

/// Removes what [`set_aside`] has renamed, or warns once that it stays.
pub fn take(path: &Path) {
    take_by(path, &remove);
}

/// Removes everything in `directory` whose name begins with a dot, except the
/// lock, and returns whether there was any. The caller holds the lock that
/// keeps others from creating anything there. What cannot be removed is a
/// warning, not an error.
pub fn sweep(directory: &Path) -> Result<bool> {
    sweep_by(directory, &remove)
}

/// Does what [`sweep`] does, with `remove` as the function that removes.
pub fn sweep_by(directory: &Path, remove: &dyn Fn(&Path) -> Result<()>) -> Result<bool> {
    let mut found = false;
    for entry in fs::read_dir(directory).with_context(|| format!("read {directory:?}"))? {
        let name = entry
            .with_context(|| format!("read {directory:?}"))?
            .file_name();
        if name.as_bytes().starts_with(b".") && name != HELD {
            say!("remove what is left in {:?}", directory.join(&name));
            take_by(&directory.join(&name), remove);
            found = true;
        }
    }
    Ok(found)
}

/// Whether this is the name of what could not be removed.
pub fn is_remains(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".") && name.as_bytes().contains(&b'~')
}

fn take_by(path: &Path, remove: &dyn Fn(&Path) -> Result<()>) {
    let Err(error) = remove(path) else {
        return;
    };
    if path.file_name().is_some_and(is_remains) {
        say!("still: {error:#}");
        return;
    }
    warn!("{path:?} stays, and is tried again later: {error:#}");
    let renamed = free(path, "", "~").and_then(|to| match to {
        Some(to) => fs::rename(path, &to).with_context(|| format!("rename({path:?}, {to:?})")),
        None => Ok(()),
    });
    // Without the new name the next attempt warns again.
    if let Err(error) = renamed {
        say!("{error:#}");
    }
}

/// A free path beside `path`: its name between `before` and `after`, with a
/// number where needed; `None` for a path without a name.
fn free(path: &Path, before: &str, after: &str) -> Result<Option<PathBuf>> {
    let Some(name) = path.file_name() else {
        return Ok(None);
    };
    for n in 0u32.. {
        let mut free = std::ffi::OsString::from(before);
        free.push(name);
        free.push(after);
        if n > 0 || !after.is_empty() {
            free.push(n.to_string());
        }
        let free = path.with_file_name(free);
        match fs::symlink_metadata(&free) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Some(free)),
            Err(error) => return Err(error).with_context(|| format!("stat({free:?})")),
            Ok(_) => {}
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    #[test]
    fn what_cannot_be_removed_is_moved_aside_once_and_does_not_stop_the_rest() {
        let temporary = tempfile::tempdir().unwrap();
        let at = |name: &str| temporary.path().join(name);
        for name in [".stuck", ".gone", "layer", HELD] {
            fs::write(at(name), "").unwrap();
        }
        let stubborn = |path: &Path| match path.to_string_lossy().contains("stuck") {
            true => bail!("EBUSY"),
            false => remove(path),
        };
        sweep_by(temporary.path(), &stubborn).unwrap();
        sweep_by(temporary.path(), &stubborn).unwrap();
        assert!(at(".stuck~0").exists() && at("layer").exists() && at(HELD).exists());
        assert!(!at(".gone").exists() && !at(".stuck").exists());
        sweep(temporary.path()).unwrap();
        assert!(!at(".stuck~0").exists());
    }

    #[test]
    fn a_layer_is_gone_though_another_of_its_name_stays() {
        let temporary = tempfile::tempdir().unwrap();
        let layer = temporary.path().join("layer");
        fs::create_dir(temporary.path().join(".layer")).unwrap();
        fs::create_dir(&layer).unwrap();
        discard(&layer).unwrap();
        assert!(!layer.exists());
        discard(&layer).unwrap();
    }
}
