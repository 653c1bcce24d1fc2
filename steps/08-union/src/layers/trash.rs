//! What is no layer any more, or not yet: a name that begins with a dot, which
//! no id does. It is removed where it is, by whoever changes the store next.
//!
//! Some of it may refuse to go: a file that somebody else's mount keeps, one
//! that is immutable, a disk that fails. That is one layer's misfortune. It is
//! told once, the name then ends in `~` and a number, and it is tried again with
//! each change of the store, while everybody else's layers come and go.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kit::{say, warn};

use crate::tree::remove::remove;
use kit::lock::HELD;

/// Takes what is at `path` out of the way, under a name that is no layer's, and
/// then removes it. Killed or not, it is gone for everybody after the first.
/// The caller holds the store's lock.
///
/// # Errors
/// Those of rename(2). What cannot be removed then is told, and no error.
pub fn discard(path: &Path) -> Result<()> {
    if let Some(gone) = set_aside(path)? {
        take(&gone);
    }
    Ok(())
}

/// The first half of that: the new name, if there was anything.
///
/// # Errors
/// As there.
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

/// Removes what has such a name, or says once that it stays.
pub fn take(path: &Path) {
    take_by(path, &remove);
}

/// Removes everything in `directory` that has such a name, and says whether
/// there was any. The caller holds the lock that keeps others from making
/// anything there.
///
/// # Errors
/// Those of reading the directory. What cannot be removed is told, and no error.
pub fn sweep(directory: &Path) -> Result<bool> {
    sweep_by(directory, &remove)
}

/// The same, where `remove` does it.
///
/// # Errors
/// As there.
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

fn take_by(path: &Path, remove: &dyn Fn(&Path) -> Result<()>) {
    let Err(error) = remove(path) else {
        return;
    };
    let told = path
        .file_name()
        .is_some_and(|name| name.as_bytes().contains(&b'~'));
    if told {
        say!("still: {error:#}");
        return;
    }
    warn!("{path:?} stays, and is tried again later: {error:#}");
    let renamed = free(path, "", "~").and_then(|to| match to {
        Some(to) => fs::rename(path, &to).with_context(|| format!("rename({path:?}, {to:?})")),
        None => Ok(()),
    });
    // Then it is told once more.
    if let Err(error) = renamed {
        say!("{error:#}");
    }
}

/// A name beside `path` that nobody has, between `before` and `after`; `None` for
/// a path without a name.
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
