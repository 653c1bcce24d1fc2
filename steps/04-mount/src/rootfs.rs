//! The check of the `--rootfs` directory, before the container exists.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Checks that `rootfs` can be a root, and returns its absolute path without
/// links.
///
/// # Errors
/// Refuses a path that does not exist, cannot be reached, is not a directory,
/// or is the host's own root, and names the remedy.
pub(crate) fn check(rootfs: &Path) -> Result<PathBuf> {
    let path = match rootfs.canonicalize() {
        Ok(path) => path,
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "--rootfs {rootfs:?}: there is no such directory: build one with ./just rootfs busybox"
        ),
        Err(error) => {
            return Err(error).with_context(|| {
                format!(
                    "--rootfs {rootfs:?}: realpath: it cannot be reached: check the \
                         permissions of the directories above it"
                )
            });
        }
    };
    if !path.is_dir() {
        bail!(
            "--rootfs {rootfs:?}: that is not a directory: name the one that holds bin, etc and so \
             on; an image or an archive has to be unpacked first"
        );
    }
    if path == Path::new("/") {
        bail!("--rootfs {rootfs:?}: that is the host's own root: omit --rootfs to keep it");
    }
    Ok(path)
}
