//! Atomic writes: into a temporary file, then rename(2).

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::own::remove_file;

/// Writes a file atomically: into a temporary file beside it, then rename(2).
/// Several processes may write the same file at the same time. The temporary
/// name begins with a dot, unlike every ID and name: it identifies what a
/// killed process has left. After an error the temporary file is removed.
pub fn write_file(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    let name = path
        .file_name()
        .with_context(|| format!("{path:?} has no name"))?;
    let mut draft = OsString::from(".");
    draft.push(name);
    draft.push(format!(".{}", std::process::id()));
    let new = path.with_file_name(draft);
    let written = write_new(&new, content).and_then(|()| {
        fs::rename(&new, path).with_context(|| format!("rename({new:?}, {path:?})"))
    });
    match written {
        Ok(()) => Ok(()),
        Err(error) => match remove_file(&new) {
            Ok(()) => Err(error),
            Err(more) => Err(error.context(format!("and its remains cannot be removed: {more:#}"))),
        },
    }
}

/// Writes a new file of mode 0600. A file that exists is removed first: a
/// killed process with the same PID has left it.
pub fn write_new(new: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    remove_file(new)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(new)
        .with_context(|| format!("open({new:?}, O_CREAT)"))?;
    file.write_all(content.as_ref())
        .with_context(|| format!("write {new:?}"))
}
