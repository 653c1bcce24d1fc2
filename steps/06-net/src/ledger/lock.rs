//! A lock on the state's directory, which exists only while it has content:
//! flock(2).

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::ErrorKind::{
    AlreadyExists, DirectoryNotEmpty, NotFound, PermissionDenied, ResourceBusy,
};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail};
use kit::lock::{self, Turn};
use nix::unistd::geteuid;

use crate::ledger::directory::VARIABLE;

/// Creates and locks the directory itself: a lock file would have to be left
/// behind. A process that waits for the lock may get that of a directory which
/// was removed meanwhile, and then begins again.
pub(crate) fn lock(directory: &Path) -> Result<File> {
    loop {
        if let Some(file) = lock::directory(directory, Turn::Judging)? {
            check(&file.metadata().context("fstat")?)?;
            return Ok(file);
        }
        make(directory)?;
    }
}

fn make(directory: &Path) -> Result<()> {
    // The files in it are for containers, whose root may be another user.
    let mode = if geteuid().is_root() { 0o755 } else { 0o700 };
    let parents: Vec<&Path> = directory.ancestors().collect();
    for level in parents.into_iter().rev().filter(|level| !level.exists()) {
        let made = DirBuilder::new()
            .mode(mode)
            .create(level)
            // The umask does not apply.
            .and_then(|()| fs::set_permissions(level, Permissions::from_mode(mode)));
        match made {
            Ok(()) => {}
            // Another process creates or removes it: the lock decides.
            Err(error) if matches!(error.kind(), AlreadyExists | NotFound) => {}
            Err(error) if error.kind() == PermissionDenied => {
                return Err(error)
                    .with_context(|| format!("mkdir: set {VARIABLE} to a directory that you own"));
            }
            Err(error) => return Err(error).context("mkdir"),
        }
    }
    Ok(())
}

/// Refuses a directory that is not ours: in one such as /tmp anybody can create
/// one of this name first.
fn check(directory: &fs::Metadata) -> Result<()> {
    if directory.uid() != geteuid().as_raw() || directory.mode() & 0o022 != 0 {
        bail!("it belongs to another user, or others may write to it: remove it");
    }
    Ok(())
}

/// Removes a directory, unless it has other content. A missing one counts as
/// removed.
pub(crate) fn remove_directory(path: &Path) -> Result<()> {
    match fs::remove_dir(path) {
        Err(error)
            if !matches!(
                error.kind(),
                DirectoryNotEmpty | NotFound | PermissionDenied | ResourceBusy
            ) =>
        {
            Err(error).with_context(|| format!("rmdir({path:?})"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let directory = base.path().join("net");
        fs::create_dir(&directory).unwrap();
        let open = Permissions::from_mode(0o777);
        fs::set_permissions(&directory, open).unwrap();
        let error = format!("{:#}", lock(&directory).unwrap_err());
        assert!(error.contains("others may write to it"), "{error}");
    }

    #[test]
    fn one_at_a_time_though_the_directory_comes_and_goes() {
        let base = tempfile::tempdir().unwrap();
        let parent = base.path().join("drydock");
        let directory = parent.join("net");
        let inside = AtomicUsize::new(0);
        thread::scope(|scope| {
            for n in 0..8 {
                let (parent, directory, inside) = (&parent, &directory, &inside);
                scope.spawn(move || {
                    for _ in 0..50 {
                        let _lock = lock(directory).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        let file = directory.join(n.to_string());
                        fs::write(&file, "").unwrap();
                        fs::remove_file(&file).unwrap();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        remove_directory(directory).unwrap();
                        remove_directory(parent).unwrap();
                    }
                });
            }
        });
    }
}
